"""The equations of score distillation, one function each.

`alpha_bar` and `weight` are [B]; latents, noise and velocity are [B, C, h, w].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def _per_sample(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def add_noise(latents: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """x_t = sqrt(alpha_bar) x + sqrt(1 - alpha_bar) eps, eq. 4 of DDPM (arXiv 2006.11239)."""
    return _per_sample(alpha_bar.sqrt()) * latents + _per_sample((1 - alpha_bar).sqrt()) * noise


def noise_of_velocity(velocity: Tensor, noisy: Tensor, alpha_bar: Tensor) -> Tensor:
    """eps = sqrt(alpha_bar) v + sqrt(1 - alpha_bar) x_t, appendix D of progressive distillation (arXiv 2202.00512)."""
    return _per_sample(alpha_bar.sqrt()) * velocity + _per_sample((1 - alpha_bar).sqrt()) * noisy


def clean_of_velocity(velocity: Tensor, noisy: Tensor, alpha_bar: Tensor) -> Tensor:
    """x = sqrt(alpha_bar) x_t - sqrt(1 - alpha_bar) v, of the same appendix; defined without any signal, too."""
    return _per_sample(alpha_bar.sqrt()) * noisy - _per_sample((1 - alpha_bar).sqrt()) * velocity


def clean_of_noise(noise: Tensor, noisy: Tensor, alpha_bar: Tensor) -> Tensor:
    """x = (x_t - sqrt(1 - alpha_bar) eps) / sqrt(alpha_bar), `add_noise` solved for the latent; alpha_bar > 0."""
    return (noisy - _per_sample((1 - alpha_bar).sqrt()) * noise) / _per_sample(alpha_bar.sqrt())


def guide(unconditional: Tensor, conditional: Tensor, scale: float) -> Tensor:
    """eps_hat = eps_0 + s (eps_c - eps_0), classifier-free guidance (arXiv 2207.12598) with s = 1 + w of its eq. 6."""
    return unconditional + scale * (conditional - unconditional)


Predict = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(noisy [B, C, h, w], timesteps [B], text [B, T, D]) -> [B, C, h, w]."""


def both_predictions(
    predict: Predict, noisy: Tensor, timesteps: Tensor, text: Tensor, negative: Tensor
) -> tuple[Tensor, Tensor]:
    """Predictions for the negative prompt, and for the prompt, in one call of the network."""
    out = predict(torch.cat([noisy] * 2), torch.cat([timesteps] * 2), torch.cat([negative, text]))
    without, given = out.chunk(2)
    return without, given


def guided_prediction(
    predict: Predict, noisy: Tensor, timesteps: Tensor, text: Tensor, negative: Tensor, guidance: float
) -> Tensor:
    """The prediction under guidance; only one of the two is made where the other cancels.

    Args:
        predict: the network.
        noisy: [B, C, h, w]
        timesteps: [B]
        text: [B, T, D] features of the prompts.
        negative: [B, T, D] features of the negative prompt.
        guidance: 1: the prompt alone; 0: the negative prompt alone.
    """
    if guidance == 1:
        return predict(noisy, timesteps, text)
    if guidance == 0:
        return predict(noisy, timesteps, negative)
    return guide(*both_predictions(predict, noisy, timesteps, text, negative), guidance)


def sds_gradient(noise: Tensor, noise_pred: Tensor, weight: Tensor) -> Tensor:
    """w(t) (eps_hat - eps), eq. 3 of DreamFusion (arXiv 2209.14988): without the UNet's Jacobian.

    >>> import torch
    >>> sds_gradient(torch.zeros(1, 1, 1, 2), torch.tensor([[[[1.0, -1.0]]]]), torch.tensor([2.0]))
    tensor([[[[ 2., -2.]]]])
    """
    return _per_sample(weight) * (noise_pred - noise)


def csd_gradient(unconditional: Tensor, conditional: Tensor, weight: Tensor) -> Tensor:
    """w(t) (eps_c - eps_0), the classifier score: eq. 7 of CSD (arXiv 2310.19415)."""
    return _per_sample(weight) * (conditional - unconditional)


def nfsd_gradient(unconditional: Tensor, negative: Tensor, conditional: Tensor, scale: float, weight: Tensor) -> Tensor:
    """w(t) (delta_D + s delta_C) of NFSD (arXiv 2310.17590), section 4.

    delta_C = eps_c - eps_0; delta_D = eps_0 - eps_negative, where `negative` is no noise at small timesteps.
    """
    domain = unconditional - negative
    return _per_sample(weight) * (domain + scale * (conditional - unconditional))


def ddim_step(noisy: Tensor, noise_pred: Tensor, alpha_bar: Tensor, alpha_bar_to: Tensor) -> Tensor:
    """x' = sqrt(alpha_bar') x0_hat + sqrt(1 - alpha_bar') eps_hat, eq. 12 of DDIM (arXiv 2010.02502) without noise.

    In either direction: toward the image, or (inversion) toward the noise.
    """
    return add_noise(clean_of_noise(noise_pred, noisy, alpha_bar), noise_pred, alpha_bar_to)


def ddim_noise(noise: Tensor, alpha_bar: Tensor, alpha_bar_to: Tensor, eta: float) -> Tensor:
    """eta sigma eps, which stochastic inversion adds to a step from alpha_bar to the smaller alpha_bar'.

    sigma^2 = (1 - alpha_bar) / (1 - alpha_bar') (1 - alpha_bar' / alpha_bar), eq. 16 of DDIM; 0 for a step from the
    clean latent.
    """
    variance = (1 - alpha_bar) / (1 - alpha_bar_to) * (1 - alpha_bar_to / alpha_bar)
    return _per_sample(eta * variance.clamp(min=0).sqrt()) * noise


def noise_between(latents: Tensor, noisy: Tensor, alpha_bar: Tensor) -> Tensor:
    """The noise eps with which `add_noise` turns `latents` into `noisy`; alpha_bar < 1."""
    return (noisy - _per_sample(alpha_bar.sqrt()) * latents) / _per_sample((1 - alpha_bar).sqrt())


WEIGHTINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "constant": lambda alpha_bar: 2 * alpha_bar.new_ones(alpha_bar.shape),
    "uniform": lambda alpha_bar: alpha_bar.new_ones(alpha_bar.shape),
    "sigma2": lambda alpha_bar: 1 - alpha_bar,
    "fantasia3d": lambda alpha_bar: alpha_bar.sqrt() * (1 - alpha_bar),
    "x0": lambda alpha_bar: ((1 - alpha_bar) / alpha_bar).sqrt(),
}
"""w(t) as functions of alpha_bar_t.

constant: 2, as in "Referee Can Play" (arXiv 2402.16305).
uniform: 1.
sigma2: sigma_t^2, DreamFusion's (arXiv 2209.14988).
fantasia3d: sqrt(alpha_bar) sigma_t^2, low at both ends (arXiv 2303.13873).
x0: sigma_t / sqrt(alpha_bar), which makes the gradient `latents - x0_hat`, the step to the predicted clean latent.
"""
