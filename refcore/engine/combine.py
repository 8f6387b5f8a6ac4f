"""Combiners: the gradients of several terms become the one that updates the parameters, track by track."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from torch import Tensor

from refcore.config.combine import NormBalance
from refcore.config.schedule import value_at
from refcore.rng import Key

Granularity = Literal["all", "sides", "terms"]
Rows = Mapping[str, Tensor]
"""Gradients in parameter space, each [A, D]: all canvas tensors of a sample in one row, weights applied."""
VOTES = "<votes>"
"""The row of the referees' summed votes; no label has such a name."""


class Combiner(ABC):
    """Rows in, one gradient out. Samples never meet: row a of the result depends on rows a alone."""

    granularity: Granularity
    """Rows that it needs, each of which costs one pull-back through the canvas. all: one row "all".
    sides: "referees" and "priors". terms: one row a term, by its label (for conflict-aware methods)."""

    def at_image(self, rows: Rows, step: int, keys: Sequence[Key]) -> Rows:
        """Rows that are pulled back through the canvas, [A, 3 H W] each: those of referees and image priors, or fewer.

        Arguments as for `combine`. By default all of them.
        """
        return rows

    @abstractmethod
    def combine(self, rows: Rows, step: int, keys: Sequence[Key]) -> Tensor:
        """[A, D] from the rows of the terms that are active in `step`, at least one.

        Args:
            rows: pulled back to the parameters.
            step: of the run.
            keys: of the A samples, for methods that draw.
        """


class SumGradients(Combiner):
    """Adds."""

    granularity = "all"

    def combine(self, rows: Rows, step: int, keys: Sequence[Key]) -> Tensor:
        """The sum of the rows, [A, D]."""
        return sum_rows(rows)


class NormBalanceGradients(Combiner):
    """`factor * (|g_priors| / |g_referees|) * g_referees + g_priors`, norms per sample.

    From the public code of "Referee Can Play" (arXiv 2402.16305), where the factor is 2 eta_t. Where one side is absent
    in a step, the other passes as it is; where the referees' gradient is exactly 0, it stays 0.
    """

    granularity = "sides"

    def __init__(self, config: NormBalance, steps: int) -> None:
        self.config = config
        self.steps = steps

    def combine(self, rows: Rows, step: int, keys: Sequence[Key]) -> Tensor:
        """[A, D] from "referees" and "priors"."""
        if len(rows) < 2:
            return sum_rows(rows)
        referees, priors = rows["referees"], rows["priors"]
        factor = value_at(self.config.factor, step, self.steps)
        return balanced(referees, priors, factor) + priors


class EqualVotes(Combiner):
    """Another combiner, of referees whose gradients at the image have first got the norms of their weights.

    Equal votes are those of CARINOX (arXiv 2509.17458), which scales the gradient of each reward to one norm.
    """

    granularity = "terms"

    def __init__(self, inner: Combiner, steps: int, votes: Mapping[str, Callable[[int, int], float]]) -> None:
        """
        Args:
            inner: takes "referees" and "priors".
            steps: of the run.
            votes: label -> a referee's weight at a step of a run of so many; all other terms are priors.
        """
        self.inner, self.steps, self.votes = inner, steps, votes

    def at_image(self, rows: Rows, step: int, keys: Sequence[Key]) -> Rows:
        """The votes summed to one row, `VOTES`, and the rows of image priors as they are."""
        own = {label: abs(self.votes[label](step, self.steps)) for label in rows if label in self.votes}
        others = {label: row for label, row in rows.items() if label not in own}
        summed = {VOTES: sum_rows({label: scaled_to(rows[label], vote) for label, vote in own.items()})} if own else {}
        return {**summed, **others}

    def combine(self, rows: Rows, step: int, keys: Sequence[Key]) -> Tensor:
        """[A, D] from `VOTES` and one row a prior."""
        priors = {label: row for label, row in rows.items() if label != VOTES}
        sides = {"referees": rows[VOTES]} if VOTES in rows else {}
        return self.inner.combine({**sides, **({"priors": sum_rows(priors)} if priors else {})}, step, keys)


def scaled_to(gradient: Tensor, length: float) -> Tensor:
    """[A, D] `gradient`, each row scaled to the norm `length`; zero rows stay."""
    norm = gradient.norm(dim=1, keepdim=True)
    scale: Tensor = length / norm.where(norm > 0, 1.0)
    return gradient * scale


def balanced(gradient: Tensor, reference: Tensor, factor: float) -> Tensor:
    """[A, D] `gradient`, each row scaled to `factor` times the norm of the same row of `reference`; zero rows stay."""
    norm = gradient.norm(dim=1, keepdim=True)
    scale: Tensor = factor * reference.norm(dim=1, keepdim=True) / norm.where(norm > 0, 1.0)
    return gradient * scale


def sum_rows(rows: Rows) -> Tensor:
    """The sum of all rows, in their order."""
    first, *others = rows.values()
    for row in others:
        first = first + row
    return first
