"""The score from which a referee accepts an image, measured on clean renders of true prompts."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch

from refcore.errors import RefcoreError
from refcore_bench.scorers import Scorer
from refcore_bench.scoring import score, scoring_panel
from refcore_bench.task import Accepts, Score
from refcore_playground.draw import CATEGORIES, SPLITS, draw_negative, draw_pair
from refcore_playground.grammar import write
from refcore_playground.render import render_batch

RENDERS = 300
"""Scenes, half of each split, cycling through the categories. The 5 % quantile rests on the lowest 15."""
QUANTILE = 0.05
"""Quantile of the true scores: a referee accepts scores at least as high as all but 5 % of the truth."""


@dataclass(frozen=True)
class Threshold:
    """A referee's threshold, and how well it separates true captions from wrong ones."""

    referee: str
    """Label; the threshold is filed under the referee's identity."""
    threshold: float
    """The `quantile` of the true scores."""
    accepts_true: float
    """Share of true captions that score at least that."""
    accepts_wrong: float
    """Share of captions with one wrong fact that do."""
    renders: int = RENDERS
    quantile: float = QUANTILE

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def measure_thresholds(scorers: Iterable[Scorer], renders: int = RENDERS) -> dict[str, Threshold]:
    """Identity -> threshold of each scorer, on fresh scenes; none was trained on the unseen split."""
    scorers = list({scorer.identity: scorer for scorer in scorers}.values())
    rng = random.Random("calibration")  # this seed drew the scenes of the committed thresholds
    pairs = [
        draw_pair(rng, CATEGORIES[i // len(SPLITS) % len(CATEGORIES)], SPLITS[i % len(SPLITS)]) for i in range(renders)
    ]
    images = torch.from_numpy(render_batch([scene for scene, _ in pairs]))
    true = [write(request) for _, request in pairs]
    wrong = [write(draw_negative(scene, request, rng)[0]) for scene, request in pairs]
    found = {}
    for scorer in scorers:  # one at a time: their labels may be the same
        panel = scoring_panel([scorer], [*true, *wrong])
        (scores,) = score(panel, torch.cat([images, images])).values()
        high, low = np.array(scores[:renders]), np.array(scores[renders:])
        threshold = float(np.quantile(high, QUANTILE))
        found[scorer.identity] = Threshold(
            scorer.label, threshold, float((high >= threshold).mean()), float((low >= threshold).mean()), renders
        )
    return found


def by_threshold(thresholds: Mapping[str, Threshold]) -> Accepts:
    """Accepts a score of at least the referee's threshold.

    Raises:
        RefcoreError: on use, for a referee without a threshold.
    """

    def accepts(score: Score) -> bool:
        if score["identity"] not in thresholds:
            raise RefcoreError(
                f'the referee "{score["referee"]}" has no threshold; the command that made the results measures it'
            )
        return bool(score["score"] >= thresholds[score["identity"]].threshold)

    return accepts
