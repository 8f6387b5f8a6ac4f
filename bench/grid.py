"""The pictures of a benchmark side by side: a row for every prompt and seed, a column for every variant."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from refcore.errors import RefcoreError
from refcore.runs import rundir
from refcore_bench.contact_sheets import RIGHT, WRONG, scaled
from refcore_bench.results import Results

SIDE = 144
"""Side of a picture, in pixels."""
GAP = 6
TEXT = 11
"""Height of the letters."""
LINE = 13
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {"optimize": True}),
    ".jpg": ("JPEG", {"quality": 88}),
}
"""Extension -> format and its options. A PNG has 256 colours, or detailed pictures would make it large."""


def write_grid(results: Results, path: Path) -> None:
    """Writes all pictures in one, each above its prompt (in the verdict's colour) and the scores.

    Raises:
        RefcoreError: the folder has no pictures, the format is unknown, the path cannot be written to.
    """
    if path.suffix not in SETTINGS:
        raise RefcoreError(f'--grid "{path}": "{path.suffix}" is not a known format; expected {", ".join(SETTINGS)}')
    form, options = SETTINGS[path.suffix]
    drawn = _draw(results.rows(images=True).to_dicts())
    buffer = io.BytesIO()
    (drawn.quantize(256) if form == "PNG" else drawn).save(buffer, format=form, **options)
    rundir.write(path, buffer.getvalue())


def _draw(rows: list[dict[str, Any]]) -> Image.Image:
    columns = list(dict.fromkeys(row["variant"] for row in rows))
    images: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
    for row in rows:
        images.setdefault((row["prompt"], row["seed"]), {})[row["variant"]] = row
    lines = 1 + max(len(row["scores"]) for row in rows)
    wide, high = SIDE + GAP, SIDE + lines * LINE + GAP
    page = Image.new("RGB", (len(columns) * wide + GAP, len(images) * high + LINE + GAP), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(TEXT)
    for i, name in enumerate(columns):
        draw.text((GAP + i * wide, 2), name, "black", font)
    for j, ((prompt, seed), own) in enumerate(images.items()):
        for name, row in own.items():
            x, y = GAP + columns.index(name) * wide, GAP + LINE + j * high
            with Image.open(io.BytesIO(row["image"])) as picture:
                page.paste(scaled(picture, SIDE), (x, y))
            caption = [f"{prompt}, seed {seed}" if seed else prompt, *map(_score_line, row["scores"])]
            for k, line in enumerate(caption):
                colour = "black" if k else RIGHT if row["verdict"] else WRONG
                draw.text((x, y + SIDE + k * LINE), line, colour, font)
    return page


def _score_line(score: dict[str, Any]) -> str:
    """`lite0 1.00, rank 1`; in brackets for scorers that the variant does not optimise for."""
    rank = f", rank {score['rank']}" if score["rank"] is not None else ""
    line = f"{score['referee']} {score['score']:.2f}{rank}"
    return line if score["optimised"] else f"({line})"
