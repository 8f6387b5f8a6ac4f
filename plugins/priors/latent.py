"""Priors on the latent itself, without a network: its norm, and the mean and spread of its channels."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from refcore.calibration import Calibration
from refcore.contracts.canvas import Canvas
from refcore.contracts.conditioning import Conditioning
from refcore.contracts.prior import Prior
from refcore.errors import RefcoreError
from refcore.plugin import PluginConfig
from refcore.rng import Rng


class LatentLoss(Prior):
    """A prior that is a loss of the canvas's scaled latent alone, no sample depending on another."""

    space: ClassVar[Literal["latent", "image", "params"]] = "latent"

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """Nothing to load."""

    def accept(self, canvas: Canvas) -> None:
        if canvas.latent_name() is None:
            raise RefcoreError(
                f'prior "{self.name}" is about latents, and canvas "{canvas.name}" has none; use the latent canvas'
            )

    @abstractmethod
    def loss(self, latents: Tensor) -> Tensor:
        """[B] of latents [B, C, h, w], differentiable."""

    def gradient(self, x: Tensor, conditioning: Conditioning, step: int, rng: Rng) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            latents = x.detach().to(torch.promote_types(x.dtype, torch.float32)).requires_grad_()
            value = self.loss(latents)
            (gradient,) = torch.autograd.grad(value.sum(), latents)
        return gradient, value.detach()


class Gaussian(LatentLoss):
    """The negative log-likelihood of the latent's norm n under N(0, I) in d dimensions, up to a constant.

        n^2 / 2 - (d - 1) log n

    lowest at n = sqrt(d - 1), the shell where Gaussian noise lies: Samuel et al. (arXiv 2306.08687), eq. 4, as ReNO
    (arXiv 2406.04312) uses it with weight 0.01. It says nothing of directions.
    """

    name = "gaussian"

    def loss(self, latents: Tensor) -> Tensor:
        norm = latents.flatten(1).norm(dim=1).clamp_min(1e-12)
        return norm.square() / 2 - (latents[0].numel() - 1) * norm.log()


class Moments(LatentLoss):
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

    def loss(self, latents: Tensor) -> Tensor:
        mu, sigma = self._mean.to(latents), self._std.to(latents)
        flat = latents.flatten(2)
        # Far below any real spread, so that a constant channel has a finite gradient.
        spread = (flat.var(2, correction=0) + (1e-4 * sigma).square()).sqrt()
        return (((flat.mean(2) - mu) / sigma).square() + (spread / sigma).log().square()).mean(1)
