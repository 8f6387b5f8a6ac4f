"""What varies: lists and ranges as the command line writes them, the points of a grid, and their names."""

from __future__ import annotations

import pytest

from refcore.errors import RefcoreError
from refcore_bench.sweep import axes
from refcore_bench.variants import NAME


def test_commas_inside_brackets_are_part_of_a_value():
    found = axes.values_from_text("ema={a: 1, b: 2}, null,[1, 2]")
    assert found.values == ("{a: 1, b: 2}", "null", "[1, 2]")


@pytest.mark.parametrize("text", ["steps", "steps=", "=1,2", "steps=1,,2", "steps=1,1"])
def test_a_list_that_is_none_is_refused(text):
    with pytest.raises(RefcoreError, match="--grid"):
        axes.values_from_text(text)


@pytest.mark.parametrize(
    "text",
    [
        "w",
        "w=1",
        "w=1..",
        "w=a..b",
        "=1..2",
        "w=2..1",
        "w=0..inf",
        "w=-inf..0",
        "w=0..1,log",
        "w=1..2,linear",
        "w=0.5..2,int",
    ],
)
def test_a_range_that_is_none_is_refused(text):
    with pytest.raises(RefcoreError, match="--range"):
        axes.range_from_text(text)


def test_a_grid_is_every_combination_with_the_last_axis_fastest():
    points = axes.grid([axes.Values("a", ("1", "2")), axes.Values("b", ("x", "y"))])
    assert [tuple(point.values()) for point in points] == [("1", "x"), ("1", "y"), ("2", "x"), ("2", "y")]
    assert axes.assignments(points[1]) == ["a=1", "b=y"]


def test_names_are_valid_for_variants_short_and_all_different():
    points = axes.grid(
        [axes.Values("referees.0.weight", ("0.5", "{a: 1}", "{a; 1}")), axes.Values("priors.0.weight", ("1", "-2"))]
    )
    found = axes.names(points)
    assert found[:2] == ["referees.0.weight-0.5+priors.0.weight-1", "referees.0.weight-0.5+priors.0.weight--2"]
    assert len(set(found)) == len(points) == 6
    assert all(NAME.fullmatch(name) for name in found)


def test_names_of_long_values_stay_those_of_files():
    long = "{name: tv, config: {note: " + 300 * "x"
    points = axes.grid([axes.Values("priors.0", (long + "}}", long + "y}}")), axes.Values("steps", ("1", "2"))])
    found = axes.names(points)
    assert len(set(found)) == 4
    assert all(len(name) <= axes.LONGEST and NAME.fullmatch(name) for name in found)


def test_every_value_and_both_ends_of_a_range_are_among_the_ends():
    varied = [axes.Values("a", ("x", "y", "z")), axes.Range("b", 0.5, 2.0)]
    found = axes.ends(varied)
    assert {point["a"] for point in found} == {"x", "y", "z"}
    assert {point["b"] for point in found} == {"0.5", "2.0"}
    assert len(found) == 4


def test_a_field_is_varied_once_and_a_grid_has_bounds():
    with pytest.raises(RefcoreError, match="steps is varied twice"):
        axes.refuse_twice([axes.Values("steps", ("1",)), axes.Range("steps", 1, 2)])
    with pytest.raises(RefcoreError, match="12,100 combinations"):
        axes.grid([axes.Values("a", tuple(map(str, range(110)))), axes.Values("b", tuple(map(str, range(110))))])
