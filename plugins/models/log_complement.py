"""Logarithms of 1 - p from logits: exact, and with a gradient, where p rounds to 1."""

from __future__ import annotations

import torch
from torch import Tensor

IMPOSSIBLE = -1e4
"""Log-probability of the impossible; finite, so that gradients are finite."""


def log_complement(logits: Tensor, index: Tensor) -> Tensor:
    """[...] log(1 - p) of one class each, `index` [...], under the softmax of logits [..., C], C at least 2.

    logsumexp of the others less logsumexp of all: its gradient in the logit of a certain class is -1, where that of
    log(1 - p) is lost in rounding.
    """
    chosen = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, index.unsqueeze(-1), True)
    return logits.masked_fill(chosen, -torch.inf).logsumexp(-1) - logits.logsumexp(-1)


def log_complement_of_product(log_p: Tensor, log_not_p: Tensor, weight: Tensor | float = 1.0) -> Tensor:
    """[...] log(1 - prod_k p_k^w_k) over the last dimension.

    Args:
        log_p: [..., K] logarithms of the p.
        log_not_p: [..., K] logarithms of the 1 - p, which hold what `log_p` loses where p rounds to 1.
        weight: the w, not negative, of a shape that broadcasts to [..., K]; 1 / K gives the geometric mean.
    """
    half = -0.69  # just above log(0.5)
    exact = torch.where(log_not_p < half, torch.log1p(-log_not_p.clamp(max=half).exp()), log_p)
    total = (exact * weight).sum(-1)
    complement = torch.log(-torch.expm1(total.clamp(max=-1e-30)))
    weights = torch.as_tensor(weight, dtype=log_p.dtype, device=log_p.device)
    tiny = (log_not_p + weights.log().clamp(min=IMPOSSIBLE)).logsumexp(-1)  # to first order, below float32's range
    return torch.where(tiny < -60, tiny, complement)
