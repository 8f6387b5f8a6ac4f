"""The tables and pictures of docs/natural.md: the preset `natural` beside each of its referees alone.

    python docs/studies/natural.py              # tables from the committed docs/results/natural
    python docs/studies/natural.py --from DIR   # takes over the results in DIR first, and draws its pictures

DIR is made by `refcore bench natural --set reporting --out DIR`; the page says with which variants.
"""

from __future__ import annotations

from pathlib import Path

import polars
from page import fill, from_command_line
from PIL import Image

from refcore_playground.bench.natural import NATURAL
from refcore_playground.bench.results import Results
from refcore_playground.bench.sheet import draw_sheet
from refcore_playground.bench.summary import summarise
from refcore_playground.bench.tables import tables

DOCS = Path(__file__).parents[1]
RESULT, PAGE, SHEET = DOCS / "results" / "natural", DOCS / "natural.md", DOCS / "images" / "natural-60.jpg"
SHOWN = 3
"""Tables: accuracy, by category, and the differences."""


def main() -> None:
    from_command_line(__doc__, RESULT, pictures)
    fill(PAGE, Path(__file__).name, parts())
    print(f"wrote {PAGE.relative_to(DOCS.parent)}")


def parts() -> dict[str, str]:
    """What this command writes into the page."""
    found = tables(summarise(Results.existing(RESULT)))[:SHOWN]
    return {"tables": "\n".join(table.markdown() for table in found)}


def pictures(results: Results) -> None:
    """All of the preset's images, a group after the other."""
    own = results.rows(images=True).filter(polars.col("variant") == NATURAL.name)
    order = {name: i for i, name in enumerate(NATURAL.categories)}
    sheet = draw_sheet(own.sort(polars.col("category").replace_strict(order), maintain_order=True))
    sheet.resize((sheet.width * 3 // 4, sheet.height * 3 // 4), Image.Resampling.LANCZOS).save(SHEET, quality=88)


if __name__ == "__main__":
    main()
