"""The pixel canvas: one number a pixel and channel, squashed to [0, 1]."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from refcore.contracts.canvas import Canvas, CanvasParams
from refcore.plugin import PluginConfig
from refcore.rng import Rng
from refcore_plugins.models.canvas_size import check_image_size, check_least_side

PIXELS = "pixels"
"""The one tensor of the canvas's params, [B, 3, H, W]."""
DARKEST = 1 / 512
"""Half a step of 8-bit colour: `encode` keeps this far from 0 and 1, whose logits are infinite."""


class Pixel(Canvas):
    """Pixels as they are: the plainest canvas, and the one on which adversarial noise shows first."""

    class Config(PluginConfig):
        squash: Literal["sigmoid", "clamp"] = Field(
            "sigmoid",
            description="How numbers become colours. sigmoid: always some gradient. clamp: numbers are colours, with "
            "no gradient beyond 0 and 1.",
        )
        init_std: float = Field(
            0.1, ge=0, description="Standard deviation of the start around mid-grey, before the squash."
        )

    name = "pixel"
    config: Config

    def load(self, device: torch.device, dtype: torch.dtype, size: tuple[int, int] | None = None) -> None:
        """Any positive size; 224x224 by default. `dtype` is not used: pixels are float32."""
        self.device = torch.device(device)
        self.size = size if size is not None else (224, 224)
        check_least_side(self.size, 1)

    def init(self, rng: Rng) -> CanvasParams:
        start = self.config.init_std * rng.normal(3, *self.size).to(self.device)
        return {PIXELS: start if self.config.squash == "sigmoid" else 0.5 + start}

    def decode(self, params: CanvasParams) -> Tensor:
        pixels = params[PIXELS]
        return pixels.sigmoid() if self.config.squash == "sigmoid" else pixels.clamp(0, 1)

    @torch.no_grad()
    def encode(self, images: Tensor) -> CanvasParams:
        """The pixels behind images [B, 3, H, W] in [0, 1], (H, W) = `size`, to within half a step of 8-bit colour.

        Raises:
            RefcoreError: the images have another size.
        """
        check_image_size(images, self.size)
        images = images.to(self.device, torch.float32)
        return {PIXELS: images.logit(eps=DARKEST) if self.config.squash == "sigmoid" else images.clone()}
