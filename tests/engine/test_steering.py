"""A weight changed between steps acts from the next step on, is recorded, and becomes part of the run's config."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import refcore
from refcore.config.run import RunConfig
from refcore.config.schedule import changed_from, value_at
from refcore.engine.inversion import Inversion
from refcore.errors import RefcoreError

STEPS = 6


def settings(**fields: Any) -> dict[str, Any]:
    return {
        "prompts": ["a red circle"],
        "canvas": {"name": "pixel"},
        "size": 24,
        "referees": [{"name": "clip", "config": {"model": "playground:clip"}}],
        "priors": [{"name": "tv", "weight": {"kind": "linear", "start": 3.0, "end": 1.0}}, {"name": "l2"}],
        "combine": {"name": "sum"},
        "steps": STEPS,
        **fields,
    }


def steered(inversion: Inversion, changes: dict[int, tuple[str, float]]) -> list[dict[str, Any]]:
    """The records of a run with changes, each before a step."""
    records = []
    while not inversion.done:
        if inversion.step in changes:
            inversion.steer(*changes[inversion.step])
        records.append(next(inversion).record())
    return records


CHANGES = {2: ("tv", 20.0), 3: ("clip", 0.0), 4: ("tv", 0.5)}


@pytest.mark.parametrize(
    "combine",
    [
        {"name": "sum"},
        {"name": "sum", "votes": "equal"},
        {"name": "norm_balance", "factor": 2.0},
        {"name": "norm_balance", "votes": "equal"},
    ],
)
def test_the_recorded_config_repeats_a_steered_run_bit_for_bit(combine: dict[str, Any]) -> None:
    config = RunConfig.from_settings(settings(combine=combine))
    first = Inversion(config)
    records = steered(first, CHANGES)
    plain = Inversion(config)
    steered(plain, {})
    assert not torch.equal(first.images(), plain.images())
    again = Inversion(RunConfig.from_settings(first.recorded.settings()))
    repeated = steered(again, {})
    assert torch.equal(first.images(), again.images())
    for one, other in zip(records, repeated, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


def test_each_step_records_its_weights() -> None:
    records = steered(Inversion(RunConfig.from_settings(settings())), CHANGES)
    falling = [3.0 - 2.0 * step / STEPS for step in range(STEPS)]
    assert [record["weights"]["tv"] for record in records] == pytest.approx([*falling[:2], 20.0, 20.0, 0.5, 0.5])
    assert [record["weights"]["clip"] for record in records] == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    assert "clip" not in records[3]["losses"], "a term without weight is not asked"


def test_a_steered_run_resumes_with_its_weights() -> None:
    whole = Inversion(RunConfig.from_settings(settings()))
    state: dict[str, Any] = {}
    while not whole.done:
        if whole.step == 2:
            whole.steer("tv", 20.0)
        if whole.step == 4:
            state = whole.state_dict()
        next(whole)
    rest = Inversion(RunConfig.from_settings(state["meta"]["config"]), state=state)
    for _ in rest:
        pass
    assert torch.equal(whole.images(), rest.images())


@pytest.mark.parametrize(
    ("label", "weight", "said"),
    [
        ("clop", 1.0, 'did you mean "clip"'),
        ("clip", -1.0, 'the weight of "clip" would be -1.0; expected a number of at least 0'),
        ("clip", float("nan"), "would be nan"),
    ],
)
def test_a_wrong_change_is_refused_and_changes_nothing(label: str, weight: float, said: str) -> None:
    inversion = Inversion(RunConfig.from_settings(settings()))
    before = inversion.config
    with pytest.raises(RefcoreError, match=said):
        inversion.steer(label, weight)
    assert inversion.config == before


def test_many_changes_of_one_weight_stay_one_flat_schedule() -> None:
    schedule: Any = refcore.RunConfig.from_settings(settings()).priors[0].weight
    for step, value in ((2, 5.0), (2, 6.0), (4, 7.0)):
        schedule = changed_from(schedule, step, value)
    assert [value_at(schedule, step, STEPS) for step in (2, 3, 4, 5)] == [6.0, 6.0, 7.0, 7.0]
    assert [piece.until for piece in schedule.pieces] == [2, 4, None]
