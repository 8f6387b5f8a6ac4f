"""The `gaussian` prior: likelihood of the latent's norm under a standard normal distribution."""

from __future__ import annotations

from torch import Tensor

from refcore_plugins.models.loss_prior import LatentLossPrior


class Gaussian(LatentLossPrior):
    """Negative log-likelihood of the latent's norm n under N(0, I) in d dimensions, up to a constant.

        n^2 / 2 - (d - 1) log n

    It is lowest at n = sqrt(d - 1), the shell where Gaussian noise lies: Samuel et al. (arXiv 2306.08687), eq. 4; ReNO
    (arXiv 2406.04312) uses it with weight 0.01. Only the norm counts, not the direction.
    """

    name = "gaussian"

    def loss(self, x: Tensor) -> Tensor:
        """See `LossPrior.loss`."""
        norm: Tensor = x.flatten(1).norm(dim=1).clamp_min(1e-12)
        return norm.square() / 2 - (x[0].numel() - 1) * norm.log()
