"""The `tv` prior: total variation of the image."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from refcore.plugin import PluginConfig
from refcore_plugins.models.loss_prior import ImageLossPrior


class TotalVariation(ImageLossPrior):
    """Difference between neighbouring pixels: Rudin, Osher and Fatemi (1992), in its anisotropic form.

    The mean of |difference|^power over horizontal neighbours plus the mean over vertical neighbours. A direction in
    which the image is one pixel wide or high contributes 0.
    """

    class Config(PluginConfig):
        power: Literal[1, 2] = Field(
            1,
            description="1: absolute differences, which spare edges. 2: squared differences, which smooth everything.",
        )

    name = "tv"
    config: Config

    def loss(self, x: Tensor) -> Tensor:
        """See `LossPrior.loss`."""
        terms = [x.diff(dim=dim).abs().pow(self.config.power).flatten(1) for dim in (-1, -2)]
        return sum((t.sum(1) / max(1, t.shape[1]) for t in terms), start=x.new_zeros(len(x)))
