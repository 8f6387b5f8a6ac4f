"""The `csd` prior: score distillation by the classifier score alone."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from refcore.moment import Moment
from refcore_plugins.models.latent_diffusion_prior import LatentDiffusionPrior, Noised
from refcore_plugins.models.score_distillation import both_predictions, csd_gradient


class Csd(LatentDiffusionPrior):
    """Classifier Score Distillation (arXiv 2310.19415): only what the prompt adds to the predicted noise.

    The gradient of guided SDS is a denoising part plus the guidance scale times this part, which in the paper's
    experiments does the work. The weight of the term takes the place of the guidance scale.
    """

    class Config(LatentDiffusionPrior.Config):
        weighting: Literal["constant", "uniform", "sigma2", "fantasia3d", "x0"] = Field(
            "sigma2", description="Weight w(t), as in the prior sds. The paper's: sigma2."
        )

    name = "csd"
    config: Config

    def distil(self, batch: Noised, at: Moment) -> Tensor:
        """w(t) (eps(x_t; y) - eps(x_t)), where eps(x_t) is conditioned on the negative prompt."""
        without, given = both_predictions(self.predicted, batch.noisy, batch.timesteps, batch.text, batch.negative)
        return csd_gradient(without, given, batch.weight)
