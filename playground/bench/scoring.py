"""What referees say of finished images: outside of any run, so that every variant is scored in the same way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from refcore.build import build
from refcore.config import RunConfig
from refcore.engine import Engine
from refcore.images import Levels
from refcore_playground.bench.variants import Scorer

CHUNK = 50
"""Images that a referee looks at side by side."""


def scoring_engine(scorers: Sequence[Scorer], prompts: Sequence[str]) -> Engine:
    """The scorers, loaded, having read one prompt an image. It optimises nothing: `tv` stands where a term must be.

    Raises:
        RefcoreError: as `refcore.build.build`.
    """
    nothing = {"name": "tv", "label": "nothing optimised"}
    return _engine(prompts, priors=[nothing], witnesses=[scorer.term for scorer in scorers])


def score(engine: Engine, images: Tensor) -> dict[str, list[float]]:
    """Label -> the score of each image [B, 3, H, W] in [0, 1] for its prompt, in the referee's unit."""
    return {label: values.tolist() for label, values in engine.scores(images.to(engine.device)).items()}


def ranking_engine(scorers: Sequence[Scorer], prompts: Sequence[str]) -> Engine:
    """The scorers as referees, loaded, having read one prompt an image: for `score` and `losses_of`.

    Raises:
        RefcoreError: as `refcore.build.build`.
    """
    terms = [{name: value for name, value in scorer.term.items() if name != "coarse"} for scorer in scorers]
    return _engine(prompts, referees=terms)


def _engine(prompts: Sequence[str], **terms: list[dict[str, Any]]) -> Engine:
    return build(RunConfig.parse({"canvas": {"name": "pixel"}, "prompts": list(prompts), "chunk": CHUNK, **terms}))


def losses_of(engine: Engine, images: Tensor) -> dict[str, list[float]]:
    """Label -> the loss of each image [B, 3, H, W] in [0, 1] for its prompt, seen whole."""
    found = engine.losses(images.to(engine.device), range(len(images)))
    return {label: values.tolist() for label, values in found.items()}


def pixels(levels: Sequence[Levels]) -> Tensor:
    """[B, 3, H, W] in [0, 1], of images as they are saved."""
    return torch.from_numpy(np.stack(levels)).permute(0, 3, 1, 2).float().div(255).contiguous()
