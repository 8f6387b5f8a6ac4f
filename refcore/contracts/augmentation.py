"""The contract of an augmentation: parameters drawn once and reapplied at will, geometry as composable matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from refcore.plugin import Plugin
from refcore.rng import Deferred, Rng

Params = dict[str, Tensor]
"""Parameters of n views: tensors whose first dimension is n."""
Draws = Mapping[str, Tensor | Deferred]
"""What was drawn for all N views. What is as large as a view is deferred, and drawn for those that are being made."""


def places(index: Sequence[int], device: torch.device) -> Tensor:
    """[n] int64 on the device, which is not waited for: `index` as indexing wants it."""
    if isinstance(index, range):
        return torch.arange(index.start, index.stop, index.step, device=device)
    return torch.tensor(index, dtype=torch.int64).to(device, non_blocking=True)


def select(draws: Draws, index: Sequence[int]) -> Params:
    """The parameters of the views `index`, by their places in 0 .. N - 1."""
    return {
        name: value.take(index) if isinstance(value, Deferred) else value.index_select(0, places(index, value.device))
        for name, value in draws.items()
    }


class Augmentation(Plugin):
    """A random change of a view. Geometric ones give `matrix`; the others implement `apply`."""

    kind = "augmentations"
    geometric: ClassVar[bool] = False

    @property
    def zoom(self) -> float:
        """The largest magnification that it may apply (a crop of half the side: 2); the source is kept that sharp."""
        return 1.0

    def draw(self, size: tuple[int, int], rng: Rng) -> Draws:
        """All of its randomness for `rng.n` views of `size` (height, width). Uses nothing but `rng`.

        Numbers for every pixel of every view are `rng.deferred_normal`, so that memory stays flat in the views.
        """
        raise NotImplementedError

    def matrix(self, params: Params) -> Tensor:
        """[n, 3, 3] float32: view coordinates -> source coordinates, both in [-1, 1] (as `torch` `affine_grid`).

        Geometric augmentations only. Matrices of a chain are multiplied in order, first augmentation leftmost, and
        the product is sampled once.
        """
        raise NotImplementedError

    def apply(self, views: Tensor, params: Params) -> Tensor:
        """[n, 3, H, W] in [0, 1] -> the same shape, differentiable. Non-geometric augmentations only."""
        raise NotImplementedError
