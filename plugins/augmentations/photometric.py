"""Photometric augmentations: colour jitter, erasing, coarse copies and Gaussian noise, on the pixels of the views."""

from __future__ import annotations

import math
from typing import Annotated, Self

import torch
import torch.nn.functional as F
from kornia.enhance import (
    adjust_brightness_accumulative,
    adjust_contrast_with_mean_subtraction,
    adjust_hue,
    adjust_saturation_with_gray_subtraction,
)
from pydantic import Field, model_validator
from torch import Tensor

from refcore.contracts.augmentation import Augmentation, Draws, Params
from refcore.engine.views import coarsen
from refcore.plugin import PluginConfig
from refcore.rng import Rng
from refcore_plugins.augmentations.geometric import Probability, Range, happens

Strength = Annotated[float, Field(ge=0, le=1)]


class ColorJitter(Augmentation):
    """Brightness, contrast, saturation and hue, in this order, as kornia's and torchvision's ColorJitter.

    Changed views are clamped to [0, 1] after each of the four; what has strength 0 is skipped.
    """

    class Config(PluginConfig):
        brightness: Strength = Field(0.1, description="Factors from 1 - brightness to 1 + brightness.")
        contrast: Strength = Field(
            0.1, description="Factors around the view's mean grey, 1 - contrast to 1 + contrast."
        )
        saturation: Strength = Field(
            0.1, description="Factors around each pixel's grey, 1 - saturation to 1 + saturation."
        )
        hue: float = Field(0.1, ge=0, le=0.5, description="Rotations from -hue to hue, in turns of the colour wheel.")
        p: Probability = Field(0.5, description="Share of the views that it applies to.")

    name = "color_jitter"
    config: Config

    def draw(self, size: tuple[int, int], rng: Rng) -> Params:
        """Factors brightness, contrast, saturation [n]; hue [n] in radians; applied [n], 1 or 0."""
        factors = {
            name: 1 + rng.uniform(-1, 1) * getattr(self.config, name)
            for name in ("brightness", "contrast", "saturation")
        }
        return {
            **factors,
            "hue": rng.uniform(-1, 1) * (2 * math.pi * self.config.hue),
            "applied": happens(rng, self.config.p),
        }

    def apply(self, views: Tensor, params: Params) -> Tensor:
        factor = {name: value.to(views.dtype) for name, value in params.items()}
        out = views
        if self.config.brightness:
            out = adjust_brightness_accumulative(out, factor["brightness"])
        if self.config.contrast:
            out = adjust_contrast_with_mean_subtraction(out, factor["contrast"])
        if self.config.saturation:
            out = adjust_saturation_with_gray_subtraction(out, factor["saturation"])
        if self.config.hue:
            out = adjust_hue(out.clamp(0, 1), factor["hue"]).clamp(0, 1)
        return torch.where(params["applied"].view(-1, 1, 1, 1) > 0, out, views)


class Erasing(Augmentation):
    """A random rectangle is erased (arXiv 1708.04896), so that no single place can carry the whole match."""

    class Config(PluginConfig):
        area: Range = Field((0.1, 0.4), description="Lowest and highest area of the box, as a share of the view's.")
        ratio: Range = Field((0.3, 1 / 0.3), description="Lowest and highest aspect of the box, width to height.")
        p: Probability = Field(1.0, description="Share of the views that it applies to.")
        shared: bool = Field(False, description="One box for all views of a sample (the paper's) or one for each view.")
        value: float = Field(0.0, ge=0, le=1, description="The grey that fills the box.")

        @model_validator(mode="after")
        def _a_share(self) -> Self:
            if self.area[1] > 1:
                raise ValueError(f"area {list(self.area)}: expected shares of the view, at most 1")
            return self

    name = "erasing"
    config: Config

    def draw(self, size: tuple[int, int], rng: Rng) -> Params:
        """box [n, 4] int64: top, left, bottom, right in pixels, the last two not included; empty where not applied.

        Area uniform, aspect uniform in its logarithm, place uniform; a side that would exceed the view is cut to it.
        """
        uniform = rng.shared_uniform if self.config.shared else rng.uniform
        height, width = size
        on = (uniform(0, 1) < self.config.p).long()
        area = uniform(*self.config.area) * (height * width)
        ratio = uniform(math.log(self.config.ratio[0]), math.log(self.config.ratio[1])).exp()
        tall = (area / ratio).sqrt().round().long().clamp(1, height)
        wide = (area * ratio).sqrt().round().long().clamp(1, width)
        top = (uniform(0, 1) * (height - tall + 1)).long()
        left = (uniform(0, 1) * (width - wide + 1)).long()
        return {"box": torch.stack([top, left, top + tall, left + wide], dim=-1) * on[:, None]}

    def apply(self, views: Tensor, params: Params) -> Tensor:
        top, left, bottom, right = params["box"].view(-1, 4, 1, 1).unbind(1)
        y = torch.arange(views.shape[-2], device=views.device).view(1, -1, 1)
        x = torch.arange(views.shape[-1], device=views.device).view(1, 1, -1)
        inside = (y >= top) & (y < bottom) & (x >= left) & (x < right)
        return views.masked_fill(inside[:, None], self.config.value)


class Coarse(Augmentation):
    """The view with no more detail than a small copy of it has, so that its referee cannot be met in fine detail.

    What fools a network mostly lies there, and does not survive a copy of 100 pixels; a picture does.
    """

    class Config(PluginConfig):
        side: int = Field(
            96, ge=1, description="Pixels of the copy's longer side, by area averaging; views that are smaller stay."
        )
        p: Probability = Field(1.0, description="Share of the views that it applies to.")

    name = "coarse"
    config: Config

    def draw(self, size: tuple[int, int], rng: Rng) -> Params:
        """applied [n], 1 or 0."""
        return {"applied": happens(rng, self.config.p)}

    def apply(self, views: Tensor, params: Params) -> Tensor:
        size = (views.shape[-2], views.shape[-1])
        back = F.interpolate(coarsen(views, self.config.side), size, mode="bilinear", align_corners=False)
        return torch.where(params["applied"].view(-1, 1, 1, 1) > 0, back, views)


class GaussianNoise(Augmentation):
    """Gaussian noise whose std is drawn for each view; smooths the loss (Proposition 3.1 of arXiv 2402.16305).

    Views may leave [0, 1] by it: clamping would take the gradient from the pixels at the ends.
    """

    class Config(PluginConfig):
        std: Annotated[float, Field(ge=0)] | tuple[float, float] = Field(
            (0.0, 0.1),
            description="Lowest and highest standard deviation, or one number for all views; colours are 0 to 1.",
        )

        @model_validator(mode="after")
        def _a_range(self) -> Self:
            low, high = self.bounds
            if not 0 <= low <= high:
                raise ValueError(f"std {[low, high]}: expected [low, high] with 0 <= low <= high")
            return self

        @property
        def bounds(self) -> tuple[float, float]:
            return self.std if isinstance(self.std, tuple) else (self.std, self.std)

    name = "gaussian_noise"
    config: Config

    def draw(self, size: tuple[int, int], rng: Rng) -> Draws:
        """std [n]; noise [n, 3, H, W], standard normal, drawn for the views that are being made, again the same."""
        return {"std": rng.uniform(*self.config.bounds), "noise": rng.deferred_normal(3, *size)}

    def apply(self, views: Tensor, params: Params) -> Tensor:
        return views + (params["std"].view(-1, 1, 1, 1) * params["noise"]).to(views.dtype)
