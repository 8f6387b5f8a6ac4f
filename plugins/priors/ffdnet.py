"""The `ffdnet` prior: score distillation in pixels, from a real denoiser."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from refcore.config.schedule import Schedule
from refcore.contracts.conditioning import Conditioning
from refcore.contracts.prior import Prior
from refcore.moment import Moment
from refcore.plugin import PluginConfig
from refcore.rng import Rng
from refcore_plugins.models import ffdnet
from refcore_plugins.models.ffdnet import LARGEST_SIGMA


class Ffdnet(Prior):
    """What FFDNet, a denoiser of photographs, would change: score distillation in pixels.

    With noise e and its standard deviation s, the denoiser D estimates the noise of x + s e, and

        gradient = e_hat - e = (x - D(x + s e, s)) / s

    which is the gradient of SDS (DreamFusion, arXiv 2209.14988, eq. 3) in the space of pixels with weight 1. By
    Tweedie's formula, -e_hat / s is the score of photographs blurred by that noise. Without noise it is regularisation
    by denoising (Romano, Elad, Milanfar, arXiv 1611.02862): x - D(x, s), divided by s.

    The network knows edges and smooth areas at the scale of its receptive field, about 50 pixels, and no things.
    """

    class Config(PluginConfig):
        sigma: Schedule = Field(
            0.1,
            gt=0,
            le=LARGEST_SIGMA,
            description="Standard deviation of the noise; the network was trained on at most 75/255.",
        )
        noise: bool = Field(
            True,
            description="true: noise is added before it is removed, as in SDS. false: regularisation by denoising.",
        )
        crop: int | None = Field(
            None,
            ge=32,
            description="Side in pixels of a random crop, the only part that has a gradient in a step; null: all of "
            "the image. The time is in proportion to its area.",
        )

    name = "ffdnet"
    space: ClassVar[Literal["latent", "image", "params"]] = "image"
    config: Config

    def check(self, prompts: Sequence[str] = ()) -> None:
        """See `Plugin.check`: the package of the weights is looked for, too."""
        super().check(prompts)
        ffdnet.weights_file()

    def packaged(self) -> dict[str, Path]:
        """See `Plugin.packaged`: the network's own weights."""
        return {"ffdnet": ffdnet.weights_file()}

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """Loads the network.

        Raises:
            CheckpointError: the package of the extra `ffdnet` is not installed, or its checkpoint is corrupt.
        """
        self.dtype = dtype
        self._network: Any = ffdnet.load().to(device, dtype).to(memory_format=torch.channels_last)

    @torch.no_grad()
    def gradient(self, x: Tensor, conditioning: Conditioning, at: Moment, rng: Rng) -> tuple[Tensor, None]:
        """See `Prior.gradient`."""
        sigma = at.of(self.config.sigma)
        if self.config.crop is None:
            return self._residual(x, sigma, rng), None
        gradient = torch.zeros_like(x, dtype=torch.promote_types(x.dtype, torch.float32))
        place = self._place(x, self.config.crop, rng)
        gradient[place] = self._residual(x[place], sigma, rng)
        return gradient, None

    @staticmethod
    def _place(x: Tensor, side: int, rng: Rng) -> tuple[Tensor, ...]:
        """The index of a random crop of each image [B, 3, H, W], [B, 3, side, side] or as large as the image is."""
        axes = []
        for extent in x.shape[2:]:
            size = min(side, extent)
            first = (rng.uniform(0, 1).to(x.device) * (extent - size + 1)).long().clamp(max=extent - size)
            axes.append(first.view(-1, 1) + torch.arange(size, device=x.device))
        rows, columns = axes
        samples, channels = (torch.arange(n, device=x.device) for n in x.shape[:2])
        return samples.view(-1, 1, 1, 1), channels.view(1, -1, 1, 1), rows[:, None, :, None], columns[:, None, None]

    def _residual(self, images: Tensor, sigma: float, rng: Rng) -> Tensor:
        """(x - D(x + s e, s)) / s of images [B, 3, h, w], float32 or wider."""
        precise = images.to(torch.promote_types(images.dtype, torch.float32))
        noisy = precise + sigma * rng.normal(*images.shape[1:]).to(precise) if self.config.noise else precise
        clean = self._network(noisy.to(self.dtype, memory_format=torch.channels_last), sigma)
        residual: Tensor = (precise - clean.to(precise)) / sigma
        return residual
