"""Pictures of a page: as large as their share of the page's bytes allows, inside the page itself."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from refcore.images import Levels

SIDES = (512, 384, 256, 192, 128, 96, 64, 48, 32)
"""Longer sides in pixels that are tried, from the largest."""
QUALITIES = (90, 75, 50)
CRISP = 128
"""Longer side up to which a picture is kept without loss where its share allows, and shown with square pixels."""
FRAME_MS, LAST_MS = 140, 1600
"""Milliseconds of a frame of an animation, and of its last one."""


@dataclass(frozen=True)
class Picture:
    """An image of the page."""

    source: str
    """Its contents, as a data: URL."""
    alt: str
    width: int
    height: int
    """In pixels of the image file."""
    crisp: bool
    """True where it is small, and enlarged with square pixels."""

    @property
    def bytes(self) -> int:
        """What it takes on the page."""
        return len(self.source)


def picture(levels: Levels, alt: str, budget: int, most: int = SIDES[0]) -> Picture | None:
    """The largest and finest image of at most `budget` bytes on the page; None where even the least is larger."""
    image = Image.fromarray(levels)
    for side in _sides(image, most):
        small = _shrunk(image, side)
        for options in _options(small):
            found = _picture(small, [small], alt, options)
            if found.bytes <= budget:
                return found
    return None


def animation(frames: Sequence[Levels], alt: str, budget: int, most: int = 192) -> Picture | None:
    """The frames one after another, over and over, the last one longer; otherwise as `picture`.

    Where they do not fit at any size, every second one is left out, and so on.
    """
    pictures = [Image.fromarray(levels) for levels in frames]
    while len(pictures) > 1:
        for side in _sides(pictures[0], most):
            small = [_shrunk(image, side) for image in pictures]
            found = _picture(small[0], small, alt, _options(small[0])[0])
            if found.bytes <= budget:
                return found
        pictures = [*pictures[:-1:2], pictures[-1]] if len(pictures) > 2 else []
    return None


def sheet(tiles: Sequence[Sequence[Levels]], gap: int = 4) -> Levels:
    """Tiles of one size in rows, with a grey gap between them."""
    height, width = tiles[0][0].shape[:2]
    columns = max(map(len, tiles))
    whole = np.full((len(tiles) * (height + gap) - gap, columns * (width + gap) - gap, 3), 127, np.uint8)
    for r, row in enumerate(tiles):
        for c, tile in enumerate(row):
            top, left = r * (height + gap), c * (width + gap)
            whole[top : top + height, left : left + width] = tile
    return whole


def _sides(image: Image.Image, most: int) -> list[int]:
    own = min(max(image.size), most)
    return [own, *(side for side in SIDES if side < own)]


def _shrunk(image: Image.Image, side: int) -> Image.Image:
    if max(image.size) <= side:
        return image
    scale = side / max(image.size)
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.BOX)


def _options(image: Image.Image) -> list[dict[str, int | bool]]:
    lossy: list[dict[str, int | bool]] = [{"quality": quality, "method": 2} for quality in QUALITIES]
    return [{"lossless": True, "quality": 20, "method": 0}, *lossy] if max(image.size) <= CRISP else lossy


def _picture(first: Image.Image, frames: Sequence[Image.Image], alt: str, options: dict[str, int | bool]) -> Picture:
    buffer = io.BytesIO()
    if len(frames) > 1:
        durations = [FRAME_MS] * (len(frames) - 1) + [LAST_MS]
        first.save(buffer, "WEBP", save_all=True, append_images=list(frames[1:]), duration=durations, loop=0, **options)
    else:
        first.save(buffer, "WEBP", **options)
    source = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
    return Picture(source, alt, first.width, first.height, max(first.size) <= CRISP)
