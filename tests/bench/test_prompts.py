"""The prompt set: which prompts, in which order, and that small sets begin large ones."""

from __future__ import annotations

import pytest

from refcore.errors import RefcoreError
from refcore_bench.tasks.playground_prompts import REPORTING_SEED, TUNING_SEED, draw
from refcore_playground.draw import CATEGORIES, draw_prompts
from refcore_playground.grammar import parse


def test_the_set_is_that_of_the_grammar():
    drawn = draw(12, REPORTING_SEED, "seen")
    assert [one.prompt for one in drawn] == draw_prompts(12, REPORTING_SEED)
    assert [one.category for one in drawn] == [*CATEGORIES, *CATEGORIES]


def test_both_splits_come_in_equal_parts_and_say_what_they_are():
    drawn = draw(24, TUNING_SEED)
    assert sum(one.split == "seen" for one in drawn) == 12
    assert all(parse(one.prompt).unseen == (one.split == "unseen") for one in drawn)


def test_a_larger_set_begins_with_a_smaller_one():
    assert draw(30, TUNING_SEED)[:8] == draw(8, TUNING_SEED)


def test_a_category_is_the_part_of_the_full_set_that_has_it():
    whole = [one for one in draw(60, TUNING_SEED) if one.category == "numeracy"]
    assert draw(len(whole), TUNING_SEED, categories=["numeracy"]) == whole


def test_tuning_and_reporting_prompts_are_different_sets():
    assert TUNING_SEED != REPORTING_SEED
    assert draw(12, TUNING_SEED) != draw(12, REPORTING_SEED)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"split": "sen"}, 'unknown split "sen" in --split; known: both, seen, unseen; did you mean "seen"'),
        ({"categories": ["color"]}, 'did you mean "colour"'),
    ],
)
def test_a_wrong_name_is_refused(wrong, told):
    with pytest.raises(RefcoreError, match=told):
        draw(6, TUNING_SEED, **wrong)
