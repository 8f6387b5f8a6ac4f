"""The `statistics` prior: means and variances of the image's feature maps like those of photographs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from refcore.config.schedule import Schedule
from refcore.contracts.canvas import Canvas
from refcore.contracts.conditioning import Conditioning
from refcore.contracts.prior import Prior
from refcore.errors import RefcoreError
from refcore.moment import Moment
from refcore.plugin import PluginConfig
from refcore.rng import Rng
from refcore_plugins.models.efficientnet_lite import Weights, folded_network, normalize, weights_file

_LEAST_VARIANCE = 1e-4
"""Minimum variance of a feature map, relative to that of photographs; keeps the loss of flat maps finite."""


class Statistics(Prior):
    """Distance to the statistics of photographs in an ImageNet classifier's batch normalisation.

    For every early layer l and channel c, with mean m and standard deviation s over the image's own feature map,

        loss = mean over l, c of  ((m - mu) / sigma)^2 + (log s - log sigma)^2

    where mu and sigma are those over all training photographs. It favours natural colours, contrasts and textures,
    whatever the content. After DeepInversion (Yin et al., CVPR 2020, eq. 4), with three changes: statistics are those
    of one image instead of a batch, so that samples are independent; they are relative to each channel's scale; and
    only feature maps of at least `smallest` pixels count, after which the network stops. In each step the network sees
    one random square crop, from `size` pixels up to the whole image, so that coarse and fine detail both count.
    """

    class Config(PluginConfig):
        weights: Weights = Field("lite0", description="EfficientNet-Lite network that provides the statistics.")
        size: int = Field(160, ge=32, le=512, description="Side of the network's input in pixels.")
        noise: Schedule = Field(
            0.0, ge=0, description="Std of the noise added to the crop, so that faint patterns do not count as texture."
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
            CheckpointError: a package of the extra `natural` is not installed, or its checkpoint is corrupt.
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
                f'prior "statistics": smallest is {self.config.smallest} px, but no feature map of a '
                f"{self.config.size} px crop is that large; expected at most {self.config.size // 2}"
            )

    def accept(self, canvas: Canvas) -> None:
        """Any canvas will do."""

    def gradient(self, x: Tensor, conditioning: Conditioning, at: Moment, rng: Rng) -> tuple[Tensor, Tensor]:
        """See `Prior.gradient`."""
        with torch.enable_grad():
            images = x.detach().requires_grad_()
            crops = self._crop(images, rng)
            if noise := at.of(self.config.noise):
                crops = crops + noise * rng.normal(*crops.shape[1:]).to(crops)
            value = self.distance(crops)
            (gradient,) = torch.autograd.grad(value.sum(), images)
        return gradient, value.detach()

    def distance(self, views: Tensor) -> Tensor:
        """[N] losses of views [N, 3, size, size] in [0, 1], about 0.8 for photographs; differentiable."""
        self._run(normalize(views).to(self.dtype, memory_format=torch.channels_last))
        terms = []
        for maps, mean, std in zip(self._maps, self._means, self._stds, strict=False):  # later layers were not run
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
        """One crop for each image: side uniform between `size` and the shorter side, place uniform."""
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
    """Averages `factor` x `factor` pixels, against aliasing in the sampling that follows."""
    return images if factor == 1 else F.avg_pool2d(images, factor)


def _precise(maps: Tensor) -> Tensor:
    """In float32 or wider, since the variance of a bfloat16 map is unreliable."""
    return maps.to(torch.promote_types(maps.dtype, torch.float32))
