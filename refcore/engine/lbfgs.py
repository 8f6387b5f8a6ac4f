"""L-BFGS with a strong Wolfe line search: torch's, for one row of parameters at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from refcore.config.optimize import Optimizer
from refcore.contracts.canvas import CanvasParams

Evaluated = tuple[float, CanvasParams]
"""The loss of a row, and its gradient, each tensor [1, ...]."""
State = Mapping[str, Tensor]
"""What a row keeps from step to step, as torch.optim.LBFGS names it; empty at first, and not changed in place."""
VECTORS = ("d", "prev_flat_grad")
"""[D] the last direction, and the gradient that it was made from."""
LISTS = ("old_dirs", "old_stps", "ro")
"""[k, D] changes of the gradient and of the row in the last k updates, and [k] what they are weighted by."""
NUMBERS = ("n_iter", "t", "H_diag")
"""Iterations so far, length of the last move along `d`, and the first guess of the inverse Hessian."""


def search(
    settings: Optimizer,
    lr: float,
    params: CanvasParams,
    state: State,
    first: Evaluated,
    evaluate: Callable[[CanvasParams], Evaluated],
) -> tuple[CanvasParams, State]:
    """One step of torch.optim.LBFGS for one row: up to `settings.max_iter` iterations, each with a line search.

    Args:
        settings: of the optimiser.
        lr: first length that a line search tries; 0 keeps the row and its state as they are.
        params: of the row, each tensor [1, ...]; not changed.
        state: of the row's last step.
        first: loss and gradient of `params`.
        evaluate: loss and gradient of other parameters of the row.

    Returns:
        The new parameters and the new state.
    """
    if not lr:
        return params, state

    def flattened(values: CanvasParams) -> Tensor:
        return torch.cat([values[name].detach().flatten() for name in params])

    def shaped(flat: Tensor) -> CanvasParams:
        parts = torch.split(flat.detach().clone(), [value.numel() for value in params.values()])
        return {name: part.view_as(value) for (name, value), part in zip(params.items(), parts, strict=True)}

    x, known = flattened(params).requires_grad_(), [first]
    optimizer = torch.optim.LBFGS(
        [x], lr, settings.max_iter, history_size=settings.history, line_search_fn="strong_wolfe"
    )
    optimizer.state[x] = _unpacked(state, x.device)

    def closure() -> float:
        loss, gradient = known.pop() if known else evaluate(shaped(x))
        x.grad = flattened(gradient)
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return shaped(x), _packed(optimizer.state[x])


def _packed(state: Mapping[str, Any]) -> State:
    """torch's state as tensors alone; its numbers as float64, which holds each exactly."""
    packed = {name: torch.stack(state[name]) for name in LISTS if state.get(name)}
    packed |= {name: torch.tensor(float(state[name]), dtype=torch.float64) for name in NUMBERS if name in state}
    return packed | {name: state[name] for name in VECTORS if name in state}


def _unpacked(state: State, device: torch.device) -> dict[str, Any]:
    """The inverse of `_packed`, in memory of its own: torch changes vectors and lists in place."""
    if not state:
        return {}
    lists = {name: [own.clone() for own in state[name].to(device)] if name in state else [] for name in LISTS}
    numbers = {name: float(state[name]) for name in NUMBERS if name in state}
    return {**lists, **numbers, **{name: state[name].to(device, copy=True) for name in VECTORS if name in state}}
