"""The tables of docs/natural.md: the preset `natural` beside each of its referees alone, on the classes reported on.

    python docs/studies/natural.py              # from the committed docs/results/natural
    python docs/studies/natural.py --from DIR   # takes over the results in DIR first, without their pictures

DIR is made by `refcore bench natural --set reporting --out DIR`; the page says with which variants.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from page import fill, take_over

from refcore_playground.bench.results import Results
from refcore_playground.bench.summary import summarise
from refcore_playground.bench.tables import tables

DOCS = Path(__file__).parents[1]
RESULT, PAGE = DOCS / "results" / "natural", DOCS / "natural.md"
SHOWN = 3
"""Tables: accuracy, by category, and the differences."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="source", type=Path, metavar="DIR", help="a benchmark's folder to take over")
    source = parser.parse_args().source
    if source is not None:
        take_over(Results.existing(source).path, RESULT)
    found = tables(summarise(Results.existing(RESULT)))[:SHOWN]
    fill(PAGE, Path(__file__).name, {"tables": "\n".join(table.markdown() for table in found)})
    print(f"wrote {PAGE.relative_to(DOCS.parent)}")


if __name__ == "__main__":
    main()
