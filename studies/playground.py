"""The study of docs/results/playground.md: the preset against its baselines, where the truth is known.

    python studies/playground.py              # tables and plot from the committed studies/rows/playground
    python studies/playground.py --from DIR   # first imports the results in DIR, without their pictures

DIR is made by `refcore bench playground --prompts-seed 2031 --out DIR`; the page lists the variants.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import polars
from figures import frame, save
from matplotlib import pyplot
from page import DOCS, ROWS, fill, from_command_line
from PIL import Image

from refcore.config import presets
from refcore_bench.contact_sheets import draw_sheet
from refcore_bench.plot import write_plot
from refcore_bench.results import Results
from refcore_bench.summary import summarise
from refcore_bench.tables import markdown, tables

RESULT, PAGE, FIGURE = ROWS / "playground", DOCS / "results/playground.md", DOCS / "images/playground-report.png"
SHEET, STRIP = (DOCS / "images" / name for name in ("playground-report-images.png", "playground-strip.png"))


def main() -> None:
    from_command_line(__doc__, {"from": (RESULT, pictures)})
    fill(PAGE, Path(__file__).name, parts())
    write_plot(summarise(Results.existing(RESULT)), FIGURE)
    print(f"wrote {PAGE.relative_to(DOCS.parent)} and {FIGURE.relative_to(DOCS.parent)}")


def parts() -> dict[str, str]:
    """The generated parts of the page."""
    summary = summarise(Results.existing(RESULT))
    return {"tables": markdown(tables(summary))}


def pictures(results: Results) -> None:
    """Writes all of the preset's images, and the first of each category and split."""
    own = results.rows(images=True).filter(polars.col("variant") == presets.DEFAULT)
    sheet = draw_sheet(own)
    sheet.resize((sheet.width // 2, sheet.height // 2), Image.Resampling.BOX).quantize(256).save(SHEET, optimize=True)

    first = own.group_by(["split", "category"], maintain_order=True).first().sort("split", maintain_order=True)
    figure, axes = pyplot.subplots(2, len(first) // 2, figsize=(1.9 * len(first) / 2, 5.0), layout="constrained")
    for axis, row in zip(axes.flat, first.iter_rows(named=True), strict=True):
        frame(axis, row)
        axis.set_title(textwrap.fill(row["prompt"], 22), fontsize=8)
    save(figure, STRIP)


if __name__ == "__main__":
    main()
