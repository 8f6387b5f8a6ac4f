"""Pairs by prompt and seed, and means over prompts, against values computed by hand."""

from __future__ import annotations

import pytest

from refcore_bench.statistics.pairing import difference, over_prompts, pairs_of
from refcore_bench.statistics.panel_scores import compared, scores_of

PANEL = {"clip": "c", "blip2": "b"}


def row(prompt, seed, clip, blip2):
    scores = [
        {"referee": label, "identity": identity, "score": score, "panel": True}
        for (label, identity), score in zip(PANEL.items(), (clip, blip2), strict=True)
    ]
    return {"prompt": prompt, "category": "", "split": "own", "seed": seed, "scores": scores}


FIRST = [row("a", 0, 0.2, 0.5), row("a", 1, 0.4, 0.5), row("b", 0, 0.6, 0.9), row("c", 0, 0.5, 0.5)]
SECOND = [row("a", 0, 0.3, 0.6), row("a", 1, 0.3, 0.6), row("b", 0, 0.5, 0.1), row("b", 1, 0.9, 0.9)]


def test_images_that_only_one_of_two_has_are_in_no_pair():
    pairs = pairs_of(SECOND, FIRST)
    assert [(ours["prompt"], ours["seed"], theirs["seed"]) for ours, theirs in pairs] == [
        ("a", 0, 0), ("a", 1, 1), ("b", 0, 0),
    ]  # fmt: skip


def test_a_prompt_counts_once_however_many_seeds_it_has():
    """a: (0.2 + 0.4) / 2 = 0.3; b: 0.6. With two prompts, a resample's mean is 0.3, 0.45 or 0.6: a quarter, a half, a
    quarter of the time, so the interval is from 0.3 to 0.6."""
    found = over_prompts(FIRST[:3], lambda row: row["scores"][0]["score"])
    assert (found.value, found.low, found.high, found.n) == pytest.approx((0.45, 0.3, 0.6, 2))


def test_differences_are_averaged_within_a_prompt_before_prompts_are_resampled():
    """a: (0.1 - 0.1) / 2 = 0; b: -0.1. Mean -0.05, from -0.1 to 0."""
    found = difference(pairs_of(SECOND, FIRST), lambda row: row["scores"][0]["score"])
    assert (found.value, found.low, found.high, found.n) == pytest.approx((-0.05, -0.1, 0.0, 2), abs=1e-12)


def test_the_scores_of_a_panel_are_by_label_whatever_a_variant_calls_the_witness():
    renamed = [{**one, "scores": [{**score, "referee": "panel-x"} for score in one["scores"]]} for one in FIRST]
    assert scores_of(renamed, PANEL) == scores_of(FIRST, PANEL)
    assert scores_of(FIRST, PANEL)["blip2"]["value"] == pytest.approx((0.5 + 0.9 + 0.5) / 3)


def test_every_pair_is_dominated_collapsed_or_disagreed_on():
    """(0.2, 0.5) -> (0.3, 0.6) up by both; (0.4, 0.5) -> (0.3, 0.6) one up, one down; (0.6, 0.9) -> (0.5, 0.1) down."""
    found = compared(pairs_of(SECOND, FIRST), PANEL)
    shares = [found[field]["value"] for field in ("joint_domination", "joint_collapse", "disagreement")]
    assert (found["pairs"], shares) == (3, pytest.approx([1 / 3, 1 / 3, 1 / 3]))
    assert found["scores"]["blip2"]["value"] == pytest.approx((0.1 - 0.8) / 2)


def test_a_tie_with_one_witness_is_disagreement():
    found = compared([(row("a", 0, 0.3, 0.5), row("a", 0, 0.2, 0.5))], PANEL)
    assert [found[field]["value"] for field in ("joint_domination", "joint_collapse", "disagreement")] == [0, 0, 1]
