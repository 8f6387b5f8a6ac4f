"""The CSD prior: the classifier half of guided score distillation, alone."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from refcore_plugins.models.latent_diffusion_prior import LatentDiffusionPrior, Noised
from refcore_plugins.models.score_distillation import csd_gradient


class Csd(LatentDiffusionPrior):
    """Classifier Score Distillation (arXiv 2310.19415): what the prompt adds to the predicted noise, and nothing else.

    Guided SDS is its noise-removing half plus guidance times this; the paper finds that this half does the work. The
    weight of the term takes the place of a guidance scale.
    """

    class Config(LatentDiffusionPrior.Config):
        weighting: Literal["constant", "uniform", "sigma2", "fantasia3d", "x0"] = Field(
            "sigma2", description="w(t), as of the prior sds. The paper's: sigma2."
        )

    name = "csd"
    config: Config

    def distil(self, batch: Noised, step: int) -> Tensor:
        """w(t) (eps(x_t; y) - eps(x_t)); the negative prompt, where there is one, stands for no prompt."""
        without, given = self.both(batch.noisy, batch.timesteps, batch.text, batch.negative)
        return csd_gradient(without, given, batch.weight)
