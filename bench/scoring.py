"""What referees say of finished images: outside of any run, so that every variant is scored in the same way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from refcore.config.run import RunConfig
from refcore.contracts.conditioning import Conditioning
from refcore.engine.build import build
from refcore.engine.step import Engine
from refcore.images import Levels
from refcore_bench.scorers import Scorer

CHUNK = 50
"""Images that a referee looks at side by side."""


def scoring_engine(scorers: Sequence[Scorer], prompts: Sequence[str]) -> Engine:
    """The scorers, loaded, having read one prompt an image. It optimises nothing: `tv` stands where a term must be.

    Raises:
        RefcoreError: as `refcore.engine.build.build`.
    """
    nothing = {"name": "tv", "label": "nothing optimised"}
    return _engine(prompts, priors=[nothing], witnesses=[scorer.term for scorer in scorers])


def score(engine: Engine, images: Tensor) -> dict[str, list[float]]:
    """Label -> the score of each image [B, 3, H, W] in [0, 1] for its prompt, in the referee's unit."""
    return {label: values.tolist() for label, values in engine.scores(images.to(engine.device)).items()}


@runtime_checkable
class Classifier(Protocol):
    """A referee that knows a fixed set of classes, one of which the prompt names."""

    def rank(self, images: Tensor, conditioning: Conditioning) -> Tensor:
        """[B] rank of the class asked for, 1 being the first guess."""

    def guess(self, images: Tensor) -> list[str]:
        """[B] names of the first guesses."""


class Rank(NamedTuple):
    """What a classifier sees."""

    rank: int
    """Of the class asked for, 1 being its first guess."""
    first: str
    """Its first guess."""


def ranks(engine: Engine, images: Tensor) -> dict[str, list[Rank]]:
    """Label -> what each scorer that is a `Classifier` sees in each image [B, 3, H, W] in [0, 1]."""
    images = images.to(engine.device)
    return {
        use.label: [
            Rank(int(rank), first)
            for several, firsts in engine.ask(use, images, lambda r, seen, read: (r.rank(seen, read), r.guess(seen)))
            for rank, first in zip(several, firsts, strict=True)
        ]
        for use in engine.witnesses
        if isinstance(use.referee, Classifier)
    }


def ranking_engine(scorers: Sequence[Scorer], prompts: Sequence[str]) -> Engine:
    """The scorers as referees, loaded, having read one prompt an image: for `score` and `losses_of`.

    Raises:
        RefcoreError: as `refcore.engine.build.build`.
    """
    terms = [{name: value for name, value in scorer.term.items() if name != "coarse"} for scorer in scorers]
    return _engine(prompts, referees=terms)


def _engine(prompts: Sequence[str], **terms: list[dict[str, Any]]) -> Engine:
    return build(
        RunConfig.from_settings({"canvas": {"name": "pixel"}, "prompts": list(prompts), "chunk": CHUNK, **terms})
    )


def losses_of(engine: Engine, images: Tensor) -> dict[str, list[float]]:
    """Label -> the loss of each image [B, 3, H, W] in [0, 1] for its prompt, seen whole."""
    found = engine.losses(images.to(engine.device), range(len(images)))
    return {label: values.tolist() for label, values in found.items()}


def pixels(levels: Sequence[Levels]) -> Tensor:
    """[B, 3, H, W] in [0, 1], of images as they are saved."""
    return torch.from_numpy(np.stack(levels)).permute(0, 3, 1, 2).float().div(255).contiguous()
