"""Keyed random numbers: deferred draws equal immediate ones."""

from __future__ import annotations

import torch

from refcore.rng import Rng

SHAPE = (3, 8, 6)
"""A multiple of 16, since torch draws normal numbers 16 at a time."""


def rng() -> Rng:
    return Rng([7, 11], 3, "views", count=4)


def test_deferred_numbers_are_those_of_a_draw_at_once_whatever_is_taken_in_whatever_order() -> None:
    at_once = rng().normal(*SHAPE)
    deferred = rng().deferred_normal(*SHAPE)
    assert len(deferred) == 8
    for index in (range(8), range(8), range(2, 6), [7, 0, 3, 3], [1, 2], [], range(8)):
        assert torch.equal(deferred.take(index), at_once[list(index)])


def test_an_element_of_any_shape_is_the_same_in_any_selection() -> None:
    deferred = rng().deferred_normal(5)
    whole = deferred.take(range(8))
    assert torch.equal(deferred.take([6, 1]), whole[[6, 1]])
    assert len(whole.unique()) == whole.numel()


def test_what_is_drawn_after_deferred_numbers_is_not_drawn_from_them() -> None:
    first, second = rng(), rng()
    deferred, then = first.deferred_normal(*SHAPE), first.normal(*SHAPE)
    assert not torch.equal(deferred.take(range(8)), then)
    second.deferred_normal(*SHAPE).take(range(8))
    assert torch.equal(second.normal(*SHAPE), then)
    assert not torch.equal(first.deferred_normal(*SHAPE).take(range(8)), then)


def test_deferred_uniform_numbers_are_those_of_a_draw_at_once() -> None:
    at_once, deferred = rng().uniform(0, 1, *SHAPE), rng().deferred_uniform(*SHAPE)
    for index in (range(8), [7, 0, 3, 3], [1, 2]):
        assert torch.equal(deferred.take(index), at_once[list(index)])
