"""Tracks: what is dropped leaves everything, what is frozen stays, and a state comes back to the bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from refcore.config.optimize import Ema, Optimizer
from refcore.engine.tracks import Tracks
from refcore.moment import Moment

ROWS = 4
ADAM = Optimizer(name="adam", lr=0.1, weight_decay=0.01)


def tracks(optimizer: Optimizer = ADAM, seed: int = 0) -> Tracks:
    generator = torch.Generator().manual_seed(seed)
    params = {name: torch.randn(ROWS, *shape, generator=generator) for name, shape in (("a", (2, 3)), ("b", (5,)))}
    return Tracks(params, optimizer, Ema(decay=0.5), keeps_best=True, compared=2)


def gradient(rows: int, step: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(100 + step)
    return {name: torch.randn(ROWS, *shape, generator=generator)[:rows] for name, shape in (("a", (2, 3)), ("b", (5,)))}


def move(moved: Tracks, steps: range, of: list[int] | None = None) -> None:
    """Steps of the active rows; `of` are the rows that they had before any were dropped."""
    for step in steps:
        full = gradient(ROWS, step)
        places = of if of is not None else list(range(ROWS))
        rows = list(moved.active)
        moved.update(
            {name: value[[places[row] for row in rows]] for name, value in full.items()}, rows, Moment(step, 10)
        )
        moved.average(rows, step)


def tensors(state: Tracks) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = state.state_dict()["tensors"]
    return found


@pytest.mark.parametrize("optimizer", [ADAM, Optimizer(name="sgd", lr=0.1, momentum=0.9), Optimizer(name="adamw")])
def test_a_row_that_is_kept_goes_on_as_if_no_other_had_been_there(optimizer: Optimizer) -> None:
    all_rows, some = tracks(optimizer), tracks(optimizer)
    move(all_rows, range(3))
    move(some, range(2))
    some.keep([3, 1])
    assert (some.numbers, some.active, len(some)) == ([3, 1], [0, 1], 2)
    move(some, range(2, 3), of=[3, 1])
    for name, value in tensors(some).items():
        whole = tensors(all_rows)[name]
        expected = whole if not whole.dim() else whole[:, [3, 1]] if name == "candidates.recent" else whole[[3, 1]]
        assert torch.equal(value.isnan(), expected.isnan()), name
        assert torch.equal(value.nan_to_num(), expected.nan_to_num()), name


def test_a_frozen_row_stays_under_momentum_and_weight_decay() -> None:
    moving = tracks(Optimizer(name="sgd", lr=0.1, momentum=0.9, weight_decay=0.1))
    move(moving, range(2))
    before = moving.params["a"].detach().clone()
    moving.active = [0, 2]
    move(moving, range(2, 4))
    now = moving.params["a"].detach()
    assert torch.equal(now[[1, 3]], before[[1, 3]])
    assert not torch.equal(now[[0, 2]], before[[0, 2]])


def test_a_state_comes_back_to_the_bit() -> None:
    first = tracks()
    move(first, range(2))
    first.improve(first.take(first.params, [0, 2]), torch.tensor([0.5, 0.1]), [0, 2])
    first.wait(torch.tensor([0.5, 0.1]), [0, 2], 0.0)
    first.remember(1, torch.tensor([1.0, 2.0, torch.nan, 4.0]), 0.9)
    first.keep([0, 2, 3])
    first.active = [0, 1]
    state = first.state_dict()
    second = tracks(seed=7)
    second.load_state_dict({name: value.detach().clone() for name, value in state["tensors"].items()}, state["meta"])
    move(first, range(2, 4), of=[0, 2, 3])
    move(second, range(2, 4), of=[0, 2, 3])
    ours, theirs = tensors(first), tensors(second)
    assert list(ours) == list(theirs)
    for name, value in ours.items():
        assert torch.equal(value.nan_to_num(), theirs[name].nan_to_num()), name
    assert (first.numbers, first.active) == (second.numbers, second.active)


def test_the_best_is_kept_where_the_loss_is_lower() -> None:
    moving = tracks()
    start = moving.take(moving.params, [0, 1])
    moving.improve(start, torch.tensor([1.0, 1.0]), [0, 1])
    move(moving, range(1))
    moving.improve(moving.take(moving.params, [0, 1]), torch.tensor([2.0, 0.5]), [0, 1])
    best: Any = moving.best
    assert torch.equal(best["a"][0], start["a"][0])
    assert torch.equal(best["a"][1], moving.params["a"].detach()[1])
    assert moving.best_loss.tolist() == [1.0, 0.5, torch.inf, torch.inf]
