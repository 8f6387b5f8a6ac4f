"""The studies of docs/results/playground.md and blind.md: a preset against its baselines, where the truth is known.

    python studies/playground.py PAGE              # tables and plot from the committed studies/rows/PAGE
    python studies/playground.py PAGE --from DIR   # first imports the results in DIR, without their pictures

PAGE is playground or blind, or a part of one: turbo of playground, from-noise and two-tries of blind. DIR is made by
`refcore bench playground --out DIR`, as the page says.
"""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

import polars
from figures import frame, save
from matplotlib import pyplot
from page import DOCS, ROWS, fill, import_results
from PIL import Image

from refcore_bench.showing.plot import write_plot
from refcore_bench.showing.summary import summarise
from refcore_bench.showing.tables import tables
from refcore_bench.storing.contact_sheets import draw_sheet
from refcore_bench.storing.results import Results
from refcore_bench.table import markdown

PAGES = ("playground", "blind")
PARTS = {
    "turbo": ("playground", "sampling-3"),
    "from-noise": ("blind", "sampling-3"),
    "two-tries": ("blind", "playground-blind"),
}
"""Further studies -> the page they are on and the variant that others are compared with: the one-step generator,
inversion from noise with the prior told, and an earlier setting of the preset."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", choices=(*PAGES, *PARTS))
    parser.add_argument("--from", dest="source", type=Path, metavar="DIR", help="import the results in this folder")
    given = parser.parse_args()
    if given.source is not None:
        found = Results.existing(given.source)
        import_results(found.path, ROWS / given.page)
        if given.page in PAGES:
            pictures(given.page, found)
    name = given.page if given.page in PAGES else PARTS[given.page][0]
    page, figure = DOCS / f"results/{name}.md", DOCS / f"images/{name}-report.png"
    fill(page, Path(__file__).name, parts(name))
    write_plot(summarise(Results.existing(ROWS / name)), figure)
    print(f"wrote {page.relative_to(DOCS.parent)} and {figure.relative_to(DOCS.parent)}")


def parts(page: str) -> dict[str, str]:
    """The generated parts of a page."""
    whole = {"tables": markdown(tables(summarise(Results.existing(ROWS / page))))}
    for part, (own, against) in PARTS.items():
        if own != page:
            continue
        found = tables(summarise(Results.existing(ROWS / part), against))
        whole[part] = markdown([table for table in found if table is found[0] or " minus " in table.title])
    return whole


def pictures(page: str, results: Results) -> None:
    """Writes all of the preset's images, and the first of each category and split.

    Where rows lack their pictures, as in a folder that goes on from committed rows, the committed ones stay.
    """
    preset = polars.col("variant") == results.task.name
    own = results.rows(images=True).filter(preset)
    if len(own) < results.rows().filter(preset).height:
        print(f"{results.path} lacks pictures of {results.task.name}; those of the page stay as they are")
        return
    sheet = draw_sheet(own)
    small = sheet.resize((sheet.width // 2, sheet.height // 2), Image.Resampling.BOX).quantize(256)
    small.save(DOCS / f"images/{page}-report-images.png", optimize=True)

    first = own.group_by(["split", "category"], maintain_order=True).first().sort("split", maintain_order=True)
    figure, axes = pyplot.subplots(2, len(first) // 2, figsize=(1.9 * len(first) / 2, 5.0), layout="constrained")
    for axis, row in zip(axes.flat, first.iter_rows(named=True), strict=True):
        frame(axis, row)
        axis.set_title(textwrap.fill(row["prompt"], 22), fontsize=8)
    save(figure, DOCS / f"images/{page}-strip.png")


if __name__ == "__main__":
    main()
