"""The fields in which configs differ."""

from __future__ import annotations

from refcore.config.differences import ABSENT, differences

CLIP = {"name": "clip", "label": None, "weight": 1.0}
BLIP2 = {"name": "blip2", "label": None, "weight": 1.0}


def test_equal_configs_do_not_differ():
    assert differences([{"steps": 8, "referees": [CLIP]}] * 3) == []


def test_a_field_is_dotted_and_a_list_of_plain_values_is_one():
    found = differences([{"ema": {"decay": 0.9, "restarts": [1]}}, {"ema": {"decay": 0.9, "restarts": [1, 2]}}])
    assert found == [("ema.restarts", [[1], [1, 2]])]


def test_null_is_a_value_and_no_lack():
    assert differences([{"ema": None}, {}]) == [("ema", [None, ABSENT])]


def test_terms_are_found_by_name_wherever_they_stand():
    found = differences([{"referees": [CLIP, BLIP2]}, {"referees": [{**BLIP2, "weight": 2.0}, CLIP]}])
    assert found == [("referees.blip2.weight", [1.0, 2.0])]
    labelled = {**CLIP, "label": "sharp"}
    assert differences([{"referees": [CLIP, labelled]}, {"referees": [CLIP, {**labelled, "weight": 3.0}]}]) == [
        ("referees.sharp.weight", [1.0, 3.0])
    ]


def test_terms_of_one_name_are_found_by_place():
    found = differences([{"priors": [CLIP, CLIP]}, {"priors": [CLIP, {**CLIP, "weight": 0.5}]}])
    assert found == [("priors.1.weight", [1.0, 0.5])]


def test_a_term_that_one_of_three_lacks_is_one_value_followed_by_what_differs_in_the_others():
    heavy = {**CLIP, "weight": 3.0}
    found = differences([{"referees": [CLIP]}, {"referees": [BLIP2]}, {"referees": [heavy, BLIP2]}])
    assert found == [
        ("referees.clip", [CLIP, ABSENT, heavy]),
        ("referees.clip.weight", [1.0, ABSENT, 3.0]),
        ("referees.blip2", [ABSENT, BLIP2, BLIP2]),
    ]
