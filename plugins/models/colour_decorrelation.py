"""Colour bases of canvases: RGB, and the decorrelated axes along which the colours of photographs vary."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

ColourBasis = Literal["decorrelated", "rgb"]
LOGIT_MARGIN = 1e-3
"""Distance from black and white that `logits_of` keeps; logits are infinite there."""

# Square root of the covariance of colours over ImageNet, from lucid (lucid/optvis/param/color.py; Olah et al., "Feature
# Visualization", Distill 2017). `_matrix` scales it so that its longest column has norm 1. The columns are brightness,
# red against blue, and green against red and blue.
_ROOT = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))


def images_of(logits: Tensor, basis: ColourBasis) -> Tensor:
    """[B, 3, H, W] logits in a colour basis -> images in [0, 1]."""
    return torch.sigmoid(to_rgb(logits) if basis == "decorrelated" else logits)


def logits_of(images: Tensor, basis: ColourBasis) -> Tensor:
    """[B, 3, H, W] images in [0, 1], kept `LOGIT_MARGIN` away from both ends -> logits; the inverse of `images_of`."""
    logits = torch.logit(images, LOGIT_MARGIN)
    return from_rgb(logits) if basis == "decorrelated" else logits


def to_rgb(decorrelated: Tensor) -> Tensor:
    """[B, 3, H, W] decorrelated -> [B, 3, H, W] RGB logits (unbounded)."""
    return torch.einsum("dc,bchw->bdhw", _matrix(decorrelated), decorrelated)


def from_rgb(logits: Tensor) -> Tensor:
    """[B, 3, H, W] RGB logits -> [B, 3, H, W] decorrelated; the inverse of `to_rgb`."""
    return torch.einsum("dc,bchw->bdhw", torch.linalg.inv(_matrix(logits)), logits)


def _matrix(like: Tensor) -> Tensor:
    root = torch.tensor(_ROOT, dtype=like.dtype, device=like.device)
    scaled: Tensor = root / root.norm(dim=0).max()
    return scaled
