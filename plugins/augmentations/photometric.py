"""Photometric augmentations of the views' pixels: colour jitter, erasing, coarse copies and noise."""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from kornia.enhance import (
    adjust_brightness_accumulative,
    adjust_contrast_with_mean_subtraction,
    adjust_hue,
    adjust_saturation_with_gray_subtraction,
)
from pydantic import AfterValidator, Field
from torch import Tensor

from refcore.config.schedule import Schedule, WholeSchedule, ascending
from refcore.contracts.augmentation import Augmentation, Draws, Params
from refcore.engine.views import coarsen
from refcore.moment import Moment
from refcore.plugin import PluginConfig
from refcore.rng import Rng
from refcore_plugins.augmentations.geometric import Probability, Range, happens

Strength = Annotated[Schedule, Field(ge=0, le=1)]
Share = Annotated[Schedule, Field(gt=0, le=1)]
Std = Annotated[Schedule, Field(ge=0)]


class ColorJitter(Augmentation):
    """Brightness, contrast, saturation and hue, in this order, as in the ColorJitter of kornia and torchvision.

    Views are clamped to [0, 1] after each of the four changes. A change of strength 0 is skipped.
    """

    class Config(PluginConfig):
        brightness: Strength = Field(0.1, description="Brightness factors are from 1 - brightness to 1 + brightness.")
        contrast: Strength = Field(
            0.1, description="Contrast factors, about the view's mean grey, are from 1 - contrast to 1 + contrast."
        )
        saturation: Strength = Field(
            0.1, description="Saturation factors, about each pixel's grey, are from 1 - saturation to 1 + saturation."
        )
        hue: Schedule = Field(
            0.1, ge=0, le=0.5, description="Largest hue rotation in either direction, in turns of the colour wheel."
        )
        p: Probability = Field(0.5, description="Fraction of the views to which it applies.")

    name = "color_jitter"
    config: Config

    def draw(self, size: tuple[int, int], rng: Rng, at: Moment) -> Params:
        """Factors brightness, contrast, saturation [n]; hue [n] in radians; applied [n], 1 or 0.

        A change whose strength is 0 at this step is left out.
        """
        strengths = {
            name: at.of(getattr(self.config, name)) for name in ("brightness", "contrast", "saturation", "hue")
        }
        drawn = {name: rng.uniform(-1, 1) for name in strengths}  # all of them: each draw moves the generator on
        found = {name: 1 + drawn[name] * strengths[name] for name in ("brightness", "contrast", "saturation")}
        found["hue"] = drawn["hue"] * (2 * math.pi * strengths["hue"])
        applied = happens(rng, at.of(self.config.p))
        return {**{name: value for name, value in found.items() if strengths[name]}, "applied": applied}

    def apply(self, views: Tensor, params: Params) -> Tensor:
        factor = {name: value.to(views.dtype) for name, value in params.items()}
        out = views
        if "brightness" in factor:
            out = adjust_brightness_accumulative(out, factor["brightness"])
        if "contrast" in factor:
            out = adjust_contrast_with_mean_subtraction(out, factor["contrast"])
        if "saturation" in factor:
            out = adjust_saturation_with_gray_subtraction(out, factor["saturation"])
        if "hue" in factor:
            out = adjust_hue(out.clamp(0, 1), factor["hue"]).clamp(0, 1)
        return torch.where(params["applied"].view(-1, 1, 1, 1) > 0, out, views)


class Erasing(Augmentation):
    """Erases a random rectangle (arXiv 1708.04896), so that a match cannot depend on a single place."""

    class Config(PluginConfig):
        area: Annotated[tuple[Share, Share], AfterValidator(ascending)] = Field(
            (0.1, 0.4), description="Smallest and largest area of the rectangle, as a fraction of the view's."
        )
        ratio: Range = Field(
            (0.3, 1 / 0.3), description="Lowest and highest aspect ratio of the rectangle, width to height."
        )
        p: Probability = Field(1.0, description="Fraction of the views to which it applies.")
        shared: bool = Field(
            False,
            description="Erase the same rectangle in all views of a sample, as in the paper, instead of one for each.",
        )
        value: float = Field(0.0, ge=0, le=1, description="Grey of the rectangle, in [0, 1].")

    name = "erasing"
    config: Config

    def draw(self, size: tuple[int, int], rng: Rng, at: Moment) -> Params:
        """box [n, 4] int64: top, left, bottom, right in pixels, the last two exclusive; empty where not applied.

        Area, log aspect ratio and place are uniform. A side longer than the view's is clamped to it.
        """
        uniform = rng.shared_uniform if self.config.shared else rng.uniform
        height, width = size
        on = (uniform(0, 1) < at.of(self.config.p)).long()
        smallest, largest = map(at.of, self.config.area)
        area = uniform(smallest, largest) * (height * width)
        low, high = map(at.of, self.config.ratio)
        ratio = uniform(math.log(low), math.log(high)).exp()
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
    """Limits a view to the detail of a small copy of it.

    Adversarial patterns are mostly fine detail and do not survive a copy of 100 pixels; a picture does.
    """

    class Config(PluginConfig):
        side: WholeSchedule = Field(
            96,
            ge=1,
            description="Longer side of the copy in pixels, made by area averaging; smaller views are unchanged.",
        )
        p: Probability = Field(1.0, description="Fraction of the views to which it applies.")

    name = "coarse"
    config: Config

    def draw(self, size: tuple[int, int], rng: Rng, at: Moment) -> Params:
        """applied [n], 1 or 0; side [n] int64, the same for all views."""
        applied = happens(rng, at.of(self.config.p))
        return {"applied": applied, "side": torch.full_like(applied, at.whole(self.config.side), dtype=torch.int64)}

    def apply(self, views: Tensor, params: Params) -> Tensor:
        size = (views.shape[-2], views.shape[-1])
        # A plain number is not read back from the device, which would be waited for.
        side = self.config.side if isinstance(self.config.side, int) else int(params["side"][0])
        back = F.interpolate(coarsen(views, side), size, mode="bilinear", align_corners=False)
        return torch.where(params["applied"].view(-1, 1, 1, 1) > 0, back, views)


class GaussianNoise(Augmentation):
    """Gaussian noise with a random std for each view; smooths the loss (Proposition 3.1 of arXiv 2402.16305).

    Views may leave [0, 1], since clamping would remove the gradient of pixels near 0 and 1.
    """

    class Config(PluginConfig):
        std: Std | Annotated[tuple[Std, Std], AfterValidator(ascending)] = Field(
            (0.0, 0.1),
            description="Lowest and highest standard deviation, or one number for all views; colours are 0 to 1.",
        )

    name = "gaussian_noise"
    config: Config

    def draw(self, size: tuple[int, int], rng: Rng, at: Moment) -> Draws:
        """std [n]; noise [n, 3, H, W], standard normal, drawn when a view is made and the same each time."""
        std: Any = self.config.std
        low, high = map(at.of, std if isinstance(std, tuple) else (std, std))
        return {"std": rng.uniform(low, high), "noise": rng.deferred_normal(3, *size)}

    def apply(self, views: Tensor, params: Params) -> Tensor:
        return views + (params["std"].view(-1, 1, 1, 1) * params["noise"]).to(views.dtype)


class UniformNoise(Augmentation):
    """Noise that is uniform between two numbers, brighter views where their mean is above 0; clamped to [0, 1].

    That of Direct Ascent Synthesis (arXiv 2502.07753), whose code adds numbers between 0 and 0.2.
    """

    class Config(PluginConfig):
        range: Annotated[tuple[Schedule, Schedule], AfterValidator(ascending)] = Field(
            (0.0, 0.2), description="Lowest and highest number added; colours are 0 to 1."
        )
        clamp: bool = Field(
            True, description="Whether views are clamped to [0, 1], which leaves no gradient where they saturate."
        )

    name = "uniform_noise"
    config: Config

    def draw(self, size: tuple[int, int], rng: Rng, at: Moment) -> Draws:
        """low, width [n]; noise [n, 3, H, W], uniform in [0, 1), drawn when a view is made and the same each time."""
        low, high = map(at.of, self.config.range)
        one = torch.ones(rng.n, device=rng.device)
        return {"low": low * one, "width": (high - low) * one, "noise": rng.deferred_uniform(3, *size)}

    def apply(self, views: Tensor, params: Params) -> Tensor:
        low, width = (params[name].view(-1, 1, 1, 1) for name in ("low", "width"))
        noisy = views + (low + width * params["noise"]).to(views.dtype)
        return noisy.clamp(0, 1) if self.config.clamp else noisy
