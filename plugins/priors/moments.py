"""The `moments` prior: mean and standard deviation of the latent's channels."""

from __future__ import annotations

from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from refcore.calibration import Calibration
from refcore.contracts.canvas import Canvas
from refcore.errors import RefcoreError
from refcore.plugin import PluginConfig
from refcore_plugins.models.loss_prior import LatentLossPrior


class Moments(LatentLossPrior):
    """Keeps the mean m and standard deviation s of every channel of the latent near given ones, mu and sigma.

        mean over channels of  ((m - mu) / sigma)^2 + (log s - log sigma)^2

    Channel statistics are what style transfer matches (Huang and Belongie, arXiv 1703.06868, eq. 12): here they hold
    contrast and colour to those of real images. By default N(0, 1), which scaled latents are near to on the whole.
    """

    class Config(PluginConfig):
        mean: float | list[float] = Field(0.0, description="Of every channel, or of each.")
        std: float | list[float] = Field(1.0, description="Of every channel, or of each; above 0.")
        calibration: str | None = Field(
            None,
            description="Instead of both, a file of `python -m refcore_playground.calibrate`, which has those of real "
            "images.",
        )

        @model_validator(mode="after")
        def _sensible(self) -> Self:
            stds = self.std if isinstance(self.std, list) else [self.std]
            if not stds or min(stds) <= 0:
                raise ValueError(f"std is {self.std}; expected numbers above 0")
            if self.calibration is not None and self.model_fields_set & {"mean", "std"}:
                raise ValueError("calibration gives mean and std; expected either it or them")
            return self

    name = "moments"
    config: Config

    def accept(self, canvas: Canvas) -> None:
        super().accept(canvas)
        mean, std = self.config.mean, self.config.std
        if self.config.calibration is not None:
            found = Calibration.read(self.config.calibration).latent
            if found is None:
                raise RefcoreError(
                    f'"{self.config.calibration}" has no statistics of latents; calibrate on the latent canvas'
                )
            mean, std = list(found["mean"]), list(found["std"])
        channels = canvas.latent_space.channels if canvas.latent_space is not None else None
        for field, values in (("mean", mean), ("std", std)):
            if isinstance(values, list) and channels is not None and len(values) != channels:
                raise RefcoreError(
                    f'prior "moments": {field} has {len(values)} numbers, but the latents of canvas "{canvas.name}" '
                    f"have {channels} channels; give one number, or one for each channel"
                )
        self._mean, self._std = torch.tensor(mean), torch.tensor(std)

    def loss(self, x: Tensor) -> Tensor:
        """See `LossPrior.loss`."""
        mu, sigma = self._mean.to(x), self._std.to(x)
        flat = x.flatten(2)
        # Far below any real spread, so that a constant channel has a finite gradient.
        spread = (flat.var(2, correction=0) + (1e-4 * sigma).square()).sqrt()
        return (((flat.mean(2) - mu) / sigma).square() + (spread / sigma).log().square()).mean(1)
