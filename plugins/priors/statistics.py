"""Prior `statistics`: the image's feature maps should have the means and variances that those of photographs have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from refcore.contracts.canvas import Canvas
from refcore.contracts.conditioning import Conditioning
from refcore.contracts.prior import Prior
from refcore.errors import RefcoreError
from refcore.plugin import PluginConfig
from refcore.rng import Rng
from refcore_plugins.referees.imagenet import Weights, folded_network, normalize, weights_file

_LEAST_VARIANCE = 1e-4
"""Of a map, relative to the remembered variance: flat maps keep a finite distance."""


class Statistics(Prior):
    """The distance to the statistics that an ImageNet classifier's batch normalisation remembers of its photographs.

    For every early layer l and channel c, with mean m and standard deviation s over the image's own feature map,

        loss = mean over l, c of  ((m - mu) / sigma)^2 + (log s - log sigma)^2

    where mu and sigma are those over all training photographs. It asks for natural colours, contrasts and textures, and
    says nothing of what is shown. After DeepInversion (Yin et al., CVPR 2020, eq. 4), which takes the statistics over a
    batch: here they are those of one image, so that samples never meet, relative to each channel's scale, and only of
    maps large enough to have statistics; the network is cut off behind them. It sees one random square crop a step, of
    any size from `size` pixels to the whole image, so that coarse and fine detail both count.
    """

    class Config(PluginConfig):
        weights: Weights = Field("lite0", description="The network whose statistics count.")
        size: int = Field(160, ge=32, le=512, description="Side of the crop that it sees, in pixels.")
        noise: float = Field(
            0.0, ge=0, description="Std of the noise on the crop, so that no faint pattern can pose as texture."
        )
        smallest: int = Field(20, ge=4, description="Side of the smallest feature maps that count, in pixels.")

    name = "statistics"
    space: ClassVar[Literal["latent", "image", "params"]] = "image"
    config: Config

    def check(self, prompts: Sequence[str] = ()) -> None:
        """See `Plugin.check`: the package of the network's weights is looked for, too."""
        super().check(prompts)
        weights_file(self.config.weights)

    def packaged(self) -> dict[str, Path]:
        """See `Plugin.packaged`: the network's own weights."""
        return {self.config.weights: weights_file(self.config.weights)}

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """Loads the network's early layers.

        Raises:
            CheckpointError: a package of extra `natural` is missing, or its checkpoint is damaged.
            RefcoreError: no feature map is as large as `smallest`.
        """
        self.device, self.dtype = device, dtype
        network, folded = folded_network(self.config.weights, self.config.size)
        self._network: Any = network.to(device, dtype).to(memory_format=torch.channels_last)
        self._maps: list[Tensor] = []
        for conv, _, _ in folded:
            conv.register_forward_hook(lambda _conv, _inputs, output: self._maps.append(output))
        self._means = [mean.to(device) for _, mean, _ in folded]
        self._stds = [std.to(device) for _, _, std in folded]
        if self.config.size // 2 < self.config.smallest:
            raise RefcoreError(
                f'prior "statistics": no feature map of a {self.config.size} px crop has a side of smallest = '
                f"{self.config.smallest} px; expected at most {self.config.size // 2}"
            )

    def accept(self, canvas: Canvas) -> None:
        """Any canvas will do."""

    def gradient(self, x: Tensor, conditioning: Conditioning, step: int, rng: Rng) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            images = x.detach().requires_grad_()
            crops = self._crop(images, rng)
            if self.config.noise:
                crops = crops + self.config.noise * rng.normal(*crops.shape[1:]).to(crops)
            value = self.distance(crops)
            (gradient,) = torch.autograd.grad(value.sum(), images)
        return gradient, value.detach()

    def distance(self, views: Tensor) -> Tensor:
        """[N] of views [N, 3, size, size] in [0, 1]: the loss above; about 0.8 for photographs. Differentiable."""
        self._run(normalize(views).to(self.dtype, memory_format=torch.channels_last))
        terms = []
        for maps, mean, std in zip(self._maps, self._means, self._stds, strict=False):  # the rest was not run
            if min(maps.shape[2:]) < self.config.smallest:
                continue
            variance, average = torch.var_mean(_precise(maps), dim=(2, 3), correction=0)
            log_ratio = 0.5 * (variance / std.square()).clamp(min=_LEAST_VARIANCE).log()
            terms.append((((average - mean) / std).square() + log_ratio.square()).mean(1))
        self._maps.clear()
        return torch.stack(terms).mean(0)

    def _run(self, x: Tensor) -> None:
        self._maps.clear()
        net = self._network
        x = net._swish(net._conv_stem(x))
        for block in net._blocks:
            x = block(x)
            if min(x.shape[2:]) < self.config.smallest:
                return

    def _crop(self, images: Tensor, rng: Rng) -> Tensor:
        """One crop an image: its side is uniform from `size` to the shorter side, its place uniform."""
        height, width = images.shape[2:]
        shorter = min(height, width)
        side = rng.uniform(min(self.config.size, shorter), shorter).to(images.device)
        extent = torch.stack([side / width, side / height], dim=-1)
        centre = rng.uniform(-1, 1, 2).to(images.device) * (1 - extent)
        theta = torch.cat([torch.diag_embed(extent), centre.unsqueeze(-1)], dim=-1).to(images.dtype)
        crop_size = [len(images), 3, self.config.size, self.config.size]
        blurred = _shrink(images, max(1, shorter // self.config.size))
        grid = F.affine_grid(theta, crop_size, align_corners=False)
        return F.grid_sample(blurred, grid, padding_mode="reflection", align_corners=False)


def _shrink(images: Tensor, factor: int) -> Tensor:
    """Averages `factor` x `factor` pixels, so that the sampling that follows has nothing to alias."""
    return images if factor == 1 else F.avg_pool2d(images, factor)


def _precise(maps: Tensor) -> Tensor:
    """In float32 at least: the variance of a bfloat16 map is nothing to rely on."""
    return maps.to(torch.promote_types(maps.dtype, torch.float32))
