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
    """Keeps the mean m and standard deviation s of each channel of the latent near given values, mu and sigma.

        mean over channels of  ((m - mu) / sigma)^2 + (log s - log sigma)^2

    Style transfer matches channel statistics (Huang and Belongie, arXiv 1703.06868, eq. 12); here they keep contrast
    and colour near those of real images. The default, mean 0 and std 1, is roughly right for scaled latents as a whole.
    """

    class Config(PluginConfig):
        mean: float | list[float] = Field(0.0, description="Mean of all channels, or a list with one for each.")
        std: float | list[float] = Field(
            1.0, description="Standard deviation of all channels, or a list with one for each; above 0."
        )
        calibration: str | None = Field(
            None,
            description="File from `python -m refcore_playground.calibrate` with mean and std of real images; replaces "
            "`mean` and `std`.",
        )

        @model_validator(mode="after")
        def _sensible(self) -> Self:
            stds = self.std if isinstance(self.std, list) else [self.std]
            if not stds or min(stds) <= 0:
                raise ValueError(f"std is {self.std}; expected numbers above 0")
            if self.calibration is not None and (self.mean, self.std) != (0.0, 1.0):
                raise ValueError("calibration contains mean and std; expected either it or them")
            return self

    name = "moments"
    config: Config

    def accept(self, canvas: Canvas) -> None:
        """See `Prior.accept`: any canvas with a latent of as many channels as `mean` and `std`."""
        super().accept(canvas)
        mean, std, where = self.config.mean, self.config.std, ""
        if self.config.calibration is not None:
            found = Calibration.read(self.config.calibration).latent
            if found is None:
                raise RefcoreError(
                    f'"{self.config.calibration}" has no statistics of latents; calibrate on the latent canvas'
                )
            mean, std, where = list(found["mean"]), list(found["std"]), f' of calibration "{self.config.calibration}"'
        channels = canvas.latent_space.channels if canvas.latent_space is not None else None
        for field, values in (("mean", mean), ("std", std)):
            if isinstance(values, list) and channels is not None and len(values) != channels:
                raise RefcoreError(
                    f'prior "moments": {field}{where} has {len(values)} numbers, but the latents of canvas '
                    f'"{canvas.name}" have {channels} channels; give one number, or one for each channel'
                )
        self._mean, self._std = torch.tensor(mean), torch.tensor(std)

    def loss(self, x: Tensor) -> Tensor:
        """See `LossPrior.loss`."""
        mu, sigma = self._mean.to(x), self._std.to(x)
        flat = x.flatten(2)
        # The added term is far below any real spread; it keeps the gradient of a constant channel finite.
        spread = (flat.var(2, correction=0) + (1e-4 * sigma).square()).sqrt()
        return (((flat.mean(2) - mu) / sigma).square() + (spread / sigma).log().square()).mean(1)
