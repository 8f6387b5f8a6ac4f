"""Images paired by prompt and seed, and means in which a prompt counts once, however many seeds it has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from refcore_bench.statistics.intervals import Estimate, mean
from refcore_bench.task import Row

Pair = tuple[Row, Row]
"""Two images of one prompt and seed: a variant's, and that of the variant it is compared with."""


def prompt_of(row: Row) -> tuple[Any, ...]:
    """What tells a row's prompt from others."""
    return row["split"], row["category"], row["prompt"]


def image_of(row: Row) -> tuple[Any, ...]:
    """What two rows of a pair have in common."""
    return *prompt_of(row), row["seed"]


def pairs_of(rows: Sequence[Row], baseline: Sequence[Row]) -> list[Pair]:
    """The images that both have."""
    theirs = {image_of(row): row for row in baseline}
    return [(row, theirs[image_of(row)]) for row in rows if image_of(row) in theirs]


def difference(pairs: Sequence[Pair], value: Callable[[Row], float]) -> Estimate:
    """Mean difference within pairs; see `over_prompts`."""
    return _mean([(ours, float(value(ours)) - float(value(theirs))) for ours, theirs in pairs])


def over_prompts(rows: Sequence[Row], value: Callable[[Row], float]) -> Estimate:
    """Mean over prompts. The images of a prompt are averaged first, since prompts are resampled for the interval.

    >>> rows = [{"split": "", "category": "", "prompt": prompt, "x": x} for prompt, x in (("a", 1), ("a", 3), ("b", 8))]
    >>> over_prompts(rows, lambda row: row["x"]).value
    5.0
    """
    return _mean([(row, float(value(row))) for row in rows])


def prompt_means(rows: Sequence[Row], value: Callable[[Row], float]) -> list[float]:
    """The mean over the images of each prompt."""
    return _by_prompt([(row, float(value(row))) for row in rows])


def _mean(values: Sequence[tuple[Row, float]]) -> Estimate:
    return mean(_by_prompt(values))


def _by_prompt(values: Sequence[tuple[Row, float]]) -> list[float]:
    by_prompt: dict[tuple[Any, ...], list[float]] = {}
    for row, value in values:
        by_prompt.setdefault(prompt_of(row), []).append(value)
    return [float(np.mean(own)) for own in by_prompt.values()]
