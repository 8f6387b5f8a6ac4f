"""Batches whose images are clean renders: the plumbing without any network."""

from __future__ import annotations

import random

import pytest

from refcore_bench import making, running
from refcore_bench.evaluations import KINDS
from refcore_bench.tasks import playground
from refcore_bench.thresholds import Threshold
from refcore_playground.draw import draw_scene
from refcore_playground.grammar import parse
from refcore_playground.render import render_levels

EVALUATIONS = dict.fromkeys(KINDS, 1.0)


def rendered(variant, prompts, seed, budget=None):
    """A stand-in for `making.make`: clean renders of the prompts, and scores of 0.5."""
    scenes = [draw_scene(parse(prompt), random.Random(f"{seed}/{prompt}")) for prompt in prompts]
    scores = {scorer.label: [0.5] * len(prompts) for scorer in variant.scorers}
    return making.Made([render_levels(scene) for scene in scenes], scores, 2, 0.5, 0.1, dict(EVALUATIONS))


@pytest.fixture
def renders(monkeypatch):
    """Every batch is rendered, every referee's threshold is 0.4; the list of (variant, prompts, seed) made."""
    made = []

    def make(variant, prompts, seed, budget=None, models=None):
        made.append((variant.name, list(prompts), seed))
        return rendered(variant, prompts, seed, budget)

    monkeypatch.setattr(running.making, "make", make)
    monkeypatch.setattr(running.making, "cost", lambda settings: 100.0)
    monkeypatch.setattr(
        playground,
        "measure_thresholds",
        lambda scorers: {s.identity: Threshold(s.label, 0.4, 0.95, 0.3) for s in scorers},
    )
    return made
