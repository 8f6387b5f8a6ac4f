"""Sizes of canvases and of the images that they start from, checked."""

from __future__ import annotations

from torch import Tensor

from refcore.errors import RefcoreError


def check_least_side(size: tuple[int, int], least: int) -> None:
    """Raises RefcoreError, with the nearest possible size, if a side of (height, width) is below `least` pixels."""
    height, width = size
    if min(size) < least:
        raise RefcoreError(
            f"size {height}x{width} (height x width): each side must be at least {least} pixel{'s' * (least > 1)}; "
            f"the nearest is {max(least, height)}x{max(least, width)}"
        )


def check_multiples(size: tuple[int, int], factor: int, model: str) -> None:
    """Raises RefcoreError, with the nearest possible size, unless both sides are multiples of a model's factor."""
    if any(side < 1 or side % factor for side in size):
        near = [max(1, (2 * side + factor) // (2 * factor)) * factor for side in size]
        raise RefcoreError(
            f"size {size[0]}x{size[1]} (height x width): each side must be a positive multiple of {factor} "
            f"for this {model}; the nearest is {near[0]}x{near[1]}"
        )


def check_image_size(images: Tensor, size: tuple[int, int]) -> None:
    """Raises RefcoreError unless images [B, 3, H, W] have the canvas's (height, width)."""
    if images.shape[-2:] != size:
        raise RefcoreError(
            f"an image of {images.shape[-2]}x{images.shape[-1]} (height x width) cannot start a canvas of "
            f"{size[0]}x{size[1]}; resize it to that"
        )
