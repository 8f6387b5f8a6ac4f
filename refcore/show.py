"""Tables and pictures as text and HTML, for terminals and notebooks."""

from __future__ import annotations

import base64
import html as markup
import io
from collections.abc import Sequence

from PIL import Image

ROWS = 50
"""Most rows that are shown; a line says how many are left out."""
WIDTH = 60
"""Most characters of a cell in a text table."""
SIDE = 256
"""Most pixels of a picture's longer side in HTML; larger ones are shrunk."""


def text(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in aligned columns.

    >>> print(text(["prompt", "seed"], [["a red circle", "0"], ["a star", "10"]]))
    prompt        seed
    a red circle  0
    a star        10
    """
    cells = [[_short(cell) for cell in row] for row in (header, *rows[:ROWS])]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([*lines, *_left_out(rows)])


def html(
    header: Sequence[str], rows: Sequence[Sequence[str]], images: Sequence[Image.Image], remarks: Sequence[str]
) -> str:
    """A table with a picture before each row, and remarks below it.

    Args:
        header: of the rows.
        rows: of text; the first two cells, prompt and seed, are the picture's alternative text.
        images: of the first rows, at least of the first `ROWS`.
        remarks: one line each.
    """
    cells = ["".join(f"<th>{markup.escape(name)}</th>" for name in ("", *header))]
    for image, row in zip(images, rows[:ROWS], strict=False):
        told = f"{row[0]}, {header[1]} {row[1]}"
        cells.append(f"<td>{_tag(image, told)}</td>" + "".join(f"<td>{markup.escape(cell)}</td>" for cell in row))
    lines = "<br>".join(markup.escape(line) for line in (*_left_out(rows), *remarks))
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table><p>{lines}</p>"


def figure(image: Image.Image, caption: Sequence[str]) -> str:
    """A picture with lines below it, as HTML; the first two stand for the picture where none is seen."""
    lines = "<br>".join(markup.escape(line) for line in caption)
    return f"<figure>{_tag(image, ', '.join(caption[:2]))}<figcaption>{lines}</figcaption></figure>"


def _tag(image: Image.Image, alternative: str) -> str:
    """The picture itself inside an `img` element, with the text that stands for it."""
    small = image.copy()
    small.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    small.save(buffer, format="PNG")
    told = markup.escape(alternative, quote=True)
    return f'<img alt="{told}" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


def _short(cell: str) -> str:
    line = " ".join(cell.split())
    return line if len(line) <= WIDTH else line[: WIDTH - 3] + "..."


def _left_out(rows: Sequence[object]) -> list[str]:
    return [f"... and {len(rows) - ROWS} more"] if len(rows) > ROWS else []
