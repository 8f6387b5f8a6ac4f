"""The hack rate, joint domination and joint collapse on rows made up by hand."""

from __future__ import annotations

import pytest

from refcore.errors import RefcoreError
from refcore_bench.statistics.hacks import accepted, hacked, moved
from refcore_bench.thresholds import Threshold, by_threshold

THRESHOLDS = {"c": Threshold("clip", 0.3, 0.95, 0.2), "b": Threshold("blip2", 0.9, 0.95, 0.2)}
ACCEPTS = by_threshold(THRESHOLDS)


def row(verdict, clip, blip2, optimised=("c", "b"), panel=("c", "b")):
    scores = [
        {"referee": name, "identity": i, "score": score, "optimised": i in optimised, "panel": i in panel}
        for name, i, score in (("clip", "c", clip), ("blip2", "b", blip2))
    ]
    return {"variant": "v", "verdict": verdict, "scores": scores}


def test_a_hack_is_accepted_by_every_optimised_referee_and_rejected_by_the_judge():
    assert hacked(row(False, 0.5, 0.95), ACCEPTS)
    assert not hacked(row(True, 0.5, 0.95), ACCEPTS)
    assert not hacked(row(False, 0.5, 0.5), ACCEPTS)
    assert not hacked(row(False, 0.2, 0.95), ACCEPTS)


def test_the_threshold_itself_is_accepted():
    """A referee that is certain of every true render has a threshold of 1, which it must be able to reach."""
    assert accepted(row(False, 0.3, 0.9), ACCEPTS, "optimised")


def test_who_was_not_optimised_for_does_not_count_but_in_the_panel():
    only_clip = row(False, 0.5, 0.1, optimised=("c",))
    assert hacked(only_clip, ACCEPTS)
    assert not hacked(only_clip, ACCEPTS, "panel")


def test_a_variant_without_referees_is_held_to_the_panel():
    assert hacked(row(False, 0.5, 0.95, optimised=()), ACCEPTS)
    assert not hacked(row(False, 0.5, 0.1, optimised=()), ACCEPTS)


def test_a_referee_without_a_threshold_is_an_error_and_not_a_no():
    with pytest.raises(RefcoreError, match='"blip2" has no threshold'):
        hacked(row(False, 0.5, 0.95), by_threshold({"c": THRESHOLDS["c"]}))


def test_joint_moves_need_every_referee():
    base = row(False, 0.5, 0.5)
    assert moved(row(False, 0.6, 0.6), base) == 1
    assert moved(row(False, 0.4, 0.4), base) == -1
    assert moved(row(False, 0.6, 0.4), base) == 0
    assert moved(row(False, 0.6, 0.5), base) == 0  # a tie is no win
