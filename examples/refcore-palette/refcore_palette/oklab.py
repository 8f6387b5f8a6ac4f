"""OKLab, in which equal distances look about equal (Björn Ottosson, "A perceptual color space", 2020)."""

from __future__ import annotations

import torch
from torch import Tensor

_TO_LMS = ((0.4122214708, 0.5363325363, 0.0514459929), (0.2119034982, 0.6806995451, 0.1073969566))
_TO_LMS = (*_TO_LMS, (0.0883024619, 0.2817188376, 0.6299787005))
_TO_LAB = ((0.2104542553, 0.7936177850, -0.0040720468), (1.9779984951, -2.4285922050, 0.4505937099))
_TO_LAB = (*_TO_LAB, (0.0259040371, 0.7827717662, -0.8086757660))
DARKEST = 1e-4
"""Linear light below which the tangent replaces the cube root, whose slope at black is infinite.

Every 8-bit colour except black is above it (level 1 is 3e-4); black has a lightness of 0.03 instead of 0.
"""


def oklab(rgb: Tensor) -> Tensor:
    """sRGB [N, 3, H, W] in [0, 1] -> OKLab, the same shape: lightness 0 to 1, a (green to red), b (blue to yellow).

    Differentiable, also outside [0, 1], where noise leads.
    """
    low = rgb / 12.92
    high = ((rgb.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4
    linear = torch.where(rgb <= 0.04045, low, high)
    return _mix(_TO_LAB, _cube_root(_mix(_TO_LMS, linear)))


def _mix(matrix: tuple[tuple[float, ...], ...], colours: Tensor) -> Tensor:
    return torch.einsum("ij,njhw->nihw", torch.tensor(matrix, dtype=colours.dtype, device=colours.device), colours)


def _cube_root(x: Tensor) -> Tensor:
    bright = x.clamp(min=DARKEST)
    return bright.pow(1 / 3) + (x - bright) * (DARKEST ** (-2 / 3) / 3)
