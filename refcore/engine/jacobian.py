"""Conflict-aware combiners: torchjd's aggregators, applied to the rows of one sample at a time."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from refcore.config.combine import Cagrad, ConflictAware, NashMtl
from refcore.config.schedule import value_at
from refcore.engine.combine import Combiner, Rows, balanced, sum_rows
from refcore.errors import RefcoreError
from refcore.rng import Key, keyed_generator

AT_IMAGE = "<combined at the image>"
"""The row into which `at: image` has combined others."""
Weights = Callable[[Tensor, Key, int], Tensor]
"""(gramian [T, T] of trace 1, the sample's key, step) -> the weight of each row, [T]; float64 on the CPU.

Every method's weights are the same for rows of any common scale; torchjd takes what is below 1e-4 for 0.
"""
RELATIVE_ZERO = 1e-8
"""CAGrad: shorter combinations, relative to all rows, are a Pareto front; one weak term may be below torchjd's 1e-4."""

FAINT = 1e-7
"""CAGrad: rows shorter than this share of the longest are left out, since the solver takes them for a Pareto front."""
ON_A_LINE = 1e-12
"""Distance of a cosine from 1 or -1 up to which two rows are parallel."""


class JacobianCombiner(Combiner):
    """Weights each sample's rows by one of torchjd's aggregators, which sees their inner products.

    Rows that are exactly 0 (a satisfied referee, a term without gradient) are left out for the sample: to MGDA, for
    one, such a row would be the best compromise of all. A row that is then alone passes as it is. What the methods do
    with the scale of the rows is their own: MGDA, UPGrad and IMTL-G give means of rows, PCGrad, CAGrad and Nash-MTL may
    give more.

    Raises:
        RefcoreError: torchjd, or the solver that the method needs, is not installed.
    """

    granularity = "terms"

    def __init__(self, config: ConflictAware, steps: int, priors: Sequence[str]) -> None:
        """`priors`: labels of the priors, whose rows differ from those of referees."""
        self.config = config
        self.steps = steps
        self.priors = frozenset(priors)
        self._weights = weights(config)

    def at_image(self, rows: Rows, step: int, keys: Sequence[Key]) -> Rows:
        """With `at: image`, one row for all, or (with a `factor`) for the referees; otherwise the rows as they are."""
        if self.config.at != "image":
            return rows
        referees, priors = self._sides(rows)
        if self.config.factor is None:
            return {AT_IMAGE: self.aggregate(rows, step, keys)}
        return {AT_IMAGE: self.aggregate(referees, step, keys), **priors} if referees else priors

    def combine(self, rows: Rows, step: int, keys: Sequence[Key]) -> Tensor:
        """[A, D] from one row a term."""
        factor, at_image = self.config.factor, self.config.at == "image"
        if factor is None:
            return sum_rows(rows) if at_image else self.aggregate(rows, step, keys)
        referees, priors = self._sides(rows)
        if not referees:
            return sum_rows(priors)
        gradient = sum_rows(referees) if at_image else self.aggregate(referees, step, keys)
        if not priors:
            return gradient
        reference = sum_rows(priors)
        return balanced(gradient, reference, value_at(factor, step, self.steps)) + reference

    def aggregate(self, rows: Rows, step: int, keys: Sequence[Key]) -> Tensor:
        """[A, D] of rows [A, D], each sample by its own inner products."""
        gradients = list(rows.values())
        gramians = gramian(gradients)
        found = torch.zeros(gramians.shape[:2], dtype=torch.float64)
        for a, (products, key) in enumerate(zip(gramians, keys, strict=True)):
            live = products.diagonal().nonzero().flatten()
            if len(live) and products.isfinite().all():  # what is not finite is refused after the step, by its name
                found[a, live] = self._weights_of(products[live][:, live], key, step)
        weight = found.to(gradients[0])
        return sum_rows({label: weight[:, t : t + 1] * row for t, (label, row) in enumerate(rows.items())})

    def _weights_of(self, products: Tensor, key: Key, step: int) -> Tensor:
        """The weights of one sample's rows, none of which is 0, by their inner products.

        A single row passes as it is. Rows along one line that point both ways have weight 0: every step makes one term
        worse. The solvers have no answer to either, or one that depends on rounding.
        """
        if len(products) == 1:
            return torch.ones(1, dtype=products.dtype)
        lengths = products.diagonal().sqrt()
        angles = products / lengths[:, None] / lengths
        if (angles.abs() > 1 - ON_A_LINE).all() and (angles < 0).any():
            return torch.zeros(len(products), dtype=products.dtype)
        weight = torch.zeros(len(products), dtype=products.dtype)
        told = (lengths > FAINT * lengths.max()).nonzero().flatten() if self.config.name == "cagrad" else slice(None)
        own = products[told][:, told]
        weight[told] = self._weights(own / own.trace(), key, step) if len(own) > 1 else 1.0
        return weight

    def _sides(self, rows: Rows) -> tuple[Rows, Rows]:
        priors = {label: row for label, row in rows.items() if label in self.priors}
        return {label: row for label, row in rows.items() if label not in priors}, priors


def gramian(rows: Sequence[Tensor]) -> Tensor:
    """The inner products of T rows [A, D] with each other, sample by sample: [A, T, T], float64, on the CPU."""
    exact = torch.float32 if rows[0].device.type == "mps" else torch.float64
    products = torch.stack([torch.stack([(r.to(exact) * s.to(exact)).sum(1) for s in rows], 1) for r in rows], 1)
    return products.cpu().double()


def weights(config: ConflictAware) -> Weights:
    """The method of a config, as weights of rows.

    Raises:
        RefcoreError: torchjd or its solver is missing.
    """
    try:
        import torchjd.aggregation as jd

        if isinstance(config, NashMtl):
            jd.NashMTL(2)  # only to learn now, not in the first step, that its solver is there
            iterations = config.iterations
            return lambda products, key, step: _nash(jd, iterations, products)
        aggregators: dict[str, Callable[[], Any]] = {
            "pcgrad": jd.PCGrad,
            "mgda": jd.MGDA,
            "upgrad": jd.UPGrad,
            "imtl_g": jd.IMTLG,
            "cagrad": lambda: jd.CAGrad(config.c if isinstance(config, Cagrad) else 0.0, RELATIVE_ZERO),
        }
        weighting = aggregators[config.name]().gramian_weighting
    except ImportError as error:
        raise RefcoreError(
            f"combine is {config.name}, which needs torchjd and its solvers ({error}): "
            "pip install 'refcore[jacobian]', or use sum or norm_balance"
        ) from error
    if config.name != "pcgrad":
        return lambda products, key, step: weighting(products)

    def in_drawn_order(products: Tensor, key: Key, step: int) -> Tensor:
        """PCGrad draws the order of its projections from torch's global generator: here from the sample's key."""
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(keyed_generator(key, step, "combine").get_state())
            weight: Tensor = weighting(products)
            return weight

    return in_drawn_order


def _nash(jd: Any, iterations: int, products: Tensor) -> Tensor:
    """From unit rows whose inner products have Frobenius norm 1; the weights are then those of the rows as they are.

    The bargain G a = 1 / a is the same for rows of any lengths, each weight being shorter by its row's length;
    torchjd's solver (after the official code) is faithful to it at this scale alone. A new aggregator each time, since
    it remembers the weights of the matrix before.
    """
    lengths = products.diagonal().sqrt()
    angles = products / lengths[:, None] / lengths
    scale = angles.norm()
    values, vectors = torch.linalg.eigh(angles / scale)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # cvxpy's, on a slow form of the problem and on accuracy
        aggregator = jd.NashMTL(len(products), max_norm=0.0, optim_niter=iterations)
        solved: Tensor = aggregator.weighting(vectors * values.clamp_min(0).sqrt())
    weight: Tensor = solved / lengths * (products.norm() / scale).sqrt()
    return weight
