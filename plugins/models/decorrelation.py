"""Colour decorrelation: the axes along which the colours of photographs vary, most of all in brightness."""

from __future__ import annotations

import torch
from torch import Tensor

# Square root of the covariance of colours over ImageNet, as lucid ships it (lucid/optvis/param/color.py; Olah et al.,
# "Feature Visualization", Distill 2017), scaled so that its longest column has norm 1. The columns are brightness, red
# against blue, and green against red and blue.
_ROOT = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))


def to_rgb(decorrelated: Tensor) -> Tensor:
    """[B, 3, H, W] decorrelated -> [B, 3, H, W] RGB logits (unbounded; a sigmoid makes them a picture)."""
    return torch.einsum("dc,bchw->bdhw", _matrix(decorrelated), decorrelated)


def from_rgb(logits: Tensor) -> Tensor:
    """[B, 3, H, W] RGB logits -> [B, 3, H, W] decorrelated; the inverse of `to_rgb`."""
    return torch.einsum("dc,bchw->bdhw", torch.linalg.inv(_matrix(logits)), logits)


def _matrix(like: Tensor) -> Tensor:
    root = torch.tensor(_ROOT, dtype=like.dtype, device=like.device)
    return root / root.norm(dim=0).max()
