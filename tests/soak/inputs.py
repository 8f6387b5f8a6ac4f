"""Generated inputs without end for the command line: what the fuzz tests throw, drawn anew in every round.

    python tests/soak/inputs.py --cases 100000 --record runs/soak/inputs.json    # the same command goes on with it

Each round is a process of its own, and its random seed is its number.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # the fuzzers and the record

from fuzz.surfaces import SURFACES
from fuzz.thrown import Ends, models_kept, throw
from fuzz.watched import Sandbox
from soak.record import SoakRecord

ROUND = 2000
"""Cases of a round."""


def one_round(number: int, cases: int) -> dict[str, Any]:
    """Counts of one round: all calls, those of each surface by how they ended, and faults in words."""
    began, ends, faults = time.monotonic(), Counter(), []
    assert isinstance(ends, Counter)
    with tempfile.TemporaryDirectory() as scratch, models_kept():
        sandbox = Sandbox(Path(scratch))
        for surface in SURFACES:
            try:
                throw(surface, cases, sandbox, ends, drawn_anew=number)
            except AssertionError as fault:
                notes = "\n".join(getattr(fault, "__notes__", []))
                faults.append(f"{surface}: {fault}\n{notes}".rstrip())
    return {
        "seed": number,
        "calls": ends.total(),
        "ends": _by_surface(ends),
        "faults": faults,
        "seconds": round(time.monotonic() - began),
    }


def _by_surface(ends: Ends) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {surface: {} for surface in SURFACES}
    for (surface, end), count in sorted(ends.items()):
        found[surface][end] = count
    return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Generated inputs without end for the command line.")
    parser.add_argument("--cases", type=int, default=100_000, help="calls in all rounds together")
    parser.add_argument("--record", type=Path, metavar="FILE", help="continue the rounds in this file")
    given = parser.parse_args(argv)
    record = SoakRecord(given.record)
    context = multiprocessing.get_context("spawn")
    while (left := given.cases - record.total("calls")) > 0:
        with context.Pool(1) as pool:
            record.add(pool.apply(one_round, (len(record.rounds), min(ROUND, max(int(left), len(SURFACES))))))
        last = record.rounds[-1]
        print(
            f"{record.total('calls'):.0f} of {given.cases} calls, {len(record.faults)} faults; {last['seconds']} s",
            flush=True,
        )
    for fault in record.faults:
        print(f"fault: {fault}")
    print(f"{record.total('calls'):.0f} calls, {len(record.faults)} faults, {record.total('seconds'):.0f} s")
    return 1 if record.faults else 0


if __name__ == "__main__":
    sys.exit(main())
