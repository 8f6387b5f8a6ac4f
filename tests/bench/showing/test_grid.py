"""The grid of a benchmark's pictures: columns in the order of the tables, and no label in its neighbour's column."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageFont

from refcore_bench.showing import grid

FONT = ImageFont.load_default(grid.TEXT)


def row(variant: str, prompt: str = "a red circle") -> dict:
    """A black picture with one score."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, format="PNG")
    score = {"referee": "clip-with-a-long-label", "score": 0.5, "optimised": True, "rank": 7}
    return {
        "variant": variant, "prompt": prompt, "seed": 0, "verdict": True, "scores": [score], "image": buffer.getvalue(),
    }  # fmt: skip


@pytest.mark.fault("4.13")
@pytest.mark.parametrize(
    "text", ["lite0-alone", "a-variant-with-a-name-of-many-words", "a red circle left of " * 5, "w" * 90]
)
def test_a_label_is_broken_into_lines_that_fit(text):
    lines = grid.wrapped(text, FONT, grid.SIDE)
    assert all(FONT.getlength(line) <= grid.SIDE for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


@pytest.mark.fault("4.13")
def test_nothing_is_drawn_between_two_columns():
    long = "a red circle left of a blue square and above a very small dotted green star"
    page = grid._draw(
        [row("a-variant-with-a-very-long-name", long), row("b", long)], ["a-variant-with-a-very-long-name", "b"]
    )
    pixels = np.asarray(page)
    left = grid.GAP + grid.SIDE
    assert (pixels[:, left : left + grid.GAP] == 255).all()


@pytest.mark.fault("4.13")
def test_columns_are_in_the_order_of_the_tables():
    black = grid._draw([row("b"), row("a")], ["a", "b"])
    assert np.array_equal(np.asarray(black), np.asarray(grid._draw([row("a"), row("b")], ["a", "b"])))
