"""What a classifier's logits say of the classes that are asked for: the loss of either question, and a probability."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

ClassLoss = Literal["logit", "cross_entropy"]


def class_loss(logits: Tensor, target: Tensor, loss: ClassLoss, wanted: bool) -> Tensor:
    """[N] losses of logits [N, C] against targets [N, C], whose rows sum to 1.

    Wanted: the negated weighted sum of the logits, or the cross-entropy. Not wanted: -log(1 - p), whichever the loss.
    """
    if not wanted:
        return -torch.log1p(-class_probability(logits, target).clamp(max=1.0 - 1e-6))
    if loss == "logit":
        return -(target * logits).sum(1)
    return -(target * logits.log_softmax(1)).sum(1)


def class_probability(logits: Tensor, target: Tensor) -> Tensor:
    """[N]: the softmax probabilities of the classes asked for, each times its weight relative to the largest."""
    return (logits.softmax(1) * target / target.amax(1, keepdim=True)).sum(1)
