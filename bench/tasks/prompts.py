"""The prompts of the playground: which seed draws them, for which split and category, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from refcore.errors import RefcoreError, unknown
from refcore_bench.task import Asked
from refcore_playground.draw import CATEGORIES, SPLITS, categorise, draw_prompts

TUNING_SEED = 1
"""Draws the prompts that settings may be chosen on; the default."""
REPORTING_SEED = 2031
"""Draws the prompts that reported numbers are of. Nothing is ever chosen on them, so they have to be asked for.

A generation of checkpoints and presets is reported once; the next one takes a new seed (spent: 2026 to 2028, 2030;
2029 is that of studies/claims.py)."""
BOTH = "both"


def draw(count: int, seed: int, split: str = BOTH, categories: Sequence[str] = ()) -> list[Asked]:
    """`count` prompts, in turn of each split that is asked for, going round the categories (all, if none is named).

    The split is seen, or unseen: the prompt names a combination that is held out of all training.

    A larger set begins with every smaller one of the same seed and categories, and the set of one category is the part
    of the full set that has it: more can be asked for later, and what was made before still counts.

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
    return [asked for turn in zip_longest(*sets) for asked in turn if asked is not None]


def _draw_split(count: int, seed: int, split: str, categories: Sequence[str]) -> list[Asked]:
    places: list[int] = []
    n = 0
    while len(places) < count:
        if not categories or categorise(n) in categories:
            places.append(n)
        n += 1
    drawn = draw_prompts(n, seed, split=split)
    return [Asked(drawn[place], categorise(place), split) for place in places]
