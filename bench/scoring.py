"""Scores of finished images by referees, outside of any run: every variant is scored in the same way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from refcore.config.panel import Labelled, PanelConfig
from refcore.config.terms import RefereeTerm, Witness
from refcore.contracts.conditioning import Conditioning
from refcore.engine.loading import load_panel
from refcore.engine.models import Models
from refcore.engine.panel import Panel
from refcore.images import Levels
from refcore_bench.scorers import Scorer

CHUNK = 50
"""Images that a referee looks at side by side."""


def scoring_panel(scorers: Sequence[Scorer], prompts: Sequence[str], models: Models | None = None) -> Panel:
    """The scorers as witnesses, loaded (or found in `models`), each image's prompt read.

    Raises:
        RefcoreError: as `refcore.engine.loading.load_panel`.
    """
    witnesses = [Labelled(scorer.label, Witness.model_validate(scorer.term), scorer.label) for scorer in scorers]
    return load_panel(PanelConfig(_samples(prompts), witnesses=witnesses, chunk=CHUNK), models)


def ranking_panel(scorers: Sequence[Scorer], prompts: Sequence[str], models: Models | None = None) -> Panel:
    """The scorers as referees, loaded, each image's prompt read: for `score` and `losses_of`.

    Raises:
        RefcoreError: as `refcore.engine.loading.load_panel`.
    """
    terms = [{name: value for name, value in scorer.term.items() if name != "coarse"} for scorer in scorers]
    referees = [
        Labelled(scorer.label, RefereeTerm.model_validate(term), scorer.label)
        for scorer, term in zip(scorers, terms, strict=True)
    ]
    return load_panel(PanelConfig(_samples(prompts), referees, chunk=CHUNK), models)


def _samples(prompts: Sequence[str]) -> list[tuple[str, int]]:
    return [(prompt, 0) for prompt in prompts]


def score(panel: Panel, images: Tensor) -> dict[str, list[float]]:
    """Label -> score of each image [B, 3, H, W] in [0, 1] for its prompt, in the referee's unit."""
    return {label: values.tolist() for label, values in panel.scores(images.to(panel.device)).items()}


def losses_of(panel: Panel, images: Tensor) -> dict[str, list[float]]:
    """Label -> loss of each image [B, 3, H, W] in [0, 1] for its prompt, seen whole."""
    return {label: values.tolist() for label, values in panel.losses(images.to(panel.device)).items()}


@runtime_checkable
class Classifier(Protocol):
    """A referee that knows a fixed set of classes; a prompt names one of them."""

    def rank(self, images: Tensor, conditioning: Conditioning) -> Tensor:
        """[B] rank of the prompt's class, 1 being the first guess."""

    def guess(self, images: Tensor) -> list[str]:
        """[B] names of the first guesses."""


class Rank(NamedTuple):
    """A classifier's view of an image."""

    rank: int
    """Rank of the prompt's class, 1 being its first guess."""
    first: str
    """Its first guess."""


def ranks(panel: Panel, images: Tensor) -> dict[str, list[Rank]]:
    """Label -> rank and first guess of each scorer that is a `Classifier`, for each image [B, 3, H, W] in [0, 1]."""

    def question(classifier: Classifier, seen: Tensor, conditioning: Conditioning) -> tuple[Tensor, list[str]]:
        return classifier.rank(seen, conditioning), classifier.guess(seen)

    images = images.to(panel.device)
    return {
        judge.label: [
            Rank(int(rank), first)
            for several, firsts in panel.ask(judge, images, question)
            for rank, first in zip(several, firsts, strict=True)
        ]
        for judge in panel.witnesses
        if isinstance(judge.referee, Classifier)
    }


def pixels(levels: Sequence[Levels]) -> Tensor:
    """[B, 3, H, W] in [0, 1], of images as they are saved."""
    return torch.from_numpy(np.stack(levels)).permute(0, 3, 1, 2).float().div(255).contiguous()
