"""The contract of an augmentation: parameters drawn once and reapplied at will, geometry as composable matrices."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from refcore.plugin import Plugin
from refcore.randomness import Rng

Params = dict[str, Tensor]
"""Drawn parameters: tensors whose first dimension is N, the views."""


def select(params: Params, index: Tensor) -> Params:
    """The parameters of some of the views; `index` is [n] int64."""
    return {name: value.index_select(0, index) for name, value in params.items()}


class Augmentation(Plugin):
    """A random change of a view. Geometric ones give `matrix`; the others implement `apply`."""

    geometric: ClassVar[bool] = False

    @property
    def zoom(self) -> float:
        """The largest magnification that it may apply (a crop of half the side: 2); the source is kept that sharp."""
        return 1.0

    def draw(self, size: tuple[int, int], rng: Rng) -> Params:
        """All of its randomness for `rng.n` views of `size` (height, width). Uses nothing but `rng`."""
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
