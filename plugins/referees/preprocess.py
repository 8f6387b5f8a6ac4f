"""A checkpoint's own image preprocessing, as a differentiable function of views in [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Normalise:
    """`(views - mean) / std` per channel, with the constants of the checkpoint's preprocessing config."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device) -> None:
        # float64 until it meets the views, so that a float64 referee is not limited by rounded constants.
        self.mean = torch.tensor(mean, dtype=torch.float64, device=device).view(1, 3, 1, 1)
        self.std = torch.tensor(std, dtype=torch.float64, device=device).view(1, 3, 1, 1)

    def __call__(self, views: Tensor) -> Tensor:
        """[N, 3, H, W] in [0, 1] -> the same shape and dtype, in the model's own range."""
        return (views - self.mean.to(views.dtype)) / self.std.to(views.dtype)
