"""Priors on the image itself: total variation and the squared distance from a grey, with exact values and gradients."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from refcore.contracts.conditioning import Conditioning
from refcore.contracts.prior import Prior
from refcore.plugin import PluginConfig
from refcore.rng import Rng


class ImageLoss(Prior):
    """A prior that is a loss of the image alone; means, not sums, so that a weight means the same at every size."""

    space: ClassVar[Literal["latent", "image", "params"]] = "image"

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """Nothing to load."""

    @abstractmethod
    def loss(self, images: Tensor) -> Tensor:
        """[B] of images [B, 3, H, W], differentiable, no sample depending on another."""

    def gradient(self, x: Tensor, conditioning: Conditioning, step: int, rng: Rng) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            images = x.detach().to(torch.promote_types(x.dtype, torch.float32)).requires_grad_()
            value = self.loss(images)
            (gradient,) = torch.autograd.grad(value.sum(), images)
        return gradient, value.detach()


class TotalVariation(ImageLoss):
    """How much neighbouring pixels differ: Rudin, Osher and Fatemi (1992), in its anisotropic form.

    The mean over neighbours to the right plus the mean over neighbours below of |difference|^power; 0 where an image
    is one pixel wide or high in that direction.
    """

    class Config(PluginConfig):
        power: Literal[1, 2] = Field(
            1, description="1: absolute differences, which spare edges. 2: squared ones, which smooth everything."
        )

    name = "tv"
    config: Config

    def loss(self, images: Tensor) -> Tensor:
        terms = [images.diff(dim=dim).abs().pow(self.config.power).flatten(1) for dim in (-1, -2)]
        return sum((t.sum(1) / max(1, t.shape[1]) for t in terms), start=images.new_zeros(len(images)))


class L2(ImageLoss):
    """The mean squared distance of the colours from a grey, which holds saturation and contrast back."""

    class Config(PluginConfig):
        target: float = Field(0.5, ge=0, le=1, description="The grey, in [0, 1].")

    name = "l2"
    config: Config

    def loss(self, images: Tensor) -> Tensor:
        return (images - self.config.target).square().flatten(1).mean(1)
