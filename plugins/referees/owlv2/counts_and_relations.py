"""Probabilities of counts and spatial relations, from independent detections."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from refcore_plugins.models.log_complement import IMPOSSIBLE

DIRECTIONS: tuple[str, ...] = ("left of", "right of", "above", "below")
"""Relations defined by the places of two things; y grows downwards."""


def log_count(logits: Tensor, most: int, more: bool = False) -> Tensor:
    """Distribution of the number of true detections among independent ones: the Poisson binomial distribution.

    Args:
        logits: [..., P] logits of the detections.
        most: Largest count of the result, at least 1.
        more: Whether the probability of more is computed, too.

    Returns:
        [..., most + 1] log-probabilities of 0, 1, ... `most` true detections; the rest to 1 is that of more, which
        follows as one further entry where asked for.
    """
    none, one = F.logsigmoid(-logits), F.logsigmoid(logits)
    rest = torch.full_like(none, IMPOSSIBLE)
    top = most + more
    counts = torch.stack([none, one, *[rest] * (top - 1)], -1)
    while (n := counts.shape[-2]) > 1:  # the counts of two halves add: a convolution, in the log domain
        half, odd = counts[..., : n // 2, :], counts[..., 2 * (n // 2) :, :]
        other = counts[..., n // 2 : 2 * (n // 2), :]
        pairs = [[(i, k - i) for i in range(k + 1)] for k in range(top + 1)]
        if more:  # the last entry takes all that is beyond it
            pairs[top] += [(i, j) for i in range(top + 1) for j in range(top + 1) if i + j > top]
        sums = [torch.stack([half[..., i] + other[..., j] for i, j in terms]).logsumexp(0) for terms in pairs]
        counts = torch.cat([torch.stack(sums, -1), odd], -2)
    return counts[..., 0, :]


def log_number(logits: Tensor, wanted: Tensor) -> Tensor:
    """Log-probability of the wanted number of true detections.

    Args:
        logits: [..., P] logits of the detections.
        wanted: [..., K] bool, true at index k - 1 for exactly k, nowhere true for at least one. K, not the values,
            limits the counting, so that nothing waits for a device.

    Returns:
        [...] log-probabilities.
    """
    counts = log_count(logits, wanted.shape[-1])
    exactly = counts[..., 1:].masked_fill(~wanted, IMPOSSIBLE).logsumexp(-1)
    # log(1 - P(none)); to first order where P(none) rounds to 1, so that a thing which is nowhere still has a gradient.
    rare = logits.logsumexp(-1)
    some = torch.where(rare < -15, rare, torch.log(-torch.expm1(counts[..., 0].clamp(max=-1e-7))))
    return torch.where(wanted.any(-1), exactly, some)


def log_other_number(logits: Tensor, wanted: Tensor) -> Tensor:
    """log(1 - p) for the p of `log_number`, exact where p rounds to 1: that of all the other counts together."""
    counts = log_count(logits, wanted.shape[-1], more=True)
    others = torch.cat([torch.ones_like(wanted[..., :1]), ~wanted, torch.ones_like(wanted[..., :1])], -1)
    apart = counts.masked_fill(~others, IMPOSSIBLE).logsumexp(-1)
    return torch.where(wanted.any(-1), apart, counts[..., 0])


def numbers(counts: Sequence[int]) -> Tensor:
    """`wanted` of `log_number` for N counts, [N, K]; 0 stands for at least one. K is the largest count, at least 1."""
    return F.one_hot(torch.tensor(counts), max(*counts, 1) + 1)[:, 1:].bool()


def centre(logits: Tensor, places: Tensor) -> Tensor:
    """Expected place [..., 2] of a thing, from logits [..., P] of detections at `places` [..., P, 2]."""
    return (logits.softmax(-1).unsqueeze(-1) * places).sum(-2)


def log_direction(subject: Tensor, other: Tensor, softness: float) -> Tensor:
    """Log-probabilities [..., 4] of `DIRECTIONS` for places [..., 2] (x, y): the axis of the larger offset decides.

    A softmax of the offsets along the four directions, in units of `softness`. Its largest entry is the relation as
    spatial benchmarks define it (T2I-CompBench, arXiv 2307.06350, section 4.2).
    """
    dx, dy = (subject - other).unbind(-1)
    return (torch.stack([-dx, dx, -dy, dy], -1) / softness).log_softmax(-1)
