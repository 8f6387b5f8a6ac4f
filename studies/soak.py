"""What the soaks have seen: the tables of docs/guides/resume.md and docs/guides/security.md.

python studies/soak.py               # from studies/rows/soak
python studies/soak.py --from DIR    # first imports the records in DIR, such as runs/soak of `make soak`
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from page import DOCS, ROWS, fill

from refcore_bench.table import Table, markdown

KEPT = ROWS / "soak"
KILLS, INPUTS = "kills.json", "inputs.json"
MADE, WANTED = "soak", {KILLS: 1_000, INPUTS: 100_000}
"""Name of the part of both pages, and the length of a whole soak."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="source", type=Path, metavar="DIR", help="import the records in this folder")
    given = parser.parse_args()
    if given.source is not None:
        KEPT.mkdir(parents=True, exist_ok=True)
        for name in WANTED:
            if (given.source / name).is_file():
                shutil.copyfile(given.source / name, KEPT / name)
    fill(DOCS / "guides" / "resume.md", Path(__file__).name, {MADE: markdown([kills(_rounds(KILLS))])})
    fill(DOCS / "guides" / "security.md", Path(__file__).name, {MADE: markdown([inputs(_rounds(INPUTS))])})


def kills(rounds: list[dict[str, Any]]) -> Table:
    """Kills, and what became of the runs."""
    total = _total(rounds)
    rows = [
        ["kills", f"{total['kills']:,} of {WANTED[KILLS]:,}"],
        ["of these at a named point between two writes", f"{total['at_points']:,}"],
        ["resumptions", f"{total['resumed']:,}"],
        ["of these without a checkpoint yet", f"{total['anew']:,}"],
        ["runs compared with the one left alone, bit for bit", f"{total['runs']:,}"],
        ["faults", str(sum(len(each["faults"]) for each in rounds))],
    ]
    return Table("Kills of runs on the embedded playground", ["", "number"], rows, _commits(rounds))


def inputs(rounds: list[dict[str, Any]]) -> Table:
    """Calls of each surface by how they ended."""
    rows, summed = [], Counter[str]()
    for surface in rounds[-1]["ends"] if rounds else ():
        ends = Counter[str]()
        for each in rounds:
            ends.update(each["ends"].get(surface, {}))
        summed.update(ends)
        rows.append([surface, *(f"{count:,}" for count in (ends.total(), ends["done"], ends["refused"]))])
    done = f"{summed.total():,} of {WANTED[INPUTS]:,}"
    rows.append(["all", done, f"{summed['done']:,}", f"{summed['refused']:,}"])
    faults = [fault for each in rounds for fault in each["faults"]]
    note = f"Faults found: {len(faults)}. {_commits(rounds)}"
    return Table("Generated inputs", ["input", "calls", "done", "refused in a sentence"], rows, note)


def _rounds(name: str) -> list[dict[str, Any]]:
    path = KEPT / name
    found: list[dict[str, Any]] = json.loads(path.read_text("utf-8")) if path.is_file() else []
    return found


def _total(rounds: list[dict[str, Any]]) -> Counter[str]:
    summed = Counter[str]()
    for each in rounds:
        summed.update({name: value for name, value in each.items() if isinstance(value, int)})
    return summed


def _commits(rounds: list[dict[str, Any]]) -> str:
    found = list(dict.fromkeys(each["commit"] for each in rounds))
    return f"Of commit {', '.join(found)}." if found else "Not run yet."


if __name__ == "__main__":
    main()
