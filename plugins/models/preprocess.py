"""A checkpoint's own image preprocessing, as a differentiable function of views in [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from refcore.errors import CheckpointError


class Normalise:
    """`(views - mean) / std` per channel, with the constants of the checkpoint's preprocessing config."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device) -> None:
        # In float64, so that rounded constants do not limit a float64 referee.
        self.mean = torch.tensor(mean, dtype=torch.float64, device=device).view(1, 3, 1, 1)
        self.std = torch.tensor(std, dtype=torch.float64, device=device).view(1, 3, 1, 1)

    @classmethod
    def of_processor(cls, processor: Any, device: torch.device) -> Normalise:
        """With the constants of a transformers image processor; resizing is left to the engine.

        Raises:
            CheckpointError: the processor scales levels by anything but 1 / 255.
        """
        factor = getattr(processor, "rescale_factor", 1 / 255) if getattr(processor, "do_rescale", True) else 1.0
        if abs(factor * 255 - 1) > 1e-6:
            raise CheckpointError(
                f"the image processor scales levels by {factor:g}; expected rescale_factor 1/255 (0.00392157), "
                "since views are in [0, 1]"
            )
        if not processor.do_normalize:
            return cls((0.0,) * 3, (1.0,) * 3, device)
        return cls(processor.image_mean, processor.image_std, device)

    def __call__(self, views: Tensor) -> Tensor:
        """[N, 3, H, W] in [0, 1] -> the same shape and dtype, in the model's own range."""
        return (views - self.mean.to(views.dtype)) / self.std.to(views.dtype)


def processor_size(processor: Any) -> tuple[int, int]:
    """(height, width) in pixels of a model's input, by its transformers image processor, for a square image.

    The size of the centre crop if there is one: the whole view takes its place, since a run's views do the cropping.

    Raises:
        CheckpointError: the processor has no fixed size.
    """
    crops = getattr(processor, "do_center_crop", False)
    size = {name: side for name, side in dict(processor.crop_size if crops else processor.size).items() if side}
    if {"height", "width"} <= size.keys():
        return int(size["height"]), int(size["width"])
    if "shortest_edge" in size:
        return int(size["shortest_edge"]), int(size["shortest_edge"])
    raise CheckpointError(f"the image processor has no fixed size: {size}; expected height and width")
