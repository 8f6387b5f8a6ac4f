"""Random views of an image, which referees see: drawn once a step, made chunk by chunk with one resampling each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from refcore.config.views import ViewGroup
from refcore.contracts.augmentation import Augmentation, Draws, Params, places, select
from refcore.engine import checks
from refcore.moment import Moment
from refcore.rng import Key, Rng

Size = tuple[int, int]
"""(height, width) in pixels."""
FIXED = -1
"""In the key of draws, the step of views at the end of a run: those that results are compared on."""


def resize(images: Tensor, size: Size) -> Tensor:
    """[N, C, H, W] in [0, 1] -> [N, C, *size] in [0, 1]: bicubic, antialiased (as Pillow's), differentiable."""
    if images.shape[-2:] == size:
        return images
    return F.interpolate(images, size, mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)


def centred(images: Tensor, size: Size) -> Tensor:
    """[B, C, H, W] -> [B, C, *size]: the largest centred crop of that aspect ratio, resized."""
    height, width = images.shape[-2:]
    scale = min(height / size[0], width / size[1])
    kept = (round(size[0] * scale), round(size[1] * scale))
    top, left = (height - kept[0]) // 2, (width - kept[1]) // 2
    return resize(images[..., top : top + kept[0], left : left + kept[1]], size)


def coarsen(images: Tensor, longer_side: int) -> Tensor:
    """Images shrunk by area averaging to `longer_side` pixels on their longer side; smaller ones stay as they are."""
    height, width = images.shape[-2:]
    if max(height, width) <= longer_side:
        return images
    scale = longer_side / max(height, width)
    return F.interpolate(images, (max(1, round(height * scale)), max(1, round(width * scale))), mode="area")


def covered(image: Size, view: Size, fit: str) -> tuple[float, float]:
    """Share of the image's (height, width) that a view spans without augmentations; (1, 1) is all of it, stretched."""
    wider = (image[1] / image[0]) / (view[1] / view[0])  # the image's aspect over the view's
    if fit == "stretch" or wider == 1:
        return 1.0, 1.0
    if fit == "crop":
        return min(1.0, wider), min(1.0, 1 / wider)
    return max(1.0, wider), max(1.0, 1 / wider)


class Group:
    """A named group of views: its config and its augmentations."""

    def __init__(self, name: str, config: ViewGroup, augmentations: Sequence[Augmentation] = ()) -> None:
        self.name = name
        self.config = config
        self.augmentations = tuple(augmentations)

    @property
    def used(self) -> int:
        """Views per sample that get gradients."""
        return self.config.hardest or self.config.count

    def open(self, image: Tensor, size: Size, seeds: Sequence[Key], at: Moment) -> Views:
        """Draws this step's views for a referee of input `size`; nothing is rendered but the shrunk source.

        Every draw is keyed by (seed, step, group, augmentation), so the views of a sample depend neither on its mates
        nor on which referees look at them.

        Args:
            image: [A, 3, H, W] in [0, 1].
            size: the referee's input.
            seeds: of the A samples, or the keys of their candidates.
            at: the step; the end of the run for views to compare results on, which are the same at every call.
        """
        matrix: Tensor | None = None
        photometric: list[tuple[Augmentation, Draws]] = []
        geometry = torch.promote_types(image.dtype, torch.float32)
        zoom = 1.0
        n = len(seeds) * self.config.count
        span = covered((image.shape[-2], image.shape[-1]), size, self.config.fit)
        if span != (1.0, 1.0):
            scale = torch.tensor([span[1], span[0], 1.0], dtype=geometry, device=image.device)
            matrix = torch.diag(scale).expand(n, 3, 3)
        step = FIXED if at.is_end else at.step
        for i, augmentation in enumerate(self.augmentations):
            stream = f"views/{self.name}/{i}-{augmentation.name}"
            draws = checks.draw(augmentation, size, Rng(seeds, step, stream, self.config.count, image.device), at)
            if augmentation.geometric:
                zoom *= augmentation.zoom
                params = _as_exact_as(image, select(draws, range(n)))
                own = checks.matrix(augmentation, params, n, image.device)
                matrix = own if matrix is None else matrix @ own
            else:
                photometric.append((augmentation, draws))
        source = (
            min(image.shape[-2], math.ceil(size[0] * zoom / span[0])),
            min(image.shape[-1], math.ceil(size[1] * zoom / span[1])),
        )
        small = _shrink(image, source, self.config.shrink)
        return Views(image, small, size, self.config, matrix, photometric)


@dataclass
class Views:
    """The N = A * count views of one group at one size in one step, sample by sample; made on demand by `make`.

    Gradients stop at `source`, the image shrunk once for all views, and go on to the image through `pull_back`.
    """

    image: Tensor
    small: Tensor
    size: Size
    config: ViewGroup
    matrix: Tensor | None
    """[N, 3, 3] view -> source coordinates; None where a view is the whole image."""
    photometric: list[tuple[Augmentation, Draws]]

    def __post_init__(self) -> None:
        self.source = self.small.detach().requires_grad_(self.small.requires_grad)
        samples = torch.arange(len(self.image), device=self.image.device)
        self.sample = samples.repeat_interleave(self.config.count)
        """[N] int64 index of the image that each view shows."""

    def sample_of(self, index: Sequence[int]) -> Tensor:
        """[n] int64 index of the image that each of the views `index` shows."""
        return self.sample.index_select(0, places(index, self.sample.device))

    def make(self, index: Sequence[int]) -> Tensor:
        """The views `index`, by their places in 0 .. N - 1: [n, 3, h, w] in [0, 1], noise aside, differentiable in
        `source`.

        The geometric augmentations act first, as one resampling of the source, and the others after it, whatever
        their places in the config.
        """
        return self._seen(self.source.index_select(0, self.sample_of(index)), index)

    @torch.no_grad()
    def beside(self, picture: Tensor, index: Sequence[int]) -> Tensor:
        """The same views of another picture [1, 3, h, w], cropped to the image's aspect ratio: [n, 3, h, w]."""
        small = centred(picture.to(self.small), (self.small.shape[-2], self.small.shape[-1]))
        return self._seen(small.expand(len(index), -1, -1, -1), index)

    def _seen(self, views: Tensor, index: Sequence[int]) -> Tensor:
        """Sources [n, 3, H, W] of the views `index`, as these see them."""
        if self.matrix is None:
            views = resize(views, self.size)
        else:
            matrix = self.matrix.index_select(0, places(index, self.matrix.device))
            grid = sampling_grid(matrix, self.size).to(views.dtype)
            views = sampled(views, grid, self.config.padding)
        for augmentation, draws in self.photometric:
            views = checks.apply(augmentation, views, _as_exact_as(self.image, select(draws, index)))
        return views

    def pull_back(self, gradient: Tensor) -> Tensor:
        """A gradient for `source` -> the gradient for the image, [A, 3, H, W]."""
        if self.small is self.image:
            return gradient
        (pulled,) = torch.autograd.grad(self.small, self.image, gradient, retain_graph=True)
        return pulled


class OpenViews:
    """One step's views of images, opened once for each group and input size."""

    def __init__(self, groups: Mapping[str, Group], image: Tensor, keys: Sequence[Key], at: Moment) -> None:
        self.groups, self.image, self.keys, self.at = groups, image, keys, at
        self._opened: dict[tuple[str, Size], Views] = {}

    def get(self, group: str, size: Size) -> Views:
        """The views of a group for a referee of input `size`."""
        if (group, size) not in self._opened:
            with torch.set_grad_enabled(self.image.requires_grad):
                self._opened[group, size] = self.groups[group].open(self.image, size, self.keys, self.at)
        return self._opened[group, size]


def sampling_grid(matrix: Tensor, size: Size) -> Tensor:
    """[n, 3, 3] view -> source -> the grid [n, h, w, 2] (x, y) that `grid_sample` wants.

    Points on or behind the horizon of a perspective (homogeneous weight not above 0) fall far outside the source.
    """
    height, width = size
    y = (torch.arange(height, device=matrix.device, dtype=matrix.dtype) * 2 + 1) / height - 1
    x = (torch.arange(width, device=matrix.device, dtype=matrix.dtype) * 2 + 1) / width - 1
    points = torch.stack(
        [x.expand(height, width), y[:, None].expand(height, width), torch.ones_like(x).expand(height, width)], -1
    )
    mapped = points.view(1, -1, 3) @ matrix.transpose(1, 2)
    weight = mapped[..., 2:]
    flat = torch.where(weight > 1e-6, mapped[..., :2] / weight.clamp_min(1e-6), 1e3)
    return flat.view(-1, height, width, 2)


def sampled(images: Tensor, grid: Tensor, padding: str) -> Tensor:
    """Images [n, 3, H, W] sampled bilinearly at a grid [n, h, w, 2], with "ones" beside the paddings of torch."""
    if padding == "ones":
        return 1 - sampled(1 - images, grid, "zeros")
    return F.grid_sample(images, grid, mode="bilinear", padding_mode=padding, align_corners=False)


def _as_exact_as(image: Tensor, params: Params) -> Params:
    """For an image in float64: the numbers drawn stay the same; what is computed from them is exact."""
    if image.dtype != torch.float64:
        return params
    return {name: value.double() if value.is_floating_point() else value for name, value in params.items()}


def _shrink(image: Tensor, size: Size, how: str) -> Tensor:
    if image.shape[-2:] == size:
        return image
    if how == "pool":
        return (F.adaptive_avg_pool2d(image, size) + F.adaptive_max_pool2d(image, size)) / 2
    return resize(image, size)
