"""What every loader checks once the weights are read: no tensor is left over, and every number is finite."""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from refcore.errors import CheckpointError

BENIGN = re.compile(
    r"(^|\.)(position_ids|inv_freq|num_batches_tracked|masked_bias|relative_position_index|token_type_ids)$"
    r"|(^|\.)attn\.bias$"
)
"""Tensors that older releases saved and newer ones compute: they fix nothing that a model could get wrong."""


def refuse_left_over(names: Iterable[str], where: str, remedy: str, allowed: str = "(?!)") -> None:
    """Refuses a checkpoint with tensors that its config gives no place to: a config of fewer layers, for one.

    Args:
        names: Tensors of the file that the model does not have.
        where: Beginning of the message, with plugin and model.
        remedy: End of the message.
        allowed: Regular expression of names that the model is known to leave: those of another head.

    Raises:
        CheckpointError: naming the first of them.
    """
    left = sorted(name for name in names if not BENIGN.search(name) and not re.match(allowed, name))
    if left:
        raise CheckpointError(
            f"{where} has {len(left)} tensors that its config gives no place to, {left[0]} the first: "
            f"the config is of another model, or has fewer layers; {remedy}"
        )


def refuse_non_finite(tensors: Iterable[tuple[str, Tensor]], where: str, remedy: str) -> None:
    """Refuses weights with NaN or infinity, in one pass over each tensor.

    Args:
        tensors: Names and tensors, those of `state_dict` for example.
        where: Beginning of the message, with plugin and model.
        remedy: End of the message.

    Raises:
        CheckpointError: naming the first such tensor.
    """
    for name, tensor in tensors:
        if tensor.is_floating_point() and tensor.numel() and not tensor.is_meta:
            low, high = torch.aminmax(tensor.detach())  # both are NaN where one number is
            if not (torch.isfinite(low) and torch.isfinite(high)):
                raise CheckpointError(f"{where} has NaN or infinity in {name}; {remedy}")


def refuse_broken(model: nn.Module, left_over: Iterable[str], where: str, remedy: str, allowed: str = "(?!)") -> None:
    """`refuse_left_over` and `refuse_non_finite` for a model that a library has loaded."""
    refuse_left_over(left_over, where, remedy, allowed)
    refuse_non_finite(model.state_dict().items(), where, remedy)
