"""Contact sheets: every image of a variant, framed in the colour of its verdict, if it has one."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from refcore import images

if TYPE_CHECKING:
    import polars

    from refcore_bench.storing.results import Results

RIGHT, WRONG, UNJUDGED = "#2a9d4a", "#d03030", "#888888"
COLUMNS = 12
SIDE = 128
"""Side of a picture on the sheet, in pixels."""
MOST = 2_400
"""Pictures on a sheet."""
FRAME = 4
GAP = 4


def write_sheets(results: Results) -> list[str]:
    """Writes `sheets/VARIANT.png` of every variant, in the order of seeds and prompts; returns the names.

    A picture that was not kept has no place on a sheet, and of more than `MOST` only some have.
    """
    if not results.has_pictures:
        return []
    kept = {part.split("/")[1] for part in results.storage.listed("parts/*/*.parquet")}
    names: list[str] = []
    for name in [name for name in results.variants() if name in kept]:
        buffer = io.BytesIO()
        draw_sheet(results.pictures(name, MOST)).save(buffer, format="PNG")
        names.append(f"sheets/{name}.png")
        results.storage.write(names[-1], buffer.getvalue())
    return names


def draw_sheet(rows: polars.DataFrame) -> Image.Image:
    """A sheet of rows with their `image`: framed green for the verdict yes, red for no, grey for none."""
    cell = SIDE + 2 * FRAME + GAP
    columns = min(COLUMNS, max(1, len(rows)))
    sheet = Image.new("RGB", (columns * cell + GAP, -(-len(rows) // columns) * cell + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (png, verdict) in enumerate(rows.select("image", "verdict").iter_rows()):
        x, y = i % columns * cell + GAP, i // columns * cell + GAP
        draw.rectangle((x, y, x + cell - GAP - 1, y + cell - GAP - 1), fill=colour_of(verdict))
        sheet.paste(scaled(images.picture(png), SIDE), (x + FRAME, y + FRAME))
    return sheet


def colour_of(verdict: bool | None) -> str:
    return UNJUDGED if verdict is None else RIGHT if verdict else WRONG


def scaled(picture: Image.Image, side: int) -> Image.Image:
    """The picture resized to a square of `side` pixels; small ones keep square pixels, large ones are smoothed."""
    small = max(picture.size) < side
    return picture.convert("RGB").resize((side, side), Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS)


def side_of(png: bytes) -> int:
    """Longer side of a picture, in pixels."""
    return max(images.picture(png).size)
