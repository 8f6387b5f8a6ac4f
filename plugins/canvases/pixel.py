"""The `pixel` canvas: one number per pixel and channel, squashed to [0, 1]."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from refcore.contracts.canvas import Canvas, CanvasParams
from refcore.moment import Moment
from refcore.plugin import PluginConfig
from refcore.rng import Rng
from refcore_plugins.models.canvas_size import check_image_size, check_least_side

PIXELS = "pixels"
"""Name of the only parameter, [B, 3, H, W]."""
DARKEST = 1 / 512
"""Distance that `encode` keeps from 0 and 1, where logits are infinite: half a level of 8-bit colour."""


class Pixel(Canvas):
    """Plain pixels: the simplest canvas, and the most prone to adversarial noise."""

    class Config(PluginConfig):
        squash: Literal["sigmoid", "clamp"] = Field(
            "sigmoid",
            description="Map from parameters to colours. sigmoid: always with some gradient. clamp: parameters are "
            "colours, without gradient outside [0, 1].",
        )
        init_std: float = Field(
            0.1, ge=0, description="Standard deviation of the initial pixels around mid-grey, before squashing."
        )

    name = "pixel"
    config: Config

    def load(self, device: torch.device, dtype: torch.dtype, size: tuple[int, int] | None = None) -> None:
        """Any size of at least 1x1 pixels; 224x224 by default. `dtype` is ignored: pixels are float32."""
        self.device = torch.device(device)
        self.size = size if size is not None else (224, 224)
        check_least_side(self.size, 1)

    def init(self, rng: Rng) -> CanvasParams:
        start = self.config.init_std * rng.normal(3, *self.size).to(self.device)
        return {PIXELS: start if self.config.squash == "sigmoid" else 0.5 + start}

    def decode(self, params: CanvasParams, at: Moment) -> Tensor:
        pixels = params[PIXELS]
        return pixels.sigmoid() if self.config.squash == "sigmoid" else pixels.clamp(0, 1)

    @torch.no_grad()
    def encode(self, images: Tensor) -> CanvasParams:
        """Parameters of images [B, 3, H, W] in [0, 1], (H, W) = `size`, exact to half a level of 8-bit colour.

        Raises:
            RefcoreError: the images have another size.
        """
        check_image_size(images, self.size)
        images = images.to(self.device, torch.float32)
        return {PIXELS: images.logit(eps=DARKEST) if self.config.squash == "sigmoid" else images.clone()}
