"""Finished images as a model's first code takes them: resized by Pillow, in whole levels, as its numbers were made."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import center_crop, resize

from refcore.images import Levels


def pixels(image: Levels) -> Tensor:
    """[H, W, 3] levels -> [3, H, W] in [0, 1], float32."""
    return torch.tensor(image).permute(2, 0, 1).float().div(255)


def stretched(image: Levels, size: tuple[int, int]) -> Tensor:
    """[3, *size] in [0, 1]: resized whatever the proportions, bicubic; as BLIP's code does."""
    height, width = size
    return _pixels_of(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def covering(image: Levels, side: int) -> Tensor:
    """[3, side, side] in [0, 1]: the shorter side is resized to `side`, bicubic, and the centre cut out; as CLIP's."""
    shorter = resize(Image.fromarray(image), side, InterpolationMode.BICUBIC)  # type: ignore[arg-type]
    return _pixels_of(center_crop(shorter, [side, side]))  # type: ignore[arg-type]


def _pixels_of(image: object) -> Tensor:
    return pixels(np.array(image, dtype=np.uint8))
