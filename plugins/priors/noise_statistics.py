"""The priors `concentration`, `spectrum` and `kl`, which keep optimised noise like Gaussian noise."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from refcore.contracts.canvas import Canvas, CanvasParams
from refcore.contracts.conditioning import Conditioning
from refcore.contracts.prior import Prior
from refcore.errors import RefcoreError
from refcore.moment import Moment
from refcore.plugin import PluginConfig
from refcore.rng import Rng
from refcore_plugins.canvases.noise import LOG_VARIANCE, MEAN


def concentration(x: Tensor, block: int) -> Tensor:
    """[B] minus the logarithms of two bounds on how probable rows x [B, m k] are as Gaussian noise, k = `block`.

    With the rows cut into m vectors of k numbers, their mean has a norm of M1 or more with a probability of at most
    `2 exp(-m M1^2 / (2 k))`, and their covariance C a distance `M2 = |C - I|` (spectral) or more with at most
    `2 exp(-m max(0, sqrt(1 + M2) - 1 - sqrt(k / m))^2 / 2)`: eqs. 9 and 10 of DNO (arXiv 2405.18881), whose code drops
    the factors of 2 and cuts both bounds off at 1/2.
    """
    vectors = x.view(len(x), -1, block)
    m = vectors.shape[1]
    mean = vectors.mean(1).norm(dim=1)
    covariance = vectors.transpose(1, 2) @ vectors / m - torch.eye(block, device=x.device, dtype=x.dtype)
    spread = torch.linalg.matrix_norm(covariance, ord=2)
    excess = ((1 + spread).sqrt() - 1 - math.sqrt(block / m)).clamp_min(0)
    first = (-m * mean.square() / (2 * block)).clamp_max(-math.log(2))
    second = (-m * excess.square() / 2).clamp_max(-math.log(2))
    bounds: Tensor = -(first + second)
    return bounds


def moments_and_spectrum(x: Tensor, block: int, weight: float, magnitude: float) -> Tensor:
    """[B] of rows x [B, D]: `|mean x| + |sqrt(mean x^2) - 1| + weight * mean over blocks of |mean |F x| - magnitude|`.

    F is the orthonormal Fourier transform, its blocks are of neighbouring frequencies, without 0. MPGR (arXiv
    2509.07027), whose first moments are 0 and 1.
    """
    first, second = x.mean(1).abs(), (x.square().mean(1).sqrt() - 1).abs()
    spectrum = torch.fft.rfft(x, norm="ortho").abs()[:, 1:]
    blocks = spectrum[:, : spectrum.shape[1] // block * block].reshape(len(x), -1, block)
    off: Tensor = first + second + weight * (blocks.mean(-1) - magnitude).abs().mean(1)
    return off


class NoisePrior(Prior):
    """A loss of all noise of a canvas, sample by sample, in the order that it has and in shuffled ones."""

    class Config(PluginConfig):
        shuffles: int = Field(100, ge=0, le=10_000, description="Random orders whose losses are averaged at each step.")
        ordered: bool = Field(True, description="Whether the loss of the order as it is is added.")

    space: ClassVar[Literal["latent", "image", "params"]] = "params"
    config: Any

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """Nothing to load."""

    def accept(self, canvas: Canvas) -> None:
        """See `Prior.accept`: a canvas whose parameters are noise.

        Raises:
            RefcoreError: they are not.
        """
        if canvas.name != "noise" or canvas.latent_name() is None:
            raise RefcoreError(
                f'prior "{self.name}" is about optimised noise, and the parameters of canvas "{canvas.name}" are none; '
                "use the canvas noise, with parameters: noise"
            )

    @abstractmethod
    def loss(self, x: Tensor) -> Tensor:
        """[N] losses of rows x [N, D]."""

    def gradient(  # type: ignore[override]
        self, x: CanvasParams, conditioning: Conditioning, at: Moment, rng: Rng
    ) -> tuple[CanvasParams, Tensor]:
        """See `Prior.gradient`. Computed in float32 (float64 for float64 noise)."""
        with torch.enable_grad():
            leaves = {
                name: value.detach().to(torch.promote_types(value.dtype, torch.float32)).requires_grad_()
                for name, value in x.items()
            }
            flat = torch.cat([value.flatten(1) for value in leaves.values()], dim=1)
            value = self.loss(flat) if self.config.ordered else flat.new_zeros(len(flat))
            if self.config.shuffles:
                order = rng.uniform(0, 1, self.config.shuffles, flat.shape[1]).argsort(-1).to(flat.device)
                value = value + torch.stack([self.loss(row[own]).mean() for row, own in zip(flat, order, strict=True)])
            gradients = torch.autograd.grad(value.sum(), list(leaves.values()))
        return dict(zip(leaves, gradients, strict=True)), value.detach()


class Concentration(NoisePrior):
    """How improbable the noise is: DNO's regulariser, of its order and the mean over shuffled ones.

    Tang et al., Direct Noise Optimization (arXiv 2405.18881), eqs. 9 to 12.
    """

    class Config(NoisePrior.Config):
        block: int = Field(4, ge=1, le=1024, description="Length k of the vectors that the noise is cut into.")

    name = "concentration"
    config: Config

    def loss(self, x: Tensor) -> Tensor:
        """See `NoisePrior.loss`.

        Raises:
            RefcoreError: the noise cannot be cut into vectors of that length.
        """
        if x.shape[1] % self.config.block:
            raise RefcoreError(
                f"concentration: the noise has {x.shape[1]} numbers a sample, no multiple of block "
                f"{self.config.block}; expected another block, such as 4"
            )
        return concentration(x, self.config.block)


class Spectrum(NoisePrior):
    """First two moments and power spectrum of the noise: MPGR's regulariser, of one shuffled order a step.

    "Moment- and Power-Spectrum-Based Gaussianity Regularization" (arXiv 2509.07027). The mean magnitude of a frequency
    of white noise is sqrt(pi) / 2 = 0.886.
    """

    class Config(NoisePrior.Config):
        shuffles: int = Field(1, ge=0, le=10_000, description="Random orders whose losses are averaged at each step.")
        ordered: bool = Field(False, description="Whether the loss of the order as it is is added.")
        block: int = Field(16, ge=1, le=4096, description="Neighbouring frequencies in a block.")
        weight: float = Field(25.0, ge=0, le=1e6, description="Weight of the spectrum beside the moments.")
        magnitude: float = Field(
            math.sqrt(math.pi) / 2, gt=0, le=10, description="Mean magnitude of a frequency that is aimed at."
        )

    name = "spectrum"
    config: Config

    def loss(self, x: Tensor) -> Tensor:
        """See `NoisePrior.loss`."""
        return moments_and_spectrum(x, self.config.block, self.config.weight, self.config.magnitude)


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """[B] KL(N(mean, e^log_variance) || N(0, 1)), the mean over the elements of [B, ...]."""
    each = (mean.square() + log_variance.exp() - 1 - log_variance) / 2
    found: Tensor = each.flatten(1).mean(1)
    return found


class Kl(Prior):
    """Divergence of the noise's distribution, N(mean, e^log_variance), from N(0, 1), where these two are learned.

    InitNO (arXiv 2404.04650), whose code minimises it alone after each update, until it is at most 0.001. Here its
    gradient is a term among others, and 0 for a sample at or below `threshold`.
    """

    class Config(PluginConfig):
        threshold: float = Field(
            0.0, ge=0, description="Divergence at or below which a sample is left alone. InitNO's: 0.001."
        )

    space: ClassVar[Literal["latent", "image", "params"]] = "params"
    name = "kl"
    config: Config

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """Nothing to load."""

    def accept(self, canvas: Canvas) -> None:
        """See `Prior.accept`: the canvas `noise` whose mean and variance are learned.

        Raises:
            RefcoreError: it is another.
        """
        if getattr(canvas.config, "parameters", None) != "mean_variance":
            raise RefcoreError(
                f'prior "kl" is about the mean and variance of noise, and canvas "{canvas.name}" does not learn them; '
                "use the canvas noise with parameters: mean_variance"
            )

    def gradient(  # type: ignore[override]
        self, x: CanvasParams, conditioning: Conditioning, at: Moment, rng: Rng
    ) -> tuple[CanvasParams, Tensor]:
        """See `Prior.gradient`."""
        mean, log_variance = x[MEAN], x[LOG_VARIANCE]
        value = divergence(mean, log_variance)
        count = mean[0].numel()
        on = (value > self.config.threshold).to(mean).view(-1, *[1] * (mean.dim() - 1))
        gradients = {MEAN: on * mean / count, LOG_VARIANCE: on * (log_variance.exp() - 1) / (2 * count)}
        return {name: gradients.get(name, torch.zeros_like(p)) for name, p in x.items()}, value
