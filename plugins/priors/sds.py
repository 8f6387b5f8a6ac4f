"""The `sds` prior: score distillation sampling, which pulls latents toward a Stable Diffusion model's images."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from refcore.config.schedule import Schedule
from refcore.moment import Moment
from refcore_plugins.models.latent_diffusion_prior import LatentDiffusionPrior, Noised
from refcore_plugins.models.score_distillation import sds_gradient


class Sds(LatentDiffusionPrior):
    """Score Distillation Sampling: the gradient is the diffusion model's error in predicting noise added to the latent.

    DreamFusion (arXiv 2209.14988), in the latent space of Stable Diffusion and with the settings of "Referee Can Play"
    (arXiv 2402.16305). The gradient is not that of a loss, so its value is None.
    """

    class Config(LatentDiffusionPrior.Config):
        guidance: Schedule = Field(
            30.0,
            ge=0,
            description="Classifier-free guidance scale; 1: no guidance, 0: the prompt is ignored. The paper's: 30.",
        )

    name = "sds"
    config: Config

    def distil(self, batch: Noised, at: Moment) -> Tensor:
        """w(t) (eps_hat - eps)."""
        predicted = self.guided(batch.noisy, batch.timesteps, batch.text, batch.negative, at.of(self.config.guidance))
        return sds_gradient(batch.target, predicted, batch.weight)
