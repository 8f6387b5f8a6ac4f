"""A checkpoint's own image preprocessing: of views in [0, 1], and of finished images of any shape."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from refcore.errors import CheckpointError

Filter = Literal["nearest", "bilinear", "bicubic"]
FILTERS: dict[int, Filter] = {0: "nearest", 2: "bilinear", 3: "bicubic"}
"""Pillow's numbers of the resampling filters that torch has; the others are replaced by bicubic."""


class Normalise:
    """`(views - mean) / std` per channel, with the constants of the checkpoint's preprocessing config."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device) -> None:
        """
        Raises:
            CheckpointError: one of them is not three numbers, or a std is 0.
        """
        for name, values in (("mean", mean), ("std", std)):
            if not _three_numbers(values) or (name == "std" and not all(values)):
                raise CheckpointError(
                    f"the {name} of the checkpoint's preprocessing is {values!r:.60}; expected three numbers"
                    f"{' other than 0' if name == 'std' else ''}: copy or download its preprocessing config again"
                )
        # In float64, so that rounded constants do not limit a float64 referee.
        self.mean = torch.tensor(mean, dtype=torch.float64, device=device).view(1, 3, 1, 1)
        self.std = torch.tensor(std, dtype=torch.float64, device=device).view(1, 3, 1, 1)

    @classmethod
    def of_processor(cls, processor: Any, device: torch.device) -> Normalise:
        """With the constants of a transformers image processor; resizing is left to the engine.

        Raises:
            CheckpointError: the processor scales levels by anything but 1 / 255.
        """
        factor = getattr(processor, "rescale_factor", 1 / 255) if getattr(processor, "do_rescale", True) else 1.0
        if not _number(factor) or abs(factor * 255 - 1) > 1e-6:
            raise CheckpointError(
                f"the image processor scales levels by {factor!r:.20}; expected rescale_factor 1/255 (0.00392157), "
                "since views are in [0, 1]"
            )
        if not processor.do_normalize:
            return cls((0.0,) * 3, (1.0,) * 3, device)
        return cls(processor.image_mean, processor.image_std, device)

    def __call__(self, views: Tensor) -> Tensor:
        """[N, 3, H, W] in [0, 1] -> the same shape and dtype, in the model's own range."""
        return (views - self.mean.to(views.dtype)) / self.std.to(views.dtype)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _three_numbers(values: Any) -> bool:
    return isinstance(values, Sequence) and len(values) == 3 and all(map(_number, values))


@dataclass(frozen=True)
class Fit:
    """How finished images of any shape come to a model's input size, as `Referee.fit`.

    `[B, 3, H, W]` in [0, 1] -> `[B, 3, *size]` in [0, 1]; the same values if the size is right already. Nothing is
    rounded to 8 bits, as the libraries' own processors round.
    """

    size: tuple[int, int]
    """(height, width) in pixels."""
    mode: Literal["stretch", "crop", "pad", "square", "corner"] = "stretch"
    """stretch: both sides to the size, whatever the proportions.
    crop: resized until the image covers the size, and centre-cropped.
    pad: resized until it lies within the size, and padded on both sides.
    square: padded on both sides to a square, then resized.
    corner: padded at the right or at the bottom to a square, blurred by the factor of the reduction, then resized
    without another antialiasing filter (OWLv2)."""
    filter: Filter = "bicubic"
    fill: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Colour of the padding, in [0, 1]."""
    rounds: bool = False
    """Whether an odd margin of `crop` is rounded half to even, as torchvision's, instead of down, as transformers'."""
    shorter: int | None = None
    """Pixels of the shorter side before a `crop` to a square, whose margin is lost on all sides; None: no margin."""

    @classmethod
    def of_processor(cls, processor: Any, size: tuple[int, int]) -> Fit:
        """As a transformers image processor does, for a model of input `size`.

        Where it resizes the shorter side beyond the crop (DINOv2: 256, of which 224 are kept), so does this.
        """
        filter = _filter(processor)
        if getattr(processor, "do_pad", False) and hasattr(processor, "pad_to_square"):  # LLaVA's
            mean = processor.image_mean
            return cls(size, "square", filter, (_level(mean[0]), _level(mean[1]), _level(mean[2])))
        asked = dict(getattr(processor, "size", None) or {})
        short = asked.get("shortest_edge")
        if not (getattr(processor, "do_center_crop", False) or short):
            return cls(size, "stretch", filter)
        beyond = getattr(processor, "do_resize", True) and size[0] == size[1] and int(short or 0) > size[0]
        return cls(size, "crop", filter, shorter=int(short or 0) if beyond else None)

    def __call__(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] in [0, 1] -> [B, 3, *size] in [0, 1]."""
        height, width = images.shape[-2:]
        if (height, width) == self.size and self.shorter is None:
            return images
        if self.mode == "stretch":
            return self._resized(images, self.size)
        if self.mode == "corner":
            return self._cornered(images)
        if self.mode == "square":
            side = max(height, width)
            return self._resized(self._padded(images, (side, side)), self.size)
        return self._padded(self._cropped(self._resized(images, self._within(height, width))), self.size)

    def _within(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the image resized in proportion, for `crop` and `pad`; as the libraries round."""
        if self.mode == "crop" and self.size[0] == self.size[1]:
            short, side = min(height, width), self.shorter or self.size[0]
            return int(side * height / short), int(side * width / short)
        ratios = height / self.size[0], width / self.size[1]
        ratio = max(ratios) if self.mode == "pad" else min(ratios)
        return max(1, round(height / ratio)), max(1, round(width / ratio))

    def _resized(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        if images.shape[-2:] == size:
            return images
        if self.filter == "nearest":
            return F.interpolate(images, size, mode="nearest-exact")
        return F.interpolate(images, size, mode=self.filter, align_corners=False, antialias=True).clamp(0, 1)

    def _cropped(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        spare = max(0, height - self.size[0]), max(0, width - self.size[1])
        top, left = (round(side / 2) if self.rounds else side // 2 for side in spare)
        return images[..., top : top + self.size[0], left : left + self.size[1]]

    def _padded(self, images: Tensor, size: tuple[int, int], corner: bool = False) -> Tensor:
        height, width = images.shape[-2:]
        if (height, width) == size:
            return images
        top, left = (0, 0) if corner else ((size[0] - height) // 2, (size[1] - width) // 2)
        padded = torch.tensor(self.fill, dtype=images.dtype, device=images.device).view(1, 3, 1, 1)
        padded = padded.repeat(len(images), 1, *size)
        padded[..., top : top + height, left : left + width] = images
        return padded

    def _cornered(self, images: Tensor) -> Tensor:
        side = max(images.shape[-2:])
        square = self._padded(images, (side, side), corner=True)
        sigma = [max(0.0, (side / of - 1) / 2) for of in self.size]
        if min(sigma) > 0:
            square = gaussian_blur(square, [2 * math.ceil(3 * s) + 1 for s in sigma], sigma)
        return F.interpolate(square, self.size, mode="bilinear", align_corners=False).clamp(0, 1)


@dataclass(frozen=True)
class MultipleFit:
    """How Qwen2-VL's image processor resizes: in proportion, to multiples of `factor` and an area within bounds.

    `[B, 3, H, W]` in [0, 1] -> `[B, 3, h, w]` in [0, 1]; see `Referee.fit`.
    """

    factor: int
    """Side in pixels of which both sides become multiples."""
    least: int
    """Smallest area in pixels."""
    most: int
    """Largest area in pixels."""
    filter: Filter = "bicubic"

    @classmethod
    def of_processor(cls, processor: Any, factor: int) -> MultipleFit:
        """With the bounds of a transformers image processor: `size`, or `min_pixels` and `max_pixels`."""
        size = dict(getattr(processor, "size", None) or {})
        least = size.get("shortest_edge") or getattr(processor, "min_pixels", None)
        most = size.get("longest_edge") or getattr(processor, "max_pixels", None)
        if not least or not most:
            raise CheckpointError(f"the image processor has no bounds of the area: {size}; expected two edges")
        return cls(factor, int(least), int(most), _filter(processor))

    def size_of(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) to which an image is resized: transformers' `smart_resize`."""
        near = tuple(round(side / self.factor) * self.factor for side in (height, width))
        ratio = 1.0
        whole: Callable[[float], int] = math.floor
        if near[0] * near[1] > self.most:
            ratio = math.sqrt(self.most / (height * width))
        elif near[0] * near[1] < self.least:
            ratio, whole = math.sqrt(self.least / (height * width)), math.ceil
        else:
            return near[0], near[1]
        first, second = (max(1, whole(side * ratio / self.factor)) * self.factor for side in (height, width))
        return first, second

    def __call__(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] in [0, 1] -> [B, 3, h, w] in [0, 1]."""
        return Fit(self.size_of(images.shape[-2], images.shape[-1]), "stretch", self.filter)(images)


def _filter(processor: Any) -> Filter:
    number = getattr(processor, "resample", 3)
    return FILTERS.get(int(3 if number is None else number), "bicubic")


def _level(mean: float) -> float:
    """A mean in [0, 1], as the 8-bit level that LLaVA pads with."""
    return int(mean * 255) / 255


def processor_size(processor: Any) -> tuple[int, int]:
    """(height, width) in pixels of a model's input, by its transformers image processor, for a square image.

    The size of the centre crop if there is one: the whole view takes its place, since a run's views do the cropping.

    Raises:
        CheckpointError: the processor has no fixed size.
    """
    crops = getattr(processor, "do_center_crop", False)
    size = {name: side for name, side in dict(processor.crop_size if crops else processor.size).items() if side}
    if {"height", "width"} <= size.keys():
        return int(size["height"]), int(size["width"])
    if "shortest_edge" in size:
        return int(size["shortest_edge"]), int(size["shortest_edge"])
    raise CheckpointError(f"the image processor has no fixed size: {size}; expected height and width")
