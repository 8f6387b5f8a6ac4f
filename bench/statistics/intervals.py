"""Rates, means and differences with 95 % confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 1999
SEED = 0
"""Random seed of the bootstrap; fixed, so that tables are reproducible."""

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Estimate:
    """A number with its confidence interval; NaN without data."""

    value: float
    low: float
    high: float
    n: int
    """Number of images or pairs."""

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


NOTHING = Estimate(math.nan, math.nan, math.nan, 0)


def rate(outcomes: Sequence[bool]) -> Estimate:
    """A share of images with its Wilson score interval (Wilson 1927).

    >>> rate([True] * 8 + [False] * 2)
    Estimate(value=0.8, low=0.490..., high=0.943..., n=10)
    """
    n, k = len(outcomes), int(sum(outcomes))
    if not n:
        return NOTHING
    interval = stats.binomtest(k, n).proportion_ci(CONFIDENCE, method="wilson")
    return Estimate(k / n, float(interval.low), float(interval.high), n)


def ratio(parts: Sequence[float], wholes: Sequence[float]) -> Estimate:
    """sum(parts) / sum(wholes), such as facts found per fact asked for; percentile bootstrap over the images.

    The facts of an image are correlated: an interval that treats each as an independent trial would be too narrow.
    """
    a, b = np.asarray(parts, float), np.asarray(wholes, float)
    if not len(a):
        return NOTHING
    low, high = _bootstrap((a, b), lambda a, b, axis=-1: a.sum(axis) / b.sum(axis))
    return Estimate(float(a.sum() / b.sum()), low, high, len(a))


def mean(values: Sequence[float]) -> Estimate:
    """A mean with its percentile bootstrap interval (Efron 1979); paired bootstrap on differences within pairs."""
    x = np.asarray(values, float)
    if not len(x):
        return NOTHING
    low, high = _bootstrap((x,), lambda x, axis=-1: x.mean(axis))
    return Estimate(float(x.mean()), low, high, len(x))


def mean_of_means(groups: Sequence[Sequence[float]]) -> Estimate:
    """The mean of the groups' means, with the percentile bootstrap interval of values resampled within each group.

    >>> mean_of_means([[1.0, 1.0, 1.0], [0.0]]).value
    0.5
    """
    own = [np.asarray(group, float) for group in groups if len(group)]
    if not own:
        return NOTHING
    value, n = float(np.mean([group.mean() for group in own])), sum(map(len, own))
    if n == len(own):
        return Estimate(value, math.nan, math.nan, n)
    rng = np.random.default_rng(SEED)
    means = np.mean([group[rng.integers(0, len(group), (RESAMPLES, len(group)))].mean(1) for group in own], axis=0)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(value, float(low), float(high), n)


def difference_of_rates(first: Estimate, second: Estimate) -> Estimate:
    """first - second, two rates over different images, with Newcombe's interval from their Wilson intervals.

    Newcombe, "Interval estimation for the difference between independent proportions" (1998), method 10.

    >>> found = difference_of_rates(rate([True] * 56 + [False] * 14), rate([True] * 48 + [False] * 32))
    >>> round(found.value, 4), round(found.low, 4), round(found.high, 4)
    (0.2, 0.0524, 0.3339)
    """
    if not (first.n and second.n):
        return NOTHING
    value = first.value - second.value
    low = value - math.hypot(first.value - first.low, second.high - second.value)
    high = value + math.hypot(first.high - first.value, second.value - second.low)
    return Estimate(value, low, high, first.n + second.n)


def _bootstrap(data: tuple[Array, ...], statistic: Callable[..., Array]) -> tuple[float, float]:
    """Percentile bootstrap interval; NaN for a single image, which says nothing about variation."""
    if len(data[0]) < 2:
        return math.nan, math.nan
    found = stats.bootstrap(
        data,
        statistic,
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    return float(found.low), float(found.high)
