"""The contract of an augmentation: parameters drawn once and applied repeatedly, geometry as matrices that compose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from refcore.moment import Moment
from refcore.plugin import Kind, Plugin
from refcore.rng import Deferred, Rng

Params = dict[str, Tensor]
"""Parameters of n views: tensors whose first dimension is n."""
Draws = Mapping[str, Tensor | Deferred]
"""Parameters of all N views. Those as large as a view are deferred: drawn when the views are made."""


def places(index: Sequence[int], device: torch.device) -> Tensor:
    """`index` as [n] int64 on the device, copied without synchronising."""
    if isinstance(index, range):
        return torch.arange(index.start, index.stop, index.step, device=device)
    return torch.tensor(index, dtype=torch.int64).to(device, non_blocking=True)


def select(draws: Draws, index: Sequence[int]) -> Params:
    """The parameters of the views `index`, each in 0 .. N - 1."""
    return {
        name: value.take(index) if isinstance(value, Deferred) else value.index_select(0, places(index, value.device))
        for name, value in draws.items()
    }


class Augmentation(Plugin):
    """A random change of a view. Geometric ones implement `matrix`, the others `apply`."""

    kind: ClassVar[Kind] = "augmentations"
    facts: ClassVar[tuple[str, ...]] = ("geometric",)
    usage: ClassVar[str] = "views:\n  main:\n    augment:\n      - name: NAME\n        config: {}"
    geometric: ClassVar[bool] = False

    @property
    def zoom(self) -> float:
        """Largest magnification that it may apply in any step: 2 for a crop of half the side. The source keeps that
        resolution.
        """
        return 1.0

    def draw(self, size: tuple[int, int], rng: Rng, at: Moment) -> Draws:
        """All of its randomness for `rng.n` views of `size` (height, width), from `rng` alone.

        Strengths that change over the run are those of `at` (`at.of(schedule)`) and are part of what is drawn: `matrix`
        and `apply` know no step. Views that results are compared on are drawn at the end of the run.

        Noise for every pixel is `rng.deferred_normal` or `rng.deferred_uniform`, so that memory does not grow with the
        number of views.
        """
        raise NotImplementedError

    def matrix(self, params: Params) -> Tensor:
        """[n, 3, 3] float32: view coordinates -> source coordinates, both in [-1, 1] as for torch's `affine_grid`.

        Geometric augmentations only. The matrices of a chain are multiplied in order, the first augmentation
        leftmost, and the image is resampled once, by the product.
        """
        raise NotImplementedError

    def apply(self, views: Tensor, params: Params) -> Tensor:
        """[n, 3, H, W] in [0, 1] -> the same shape, differentiable. Non-geometric augmentations only."""
        raise NotImplementedError
