"""The tables and pictures of docs/natural.md, from the committed rows of studies/rows/natural.

    python studies/natural.py                 # the tables
    python studies/natural.py --report DIR    # first imports the results in DIR: the preset, its referees alone
    python studies/natural.py --tuning DIR    # the same for settings tried on the tuning classes
    python studies/natural.py --views DIR     # the same for more views, shown as one picture

Each DIR is made by `refcore bench natural --out DIR`; the page lists the variants and classes.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import polars
from page import DOCS, ROWS, fill, from_command_line
from PIL import Image

from refcore_bench.showing.grid import write_grid
from refcore_bench.showing.summary import summarise
from refcore_bench.showing.tables import tables
from refcore_bench.storing.contact_sheets import draw_sheet
from refcore_bench.storing.results import Results
from refcore_bench.table import grid, markdown
from refcore_bench.tasks.natural import NATURAL

PAGE = DOCS / "natural.md"
REPORT, TUNING, VIEWS = (ROWS / "natural" / name for name in ("report", "tuning", "views"))
SHEET, GRID = (DOCS / "images" / name for name in ("natural-60.jpg", "natural-views.png"))
ACCURACY, DIFFERENCES = 0, 2
"""Indices of a summary's tables; the one between them is by category."""


def main() -> None:
    drawn = {"report": (REPORT, every_picture), "tuning": (TUNING, None), "views": (VIEWS, side_by_side)}
    from_command_line(__doc__, drawn)
    fill(PAGE, Path(__file__).name, parts())
    print(f"wrote {PAGE.relative_to(DOCS.parent)}")


def parts() -> dict[str, str]:
    """The generated parts of the page."""
    report, tuning = (tables(summarise(Results.existing(result))) for result in (REPORT, TUNING))
    shown = {"report": report[ACCURACY : DIFFERENCES + 1], "tuning": [tuning[ACCURACY], tuning[DIFFERENCES]]}
    made = {part: markdown(found) for part, found in shown.items()}
    return {**made, "choosing": choosing()}


def choosing() -> str:
    """Table: tuning classes that the witness ranks first, by the rule that chooses among the preset's pictures."""
    rows = Results.existing(TUNING).rows().filter(polars.col("variant") == NATURAL.name).to_dicts()
    classes: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        classes.setdefault(row["prompt"], []).append(row)

    def networks(row: dict[str, Any]) -> float:
        return math.prod(score["score"] for score in row["scores"] if score["optimised"])

    taken = {
        "a random one": [sum(row["verdict"] for row in own) / len(own) for own in classes.values()],
        "the one with the larger product of both networks' p": [
            max(own, key=networks)["verdict"] for own in classes.values()
        ],
        "the one that the witness prefers, as an upper bound": [
            any(row["verdict"] for row in own) for own in classes.values()
        ],
    }
    columns = [f"choice among {len(rows) // len(classes)} pictures", f"ranked first, of {len(classes)} classes"]
    return grid(columns, [[name, f"{sum(right):g}"] for name, right in taken.items()])


def side_by_side(results: Results) -> None:
    """Writes every image, with a row per class and a column per variant."""
    write_grid(results, GRID)


def every_picture(results: Results) -> None:
    """Writes all of the preset's images, group by group."""
    own = results.rows(images=True).filter(polars.col("variant") == NATURAL.name)
    order = {name: i for i, name in enumerate(NATURAL.categories)}
    sheet = draw_sheet(own.sort(polars.col("category").replace_strict(order), maintain_order=True))
    sheet.resize((sheet.width * 3 // 4, sheet.height * 3 // 4), Image.Resampling.LANCZOS).save(SHEET, quality=88)


if __name__ == "__main__":
    main()
