"""The pictures of a benchmark side by side: a row for every prompt and seed, a column for every variant."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from refcore import images as files
from refcore.errors import RefcoreError
from refcore.runs import rundir
from refcore_bench.storing.contact_sheets import colour_of, scaled
from refcore_bench.storing.results import Results

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
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
    """Writes all pictures in one, each above its prompt (in the verdict's colour, if there is one) and the scores.

    Columns are the variants in the order of the tables. Names and prompts that are too long are broken into lines.

    Raises:
        RefcoreError: the folder has no pictures, the format is unknown, the path cannot be written to.
    """
    if path.suffix not in SETTINGS:
        raise RefcoreError(f'--grid "{path}": "{path.suffix}" is not a known format; expected {", ".join(SETTINGS)}')
    form, options = SETTINGS[path.suffix]
    drawn = _draw(results.rows(images=True).to_dicts(), list(results.variants()))
    buffer = io.BytesIO()
    (drawn.quantize(256) if form == "PNG" else drawn).save(buffer, format=form, **options)
    rundir.write(path, buffer.getvalue())


def _draw(rows: list[dict[str, Any]], order: Sequence[str]) -> Image.Image:
    font = ImageFont.load_default(TEXT)
    found = {row["variant"] for row in rows}
    columns = [name for name in order if name in found] + sorted(found - set(order))
    images: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
    for row in rows:
        images.setdefault((row["prompt"], row["seed"]), {})[row["variant"]] = row
    heads = [wrapped(name, font, SIDE) for name in columns]
    captions = {(row["prompt"], row["seed"], row["variant"]): _caption(row, font) for row in rows}
    top = GAP + LINE * max(map(len, heads))
    wide, high = SIDE + GAP, SIDE + LINE * max(len(lines) for lines in captions.values()) + GAP
    page = Image.new("RGB", (len(columns) * wide + GAP, top + len(images) * high), "white")
    draw = ImageDraw.Draw(page)
    for i, lines in enumerate(heads):
        for k, line in enumerate(lines):
            draw.text((GAP + i * wide, 2 + k * LINE), line, "black", font)
    for j, ((prompt, seed), own) in enumerate(images.items()):
        for name, row in own.items():
            x, y = GAP + columns.index(name) * wide, top + j * high
            page.paste(scaled(files.picture(row["image"]), SIDE), (x, y))
            for k, (line, heading) in enumerate(captions[prompt, seed, name]):
                colour = colour_of(row["verdict"]) if heading and row["verdict"] is not None else "black"
                draw.text((x, y + SIDE + k * LINE), line, colour, font)
    return page


def _caption(row: dict[str, Any], font: Font) -> list[tuple[str, bool]]:
    """(line, whether it is of the prompt) of what stands below a picture."""
    prompt = f"{row['prompt']}, seed {row['seed']}" if row["seed"] else row["prompt"]
    scores = [line for score in row["scores"] for line in wrapped(_score_line(score), font, SIDE)]
    return [(line, True) for line in wrapped(prompt, font, SIDE)] + [(line, False) for line in scores]


def wrapped(text: str, font: Font, width: int) -> list[str]:
    """The text in lines that are at most `width` pixels long, broken between words, or in a word that is longer."""
    lines = [""]
    for word in re.findall(r"\S+?(?:[-+=](?=\S)|(?=\s)|$)\s*", text):
        if lines[-1] and font.getlength((lines[-1] + word).rstrip()) > width:
            lines.append("")
        for letter in word:
            if font.getlength((lines[-1] + letter).rstrip()) > width:
                lines.append("")
            lines[-1] += letter
    return [line.rstrip() for line in lines]


def _score_line(score: dict[str, Any]) -> str:
    """`lite0 1.00, rank 1`; in brackets for scorers that the variant does not optimise for."""
    rank = f", rank {score['rank']}" if score["rank"] is not None else ""
    line = f"{score['referee']} {score['score']:.2f}{rank}"
    return line if score["optimised"] else f"({line})"
