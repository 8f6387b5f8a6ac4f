"""`python -m performance`: prints the table of docs/performance.md."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from performance import table
from refcore.cli.output import print_table

PAIRS, SHORT = 41, 5


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m performance", description=__doc__)
    parser.add_argument("--short", action="store_true", help="few pairs; for CI, where only exactness may fail")
    parser.add_argument("--pairs", type=int, help=f"timed pairs per row (default: {PAIRS}, or {SHORT} with --short)")
    parser.add_argument("--threads", type=int, default=1, help="torch threads; the default of 1 varies least")
    parser.add_argument("--scratch", type=Path, default=Path("scratch"), help="folder for a medium model, 0.6 GB")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    given = parser.parse_args(argv)
    torch.set_num_threads(given.threads)

    exact = table.exactness(lambda name, found: print(f"{name}: parameters differ by {found:.1e} (relative)"))
    if not exact:
        print(
            f"error: refcore's step differs from the hand-written one; expected below {table.EXACT:.0e}",
            file=sys.stderr,
        )
    found = []
    for row in table.rows(given.pairs or (SHORT if given.short else PAIRS), given.scratch):
        found.append(row)
        print(f"{row.name}, {row.models}: {row.measured}", file=sys.stderr, flush=True)
    holds = {True: "yes", False: "NO", None: ""}
    print_table(
        ["measurement", "models", "median (95 % interval)", "target", "holds", "note"],
        [[row.name, row.models, row.measured, row.target, holds[row.holds], row.note] for row in found],
    )
    if given.json is not None:
        given.json.write_text(json.dumps([table.as_json(row) for row in found], indent=2) + "\n")
    return 0 if exact else 1


if __name__ == "__main__":
    sys.exit(main())
