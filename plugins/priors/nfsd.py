"""The `nfsd` prior: score distillation without the noise component of the predicted noise."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from refcore.config.schedule import Schedule
from refcore.moment import Moment
from refcore_plugins.models.latent_diffusion_prior import LatentDiffusionPrior, Noised
from refcore_plugins.models.score_distillation import nfsd_gradient


class Nfsd(LatentDiffusionPrior):
    """Noise-Free Score Distillation (arXiv 2310.17590), section 4.

    The predicted noise is the sum of a direction to the domain of real images, a direction to the prompt, and noise.
    The first is the unconditional prediction at small timesteps, where the noise is small, and at larger ones the
    direction away from a prompt that describes bad images. The second is guidance. Without the noise, usual guidance
    scales work.
    """

    class Config(LatentDiffusionPrior.Config):
        guidance: Schedule = Field(
            7.5, ge=0, description="Guidance scale s of the direction to the prompt. The paper's: 7.5."
        )
        small: int = Field(200, ge=0, description="Timesteps below this are small. The paper's: 200.")
        weighting: Literal["constant", "uniform", "sigma2", "fantasia3d", "x0"] = Field(
            "sigma2", description="Weight w(t), as in the prior sds."
        )
        negative_prompt: str = Field(
            "unrealistic, blurry, low quality, out of focus, ugly, low contrast, dull, dark, low-resolution, gloomy",
            description="Description of bad images, by default the paper's; the model must know its words.",
        )

    name = "nfsd"
    config: Config

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        super().load(device, dtype)
        self._empty = self.diffusion.encode_text([""])
        """[1, T, D] text features of the empty prompt."""

    def distil(self, batch: Noised, at: Moment) -> Tensor:
        """w(t) (delta_D + s delta_C), from one UNet call with three latents for each sample."""
        text = torch.cat([self._empty.expand_as(batch.text), batch.negative, batch.text])
        predicted = self.predicted(torch.cat([batch.noisy] * 3), torch.cat([batch.timesteps] * 3), text)
        without, bad, given = predicted.chunk(3)
        is_small = (batch.timesteps < self.config.small).view(-1, 1, 1, 1)
        return nfsd_gradient(
            without, torch.where(is_small, self._no_noise(batch), bad), given, at.of(self.config.guidance), batch.weight
        )

    def _no_noise(self, batch: Noised) -> Tensor:
        """What `predicted` would be for a model that finds no noise in the noisy latents."""
        if self.compares_clean:
            return -batch.noisy / batch.alpha_bar.sqrt().view(-1, 1, 1, 1)
        return torch.zeros_like(batch.noisy)
