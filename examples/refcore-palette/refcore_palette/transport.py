"""Entropic optimal transport of many points to a few, with exact gradients (Cuturi 2013; Cuturi and Peyré 2016)."""

from __future__ import annotations

import torch
from torch import Tensor

STEPS = 300
"""Iterations of the fixed point for the potentials of the few points."""


def transport(cost: Tensor, shares: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """min over plans P of <P, C> + epsilon KL(P | 1/I x shares), and <P, C> alone. Both [N].

    The potentials v of the K points come from Sinkhorn's fixed point, without gradients. The first result is the dual
    at v (eq. 7 of "A Smoothed Dual Approach"), whose derivative in v is 0 there, so autograd through the costs alone
    gives the gradient.

    Args:
        cost: [N, I, K] cost, at least 0, of moving each of I points of mass 1/I to each of K points.
        shares: [N, K] masses of the K points, which sum to 1; 0 where there are fewer.
        epsilon: Weight of the entropy, > 0, in units of the cost.
    """
    log_share = shares.to(cost).log().unsqueeze(1)
    with torch.no_grad():
        v = torch.zeros_like(log_share)
        for _ in range(STEPS):
            plan = torch.softmax(log_share + (v - cost) / epsilon, dim=2)
            mass = plan.mean(1, keepdim=True).clamp(min=1e-30)
            v = torch.where(shares.unsqueeze(1) > 0, v + epsilon * (log_share - mass.log()), v)
        plan = torch.softmax(log_share + (v - cost) / epsilon, dim=2)
    free = torch.logsumexp(log_share + (v - cost) / epsilon, dim=2)
    smooth = (shares.to(cost) * v.squeeze(1)).sum(1) - epsilon * free.mean(1)
    return smooth, (plan * cost).sum(2).mean(1)
