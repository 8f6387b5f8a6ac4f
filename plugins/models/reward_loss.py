"""Losses of a reward, a score without a probability: linear as published, or saturating."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

RewardLoss = Literal["linear", "saturating"]


def reward_loss(
    reward: Tensor,
    loss: RewardLoss,
    wanted: bool,
    best: float = 0.0,
    worst: Tensor | float = 0.0,
    width: Tensor | float = 1.0,
) -> Tensor:
    """[N] losses of rewards [N].

    Args:
        reward: higher for a better match.
        loss: `linear`: best - reward, with the same gradient everywhere, as reward-based optimisation of noise uses it
            (ReNO, arXiv 2406.04312). `saturating`: softplus(best - reward), which flattens above `best`.
        wanted: False: softplus(reward - worst) with either, since the loss must be bounded below.
        best: reward at which the linear loss is 0 and the saturating one bends.
        worst: reward below which the loss of what is not wanted flattens.
        width: in rewards, of the bend of the softplus.
    """
    if wanted and loss == "linear":
        return best - reward
    gap = best - reward if wanted else reward - worst
    return width * F.softplus(gap / width)
