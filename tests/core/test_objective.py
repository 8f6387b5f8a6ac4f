"""Objectives add, subtract, scale and print; in a config they are its terms."""

from __future__ import annotations

import pytest
from toys import ToyReferee, run, toy_config

from refcore.fields import ConfigError
from refcore.objective import Objective, prior, referee
from refcore.plugin import RefcoreError

OBJECTIVE = 2 * referee("blip2", itm=1.0, itg=1.0) + referee("clip") - 0.3 * referee("clip", prompt="blurry")


def test_an_objective_prints_as_what_it_is() -> None:
    assert str(OBJECTIVE) == '2 blip2(itm=1.0, itg=1.0) + 1 clip - 0.3 clip("blurry")'
    assert str(-OBJECTIVE) == '-2 blip2(itm=1.0, itg=1.0) - 1 clip + 0.3 clip("blurry")'
    assert str(sum([referee("a"), referee("b")])) == "1 a + 1 b"
    warm = {"kind": "linear", "start": 1, "end": 2}
    assert str(3 * referee("a", term={"weight": warm})) == "linear(start=3.0, end=6.0, first=0, last=None) a"


def test_subtracting_asks_the_negated_question_and_keeps_the_weight_positive() -> None:
    blurry = OBJECTIVE.referees[2]
    assert (blurry.wanted, blurry.weight) == (False, 0.3)
    assert -2 * referee("a") == -(2 * referee("a"))
    negated = -OBJECTIVE
    assert -negated == OBJECTIVE


def test_a_prior_cannot_be_subtracted() -> None:
    with pytest.raises(RefcoreError, match="sds is a prior"):
        referee("clip") - prior("sds")


def test_a_wrong_term_field_is_named() -> None:
    with pytest.raises(ConfigError, match=r'veiws: unknown field.*did you mean "views"'):
        referee("clip", term={"veiws": "main"})


def test_an_objective_replaces_the_terms_of_a_config() -> None:
    config = (2 * referee("toy", seed=3) - referee("toy", prompt="blurry") + 0.1 * prior("smooth")).into(toy_config())
    assert [term.weight for term in config.referees] == [2, 1]
    assert [term.name for term in config.priors] == ["smooth"]
    kept = referee("toy").into(toy_config())
    assert [term.name for term in kept.priors] == ["toy_sds", "smooth"]
    assert set(run(config).scores()) == {"toy", "toy-2"}


def test_an_instance_is_a_term_too() -> None:
    assert referee(ToyReferee(seed=4)) == referee("toy", seed=4)
    assert isinstance(referee(ToyReferee()), Objective)
