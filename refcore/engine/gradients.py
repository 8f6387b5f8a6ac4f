"""Gradients on their way to the combiner: summed at the image by its granularity, pulled back, then flat [A, D]."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from refcore.contracts.canvas import CanvasParams
from refcore.engine.angles import Angles
from refcore.engine.combine import Granularity, Rows
from refcore.errors import RefcoreError


@dataclass
class StepGradients:
    """The gradient of one step for the A tracks that take part in it, and what it consists of."""

    combined: CanvasParams
    """Gradient of the whole objective, shaped as the parameters."""
    losses: dict[str, Tensor] = field(default_factory=dict)
    """Label -> [A], unweighted: of referees the mean over the views used, of priors the value where they have one."""
    norms: dict[str, Tensor] = field(default_factory=dict)
    """Label -> [A], norm of the weighted gradient where the term acts: at the image, the latent or the parameters; 0
    where a referee is satisfied."""
    finite: dict[str, Tensor] = field(default_factory=dict)
    """Label -> scalar bool: whether loss and gradient are finite. Not read here, so that no device waits."""
    image: Tensor | None = None
    """[A, 3, H, W] the pictures that were judged, as they were decoded; None where no term acts on them."""
    angles: Angles = field(default_factory=Angles)
    """Between the terms' gradients, where two act in one space."""

    def record(self, label: str, gradient: Tensor, loss: Tensor | None) -> None:
        """Keeps the norm of a term's weighted gradient, its loss, and whether both are finite."""
        norm = gradient.flatten(1).norm(dim=1)
        self.norms[label] = norm
        self.finite[label] = norm.isfinite().all()
        if loss is not None:
            self.losses[label] = loss
            self.finite[label] = self.finite[label] & loss.isfinite().all()


class GradientRows:
    """Rows of gradients, as fine as the combiner needs them, first at the image, then at the parameters."""

    def __init__(self, granularity: Granularity, leaves: CanvasParams) -> None:
        self.granularity = granularity
        self.leaves = leaves
        self.at_image: dict[str, Tensor] = {}
        self.flat: dict[str, Tensor] = {}

    def add_at_image(self, label: str, side: str, gradient: Tensor) -> None:
        """Adds a gradient [A, 3, H, W] of a term of the side "referees" or "priors"."""
        key = self._key(label, side)
        self.at_image[key] = self.at_image[key] + gradient if key in self.at_image else gradient

    def add(self, label: str, side: str, flat: Tensor) -> None:
        """Adds a gradient [A, D] at the parameters."""
        key = self._key(label, side)
        self.flat[key] = self.flat[key] + flat if key in self.flat else flat

    def reduce_at_image(self, reduce: Callable[[Rows], Rows]) -> None:
        """Lets the combiner decide which rows are pulled back; it sees them flat, [A, 3 H W]."""
        shapes = [gradient.shape for gradient in self.at_image.values()]
        reduced = reduce({key: gradient.flatten(1) for key, gradient in self.at_image.items()})
        self.at_image = {key: flat.view(shapes[0]) for key, flat in reduced.items()}

    def pull_back(self, image: Tensor, rescale: bool, refuse: Callable[[str], RefcoreError]) -> None:
        """One backward through the canvas for each row at the image.

        Args:
            image: [A, 3, H, W] with the graph of the canvas.
            rescale: brings each track's gradient to magnitude 1 on the way, which float16 needs; the pull-back is
                linear, so that nothing else changes.
            refuse: the error of a canvas that gives no parameter a gradient.
        """
        waiting = list(self.at_image)
        for key in waiting:
            gradient = self.at_image.pop(key)
            if rescale:
                largest = gradient.flatten(1).abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny)
                gradient = gradient / largest.view(-1, 1, 1, 1)
            pulled = torch.autograd.grad(
                image, list(self.leaves.values()), gradient, retain_graph=key != waiting[-1], allow_unused=True
            )
            if all(part is None for part in pulled):
                raise refuse("found no gradient: the image does not depend on the parameters")
            flat = self.flatten({name: g for name, g in zip(self.leaves, pulled, strict=True) if g is not None})
            self.flat[key] = flat * largest[:, None] if rescale else flat

    def change(self, change: Callable[[CanvasParams], CanvasParams]) -> None:
        """Changes each row at the parameters, shaped as they are."""
        self.flat = {key: self.flatten(change(self.unflatten(row))) for key, row in self.flat.items()}

    def grouped(self, granularity: Granularity, referees: Sequence[str]) -> Rows:
        """Rows of single terms summed as coarsely as a combiner needs them; `referees` has the labels of one side."""
        groups = GradientRows(granularity, self.leaves)
        for label, row in self.flat.items():
            groups.add(label, "referees" if label in referees else "priors", row)
        return groups.flat

    def flatten(self, params: CanvasParams) -> Tensor:
        """[A, D] of tensors by the names of the parameters; missing ones are 0."""
        return torch.cat(
            [
                (params[name].to(leaf.dtype) if name in params else torch.zeros_like(leaf)).flatten(1)
                for name, leaf in self.leaves.items()
            ],
            dim=1,
        )

    def unflatten(self, flat: Tensor) -> CanvasParams:
        """The inverse of `flatten`."""
        split = torch.split(flat, [leaf[0].numel() for leaf in self.leaves.values()], dim=1)
        return {name: part.view_as(leaf) for (name, leaf), part in zip(self.leaves.items(), split, strict=True)}

    def zeros(self) -> Tensor:
        """[A, D] zeros."""
        return self.flatten({})

    def _key(self, label: str, side: str) -> str:
        return {"all": "all", "sides": side, "terms": label}[self.granularity]
