"""The prompts of the playground task: their seeds, splits, categories and order."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from refcore.errors import RefcoreError, unknown
from refcore_bench.task import TaskPrompt
from refcore_playground.draw import CATEGORIES, SPLITS, categorise, draw_prompts

TUNING_SEED = 1
"""Seed of the prompts on which settings may be chosen; the default."""
BLIND_TUNING_SEED = 21
"""Seed of the prompts on which settings of the blind task may be chosen; the default there."""
REPORTING_SEED = 2031
"""Seed of the prompts for reported numbers. Nothing is ever chosen on them, so they are never the default.

A generation of checkpoints and presets is reported once; the next one takes a new seed (spent: 2026 to 2028 and 2030;
studies/claims.py has 2029 and 2035)."""
BLIND_REPORTING_SEED = 2034
"""The same for the blind task (spent: 2032)."""
BOTH = "both"


def draw(count: int, seed: int, split: str = BOTH, categories: Sequence[str] = ()) -> list[TaskPrompt]:
    """`count` prompts, alternating between the splits and cycling through the categories (all by default).

    A prompt of the split unseen names a combination that is held out of all training.

    A larger set begins with every smaller one of the same seed and categories, and the set of one category is a subset
    of the full set: a run can be extended later without making an image twice.

    Raises:
        RefcoreError: an unknown split or category, or a count below 1.

    >>> [(a.category, a.split) for a in draw(3, TUNING_SEED)]
    [('colour', 'seen'), ('colour', 'unseen'), ('shape', 'seen')]
    """
    if split not in (*SPLITS, BOTH):
        raise unknown("split", split, (*SPLITS, BOTH), "--split")
    for category in categories:
        if category not in CATEGORIES:
            raise unknown("category", category, CATEGORIES, "--category")
    if count < 1:
        raise RefcoreError(f"--count is {count}; expected at least 1 prompt")
    splits = SPLITS if split == BOTH else (split,)
    shares = [count // len(splits) + (i < count % len(splits)) for i in range(len(splits))]
    sets = [_draw_split(share, seed, name, categories) for share, name in zip(shares, splits, strict=True)]
    return [one for turn in zip_longest(*sets) for one in turn if one is not None]


def _draw_split(count: int, seed: int, split: str, categories: Sequence[str]) -> list[TaskPrompt]:
    places: list[int] = []
    n = 0
    while len(places) < count:
        if not categories or categorise(n) in categories:
            places.append(n)
        n += 1
    drawn = draw_prompts(n, seed, split=split)
    return [TaskPrompt(drawn[place], categorise(place), split) for place in places]
