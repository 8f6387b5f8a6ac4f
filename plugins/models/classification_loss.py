"""A prompt's target over a classifier's classes, and the loss and probability of that target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from refcore_plugins.models.log_complement import IMPOSSIBLE

ClassLoss = Literal["logit", "cross_entropy"]


def class_targets(weights: Sequence[Mapping[int, float]], classes: int) -> Tensor:
    """[P, C] float32 targets from each prompt's weights by class index."""
    targets = torch.zeros(len(weights), classes)
    for prompt_index, of_prompt in enumerate(weights):
        for class_index, weight in of_prompt.items():
            targets[prompt_index, class_index] = weight
    return targets


def class_loss(logits: Tensor, target: Tensor, loss: ClassLoss, wanted: bool) -> Tensor:
    """[N] losses of logits [N, C] against targets [N, C], each of which sums to 1.

    Wanted: the negated weighted sum of the logits, or the cross-entropy. Not wanted: -log(1 - p) for either loss, with
    p as `class_probability`. From the logits, so that its gradient stays where the classifier is certain.
    """
    if not wanted:
        share = target / target.amax(1, keepdim=True)
        others = torch.log1p(-share).clamp(min=IMPOSSIBLE)  # log of the part of each class that does not count
        return logits.logsumexp(1) - (logits + others).logsumexp(1)
    if loss == "logit":
        return -(target * logits).sum(1)
    return -(target * logits.log_softmax(1)).sum(1)


def class_probability(logits: Tensor, target: Tensor) -> Tensor:
    """[N] sums of the target classes' softmax probabilities, each times its weight relative to the largest weight."""
    return (logits.softmax(1) * target / target.amax(1, keepdim=True)).sum(1)
