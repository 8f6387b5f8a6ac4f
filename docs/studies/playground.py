"""The study of docs/results/playground.md: the preset against its baselines, where the truth is known.

    python docs/studies/playground.py              # tables and plot from the committed docs/results/playground
    python docs/studies/playground.py --from DIR   # takes over the results in DIR first, without their pictures

DIR is made by `refcore bench playground --prompts-seed 2027 --out DIR`; the page says with which variants.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from page import fill

from refcore_playground.bench.plot import write_plot
from refcore_playground.bench.results import Results
from refcore_playground.bench.summary import summarise
from refcore_playground.bench.tables import tables

DOCS = Path(__file__).parents[1]
RESULT, PAGE, FIGURE = (
    DOCS / name for name in ("results/playground", "results/playground.md", "images/playground-report.png")
)
KEPT = ("*.parquet", "*.json", "variants/*.json")
"""Of a benchmark's folder; pictures lie in parts/ and sheets/."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="source", type=Path, metavar="DIR", help="a benchmark's folder to take over")
    source = parser.parse_args().source
    if source is not None:
        take_over(Results.existing(source).path)
    summary = summarise(Results.existing(RESULT), None)
    fill(PAGE, Path(__file__).name, {"tables": "\n".join(table.markdown() for table in tables(summary))})
    write_plot(summary, FIGURE)
    print(f"wrote {PAGE.relative_to(DOCS.parent)} and {FIGURE.relative_to(DOCS.parent)}")


def take_over(source: Path) -> None:
    shutil.rmtree(RESULT, ignore_errors=True)
    for pattern in KEPT:
        for path in source.glob(pattern):
            target = RESULT / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


if __name__ == "__main__":
    main()
