"""The `sdi` prior: score distillation with noise from DDIM inversion instead of random draws."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from refcore_plugins.models.latent_diffusion_prior import LatentDiffusionPrior, Noised
from refcore_plugins.models.score_distillation import add_noise, ddim_step, noise_between, sds_gradient


class Sdi(LatentDiffusionPrior):
    """Score Distillation via Inversion (arXiv 2405.15891): the noise from which DDIM would have reached the latent.

    SDS is a step of DDIM with fresh noise, which causes its blur. Here the latent x is noised by `inversion_steps`
    steps of DDIM in reverse, from 0 to t: x_t = sqrt(alpha_bar) x + sqrt(1 - alpha_bar) kappa, and kappa replaces the
    drawn noise. With `anneal` the timestep falls over the run, as in the paper. A step needs `inversion_steps` more
    UNet calls. The inversion is deterministic.
    """

    class Config(LatentDiffusionPrior.Config):
        guidance: float = Field(
            7.5, ge=0, description="Classifier-free guidance scale of the denoising. The paper's: 7.5."
        )
        inversion_guidance: float = Field(
            -7.5,
            description="Guidance scale of the inversion; below 0 it leads away from the prompt. The paper's: -7.5.",
        )
        inversion_steps: int = Field(10, ge=1, description="DDIM steps of the inversion. The paper's: 10.")
        timesteps: tuple[int, int] = Field((20, 980), description="Lowest and highest timestep drawn, both inclusive.")
        weighting: Literal["constant", "uniform", "sigma2", "fantasia3d", "x0"] = Field(
            "x0",
            description="Weight w(t), as in the prior sds. The paper's: x0, the step to the predicted clean latent.",
        )

    name = "sdi"
    config: Config

    def distil(self, batch: Noised, step: int) -> Tensor:
        """w(t) (eps_hat(x_t) - kappa)."""
        kappa = self.inverted(batch)
        noisy = add_noise(batch.latents, kappa, batch.alpha_bar)
        predicted = self.guided(noisy, batch.timesteps, batch.text, batch.negative, self.config.guidance)
        return sds_gradient(kappa, predicted, batch.weight)

    def inverted(self, batch: Noised) -> Tensor:
        """kappa [B, C, h, w]: the noise between each latent and its DDIM inversion at timestep t."""
        steps, last = self.config.inversion_steps, batch.timesteps
        current, alpha_bar = batch.latents, torch.ones_like(batch.alpha_bar)
        for k in range(steps):
            at, to = last * k // steps, last * (k + 1) // steps
            predicted = self.guided(current, at, batch.text, batch.negative, self.config.inversion_guidance)
            after = self.diffusion.alphas_cumprod[to].to(alpha_bar)
            current = ddim_step(current, predicted, alpha_bar, after)
            alpha_bar = after
        return noise_between(batch.latents, current, alpha_bar)
