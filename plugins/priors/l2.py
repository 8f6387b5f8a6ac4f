"""The `l2` prior: squared distance of the image from a grey."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from refcore.plugin import PluginConfig
from refcore_plugins.models.loss_prior import ImageLossPrior


class L2(ImageLossPrior):
    """Mean squared distance of the colours from a grey, which limits saturation and contrast."""

    class Config(PluginConfig):
        target: float = Field(0.5, ge=0, le=1, description="The grey, in [0, 1].")

    name = "l2"
    config: Config

    def loss(self, x: Tensor) -> Tensor:
        """See `LossPrior.loss`."""
        return (x - self.config.target).square().flatten(1).mean(1)
