"""Rates, means and differences against published and exact values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from refcore_bench.statistics.intervals import NOTHING, difference_of_rates, mean, rate, ratio


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_intervals_are_those_of_newcombe_1998(right, n, low, high):
    """Newcombe, "Two-sided confidence intervals for the single proportion" (1998), table I, method 3."""
    found = rate([True] * right + [False] * (n - right))
    assert (found.value, found.n) == (right / n, n)
    assert (found.low, found.high) == pytest.approx((low, high), abs=6e-5)


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [((56, 70), (48, 80), 0.0524, 0.3339), ((9, 10), (3, 10), 0.1705, 0.8090), ((10, 10), (0, 10), 0.6075, 1.0)],
)
def test_differences_of_rates_are_those_of_newcombe_1998(first, second, low, high):
    """Newcombe, "Interval estimation for the difference between independent proportions" (1998), method 10."""
    a, b = (rate([True] * k + [False] * (n - k)) for k, n in (first, second))
    found = difference_of_rates(a, b)
    assert (found.low, found.high) == pytest.approx((low, high), abs=6e-5)


def test_the_bootstrap_of_a_mean_is_near_the_normal_interval_and_the_same_each_time():
    values = np.random.default_rng(0).normal(1.0, 2.0, 400)
    found = mean(values)
    half = 1.96 * values.std() / math.sqrt(400)
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03)
    assert mean(values) == found


def test_a_ratio_resamples_images_and_not_facts():
    """Ten images of ten facts, half of the images all right: as uncertain as ten trials, not as a hundred."""
    found = ratio([10, 0] * 5, [10] * 10)
    assert found.value == 0.5
    assert found.n == 10
    assert found.high - found.low > 0.5
    assert rate([True, False] * 50).high - rate([True, False] * 50).low < 0.2


def test_a_ratio_weighs_images_by_their_facts():
    assert ratio([1, 0], [1, 9]).value == 0.1


def test_nothing_gives_nothing_and_one_image_no_interval():
    assert rate([]) == ratio([], []) == mean([]) == difference_of_rates(rate([]), rate([True])) == NOTHING
    assert math.isnan(mean([0.5]).low)


def test_differences_that_are_all_alike_have_an_interval_of_no_width():
    assert (mean([1.0] * 5).low, mean([1.0] * 5).high) == (1.0, 1.0)
