"""Comparison of a sample's candidates: by all referees together, with no single one deciding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

LIMIT = 2.0
"""Largest vote of one referee for or against a candidate, in its own standard deviations."""


def spread(losses: Tensor) -> Tensor:
    """The scale of each referee: the standard deviation of its losses [T, N] over the N candidates of a sample, [T]."""
    return losses.std(1, correction=0) if losses.shape[1] else losses.new_zeros(len(losses))


def consensus(losses: Tensor, scale: Tensor) -> Tensor:
    """[N]: the mean over referees of how far each candidate lies above their mean, standardised; lower is better.

    Every referee counts the same, whatever the unit and size of its loss, and at most `LIMIT` standard deviations. One
    that has not judged every candidate yet (NaN), or that sees no difference (scale 0), does not count.

    Args:
        losses: [T, N] of T referees for N candidates; lower is better.
        scale: [T], by `spread`; that of all candidates at first, so that a difference between the last two keeps its
            size and two referees that disagree about them do not cancel.

    >>> consensus(torch.tensor([[0.0, 1.0], [0.0, 300.0]]), torch.tensor([0.5, 600.0]))
    tensor([-0.6250,  0.6250])
    """
    counts = losses.isfinite().all(1) & (scale > 0)
    above = losses - losses.mean(1, keepdim=True)
    standard = (above / scale.where(counts, 1.0)[:, None]).clamp(-LIMIT, LIMIT)
    return torch.where(counts[:, None], standard, 0.0).sum(0) / counts.sum().clamp_min(1)


def ordered(
    losses: Tensor, weights: Tensor, rows: Sequence[list[int]], by: Literal["consensus", "loss"], scale: Tensor | None
) -> tuple[list[list[int]], Tensor | None]:
    """The candidates of each of B samples, best first, and the scales that they were compared on.

    Args:
        losses: [T, R] of T referees for all candidates; lower is better, NaN where one has not judged.
        weights: [T] of the referees; of a negative one only the sign counts in the consensus.
        rows: [B] lists of the columns of `losses` that belong to each sample.
        by: consensus: `best_first`; loss: `lowest_first`.
        scale: [T, B], by an earlier call; None takes that of the candidates at hand.

    Returns:
        [B] lists as `rows`, and [T, B]; where they are not needed the scales are `scale`.
    """
    totals = (weights[:, None] * losses).nansum(0).cpu()
    if by == "loss":
        return [[mine[i] for i in lowest_first(totals[mine])] for mine in rows], scale
    signed = (losses * weights.sign()[:, None]).cpu()
    if scale is None:
        scale = torch.stack([spread(signed[:, mine]) for mine in rows], 1).to(losses.device)
    known = scale.cpu()
    return [
        [mine[i] for i in best_first(signed[:, mine], known[:, b], totals[mine])] for b, mine in enumerate(rows)
    ], scale


def lowest_first(totals: Tensor) -> list[int]:
    """The candidates of one sample by their weighted losses `totals` ([N]), best first; of equals the lower index."""
    return [int(i) for i in totals.argsort(stable=True)]


def best_first(losses: Tensor, scale: Tensor, totals: Tensor) -> list[int]:
    """The candidates of one sample, 0 .. N - 1, best first; arguments as for `consensus`.

    Where the referees balance (two candidates, two referees that disagree), the lower weighted loss `totals` ([N])
    wins, and then the lower index.
    """
    ranks = [round(value, 6) for value in consensus(losses.double(), scale.double()).tolist()]
    weighted = totals.nan_to_num(0.0).tolist()
    return sorted(range(len(ranks)), key=lambda i: (ranks[i], weighted[i], i))
