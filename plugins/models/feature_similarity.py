"""Similarity of features as a loss: unit vectors, and the cosine or angle between them."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

SimilarityLoss = Literal["cosine", "spherical"]


def unit(features: Tensor) -> Tensor:
    """Unit vectors along the last dimension, in float32 (float64 for float64 features)."""
    return F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)


def similarity_loss(cosine: Tensor, loss: SimilarityLoss, wanted: bool, absent_below: float = 0.0) -> Tensor:
    """[N] losses of cosines [N]: their distance from 1 or, not wanted, how far they are above `absent_below`."""
    distance = _half_square_angle if loss == "spherical" else _one_minus
    if wanted:
        return distance(cosine)
    return (distance(torch.full_like(cosine, absent_below)) - distance(cosine)).clamp(min=0)


def _one_minus(cosine: Tensor) -> Tensor:
    return 1 - cosine


def _half_square_angle(cosine: Tensor) -> Tensor:
    """Half the squared angle of a cosine.

    The derivative of acos is infinite at 1, that of the result is not: there it is a series in 1 - cos, to 1e-12. At -1
    it is infinite, and clamped.
    """
    angle = 0.5 * cosine.clamp(-1 + 1e-6, 1 - 1e-6).acos().square()
    return torch.where(cosine > 1 - 1e-6, 1 - cosine, angle)
