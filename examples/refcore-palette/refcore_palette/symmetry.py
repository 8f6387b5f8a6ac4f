"""The `symmetry` referee: correlation of the picture with its mirror image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from refcore import Conditioning, PluginConfig, Referee
from refcore_palette.oklab import oklab

FLAT = 1e-3
"""Variance in OKLab far below which a picture counts as flat."""


class Symmetry(Referee):
    """The correlation r of the picture and its mirror image, in OKLab: 1 is a perfect match, 0 none, -1 the negative.

    Wanted, the loss is 1 - r; not wanted, r where it is positive. A flat picture has r = 0, so that symmetry cannot be
    gained by removing all contrast. The prompt is ignored.
    """

    class Config(PluginConfig):
        axis: Literal["vertical", "horizontal", "point"] = Field(
            "vertical", description="vertical: left mirrors right. horizontal: top mirrors bottom. point: half a turn."
        )
        size: int = Field(64, ge=2, le=512, description="Side of the views in pixels; finer detail is ignored.")

    name = "symmetry"
    bounded_above = True
    score_unit = "correlation"
    config: Config

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """Nothing to load: the referee has no weights."""
        self.device, self.dtype = device, dtype
        self.input_size = (self.config.size, self.config.size)

    def read(self, prompts: Sequence[str]) -> Conditioning:
        """No tensors: the prompt is ignored."""
        return Conditioning(tuple(prompts))

    def judge(self, views: Tensor, conditioning: Conditioning, prompt_index: Tensor, wanted: bool = True) -> Tensor:
        """See `Referee.judge`."""
        r = self._correlation(views)
        return 1 - r if wanted else r.clamp(min=0)

    @torch.no_grad()
    def score(self, images: Tensor, conditioning: Conditioning) -> Tensor:
        """r of each image, in [-1, 1]."""
        return self._correlation(images)

    def _correlation(self, views: Tensor) -> Tensor:
        """[N] correlations."""
        colours = oklab(views.to(torch.promote_types(views.dtype, torch.float32)))
        colours = colours - colours.mean((2, 3), keepdim=True)
        mirrored = colours.flip({"vertical": (3,), "horizontal": (2,), "point": (2, 3)}[self.config.axis])
        variance = colours.square().sum(1).mean((1, 2))
        return (colours * mirrored).sum(1).mean((1, 2)) / (variance + FLAT)
