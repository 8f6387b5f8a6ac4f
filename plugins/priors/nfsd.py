"""The NFSD prior: score distillation without the part of the predicted noise that is only noise."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from refcore_plugins.models.latent_diffusion_prior import LatentDiffusionPrior, Noised
from refcore_plugins.models.score_distillation import nfsd_gradient


class Nfsd(LatentDiffusionPrior):
    """Noise-Free Score Distillation (arXiv 2310.17590), section 4.

    The predicted noise is a direction to the domain of real images, one to the prompt, and noise. At small timesteps
    the noise is small and the unconditional prediction is the first; at larger ones it is what leads away from a
    prompt that describes bad images. The second is guidance. The noise is left out, so usual guidance scales do.
    """

    class Config(LatentDiffusionPrior.Config):
        guidance: float = Field(7.5, ge=0, description="Weight s of the direction to the prompt. The paper's: 7.5.")
        small: int = Field(200, ge=0, description="First timestep that is not small. The paper's: 200.")
        weighting: Literal["constant", "uniform", "sigma2", "fantasia3d", "x0"] = Field(
            "sigma2", description="w(t), as of the prior sds."
        )
        negative_prompt: str = Field(
            "unrealistic, blurry, low quality, out of focus, ugly, low contrast, dull, dark, low-resolution, gloomy",
            description="What describes bad images; the paper's. Its model must know these words.",
        )

    name = "nfsd"
    config: Config

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        super().load(device, dtype)
        self._empty = self.diffusion.encode_text([""])
        """[1, T, D]"""

    def distil(self, batch: Noised, step: int) -> Tensor:
        """w(t) (delta_D + s delta_C), three latents a sample in one UNet call."""
        text = torch.cat([self._empty.expand_as(batch.text), batch.negative, batch.text])
        predicted = self.diffusion.noise(torch.cat([batch.noisy] * 3), torch.cat([batch.timesteps] * 3), text)
        without, bad, given = predicted.chunk(3)
        is_small = batch.timesteps < self.config.small
        return nfsd_gradient(without, bad, given, is_small, self.config.guidance, batch.weight)
