"""Schedules: the paper's numbers, and the shapes that compose them."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from refcore.config.schedule import Schedule, extremes, scaled, span, value_at

READ: TypeAdapter[Any] = TypeAdapter(Schedule)
ETA = {"kind": "warmup_cosine", "peak": 1.0, "end": 0.5, "warmup": 10, "last": 160}


def eta(t: int) -> float:
    """(t+1)/10 for t < 10, then a cosine from 1 to 0.5 at step 160."""
    return (t + 1) / 10 if t < 10 else 0.5 + 0.25 * (1 + math.cos(math.pi * (t - 10) / 150))


@pytest.mark.parametrize("t", [0, 4, 9, 10, 85, 149, 159])
def test_the_papers_schedules_are_expressed_exactly(t: int) -> None:
    noise = READ.validate_python(
        {
            "kind": "piecewise",
            "pieces": [
                {"until": 150, "value": {"kind": "hypot", "of": [0.2, {**ETA, "peak": 0.2, "end": 0.1}]}},
                {"value": 0.01},
            ],
        }
    )
    sds = READ.validate_python({"kind": "cosine", "start": 800, "end": 400, "last": 160})
    assert value_at(READ.validate_python(ETA), t, 160) == pytest.approx(eta(t))
    assert value_at(noise, t, 160) == pytest.approx(0.2 * math.sqrt(1 + eta(t) ** 2) if t < 150 else 0.01)
    assert value_at(sds, t, 160) == pytest.approx(400 + 200 * (1 + math.cos(math.pi * t / 160)))


def test_ramps_start_end_and_stay() -> None:
    ramp = READ.validate_python({"kind": "linear", "start": 1, "end": 3, "first": 2, "last": 6})
    assert [value_at(ramp, t, 100) for t in (0, 2, 4, 6, 50)] == [1, 1, 2, 3, 3]
    assert value_at(READ.validate_python({"kind": "linear", "start": 0, "end": 8}), 5, 10) == 4  # null: the run's end


def test_bumps_over_layers_are_a_bump_that_moves_from_the_first_layer_to_the_last() -> None:
    """At step t of T, layer l of L has lr exp(-((l - (L - 1) t / T) / s)^2 / 2): CLIP^-1's frequency schedule."""
    layers, steps, width = 5, 40, 1.5
    rates = [
        READ.validate_python(
            {"kind": "gaussian", "peak": 0.1, "centre": layer / (layers - 1), "width": width / (layers - 1)}
        )
        for layer in range(layers)
    ]
    for t in (0, 7, 20, 40):
        middle = (layers - 1) * t / steps
        wanted = [0.1 * math.exp(-(((layer - middle) / width) ** 2) / 2) for layer in range(layers)]
        assert [value_at(rate, t, steps) for rate in rates] == pytest.approx(wanted)
    fastest = [max(range(layers), key=lambda layer: value_at(rates[layer], t, steps)) for t in range(steps + 1)]
    assert fastest == sorted(fastest)
    assert (fastest[0], fastest[-1]) == (0, layers - 1)


@given(factor=st.floats(-3, 3), t=st.integers(0, 40))
def test_scaling_a_bump_scales_its_values(factor: float, t: int) -> None:
    bump = READ.validate_python({"kind": "gaussian", "peak": 2.0, "centre": 0.3, "width": 0.2})
    assert value_at(scaled(bump, factor), t, 40) == pytest.approx(factor * value_at(bump, t, 40), abs=1e-9)


@given(
    kind=st.sampled_from(["linear", "cosine"]),
    start=st.floats(-10, 10),
    end=st.floats(-10, 10),
    factor=st.floats(-3, 3),
    t=st.integers(0, 50),
)
def test_scaling_a_schedule_scales_its_values_and_none_leaves_its_ends(
    kind: str, start: float, end: float, factor: float, t: int
) -> None:
    schedule = READ.validate_python({"kind": kind, "start": start, "end": end})
    value = value_at(schedule, t, 40)
    assert min(start, end) - 1e-9 <= value <= max(start, end) + 1e-9
    assert value_at(scaled(schedule, factor), t, 40) == pytest.approx(factor * value, abs=1e-9)


def ramps() -> st.SearchStrategy[Any]:
    number, step = st.floats(-3, 3), st.integers(0, 12)
    ramp = st.fixed_dictionaries(
        {"kind": st.sampled_from(["linear", "cosine"]), "start": number, "end": number, "first": step},
        optional={"last": st.integers(1, 30)},
    )
    warmup = st.fixed_dictionaries({"kind": st.just("warmup_cosine"), "peak": number, "end": number, "warmup": step})
    bump = st.fixed_dictionaries(
        {"kind": st.just("gaussian"), "peak": number, "centre": st.floats(-1, 2), "width": st.floats(0.01, 2)}
    )
    return number | ramp | warmup | bump


def composed(part: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.fixed_dictionaries(
        {"kind": st.sampled_from(["hypot", "product"]), "of": st.lists(part, min_size=2, max_size=3)}
    )
    pieces = st.tuples(part, part).map(
        lambda two: {"kind": "piecewise", "pieces": [{"until": 7, "value": two[0]}, {"value": two[1]}]}
    )
    return part | several | pieces


@pytest.mark.fault("5.6")
@given(given=composed(composed(ramps())), first=st.integers(0, 22), length=st.none() | st.integers(1, 22))
def test_the_extremes_are_those_of_all_the_steps_in_the_window(given: Any, first: int, length: int | None) -> None:
    schedule, window = READ.validate_python(given), (first, None if length is None else first + length)
    every = [value_at(schedule, t, 20) for t in range(20) if t >= first and (length is None or t < first + length)]
    assert extremes(schedule, 20, window) == ((min(every), max(every)) if every else (0, 0))


@pytest.mark.fault("5.6")
def test_the_extremes_of_a_million_steps_take_no_list_of_them() -> None:
    ramp = {"kind": "cosine", "start": 1, "end": -1}
    once = READ.validate_python({"kind": "product", "of": [ramp, {"kind": "linear", "start": 2, "end": 1}]})
    began = time.perf_counter()
    low, high = extremes(once, 10**9)
    assert (low, high) == (pytest.approx(-1.04672, abs=1e-5), 2)
    assert time.perf_counter() - began < 1


@pytest.mark.parametrize(
    "pieces",
    [[{"until": 5, "value": 1}], [{"value": 1}, {"value": 2}], [{"until": 5, "value": 1}, {"until": 3, "value": 1}]],
)
def test_pieces_that_leave_steps_open_are_refused(pieces: Any) -> None:
    with pytest.raises(ValidationError, match="`until` is"):
        READ.validate_python({"kind": "piecewise", "pieces": pieces})


@pytest.mark.fault("4.14")
@given(schedule=composed(composed(ramps())), steps=st.integers(1, 20))
def test_no_value_of_a_schedule_is_beyond_its_span(schedule: Any, steps: int) -> None:
    read = READ.validate_python(schedule)
    low, high = span(read)
    assert all(low - 1e-9 <= value_at(read, t, steps) <= high + 1e-9 for t in range(steps + 1))
