"""Priors that are the gradient of a loss, of the image alone or of the latent alone."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor

from refcore.contracts.canvas import Canvas
from refcore.contracts.conditioning import Conditioning
from refcore.contracts.prior import Prior
from refcore.errors import RefcoreError
from refcore.moment import Moment
from refcore.rng import Rng


class LossPrior(Prior):
    """A prior given by a loss of its input; no sample's loss depends on another sample."""

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """Nothing to load."""

    @abstractmethod
    def loss(self, x: Tensor) -> Tensor:
        """[B] losses of images [B, 3, H, W] or latents [B, C, h, w], differentiable."""

    def gradient(self, x: Tensor, conditioning: Conditioning, at: Moment, rng: Rng) -> tuple[Tensor, Tensor]:
        """See `Prior.gradient`. Computed in float32 (float64 for float64 input)."""
        with torch.enable_grad():
            x = x.detach().to(torch.promote_types(x.dtype, torch.float32)).requires_grad_()
            value = self.loss(x)
            (gradient,) = torch.autograd.grad(value.sum(), x)
        return gradient, value.detach()


class ImageLossPrior(LossPrior):
    """A loss of the image. Losses are means, not sums, so a weight has the same effect at every size."""

    space: ClassVar[Literal["latent", "image", "params"]] = "image"


class LatentLossPrior(LossPrior):
    """A loss of the canvas's scaled latent."""

    space: ClassVar[Literal["latent", "image", "params"]] = "latent"

    def accept(self, canvas: Canvas) -> None:
        """See `Prior.accept`: any canvas that has a latent."""
        if canvas.latent_name() is None:
            raise RefcoreError(
                f'prior "{self.name}" is about latents, and canvas "{canvas.name}" has none; use the latent canvas'
            )
