"""Objectives add, subtract, scale and print; in a config they are its terms."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import BoundedReferee, Smooth, ToyPixel, ToyReferee, run, toy_config

import refcore
from refcore import registry
from refcore.config.schedule import Linear
from refcore.errors import ConfigError, RefcoreError
from refcore.objective import Objective, as_objective, prior_term, referee_term

pytestmark = pytest.mark.usefixtures("toys")

OBJECTIVE = (
    2 * referee_term("blip2", itm=1.0, itg=1.0) + referee_term("clip") - 0.3 * referee_term("clip", prompt="blurry")
)


def test_an_objective_prints_as_it_is_written() -> None:
    assert str(OBJECTIVE) == '2 blip2(itm=1.0, itg=1.0) + 1 clip - 0.3 clip("blurry")'
    assert str(-OBJECTIVE) == '-2 blip2(itm=1.0, itg=1.0) - 1 clip + 0.3 clip("blurry")'
    assert str(sum([referee_term("a"), referee_term("b")])) == "1 a + 1 b"
    warm = {"kind": "linear", "start": 1, "end": 2}
    assert str(3 * referee_term("a", term={"weight": warm})) == "linear(start=3.0, end=6.0, first=0, last=None) a"


def test_subtracting_judges_the_negated_question_and_keeps_the_weight_positive() -> None:
    blurry = OBJECTIVE.referees[2]
    assert (blurry.wanted, blurry.weight) == (False, 0.3)
    assert -2 * referee_term("a") == -(2 * referee_term("a"))
    negated = -OBJECTIVE
    assert -negated == OBJECTIVE


def test_a_prior_cannot_be_subtracted() -> None:
    with pytest.raises(RefcoreError, match="sds is a prior"):
        referee_term("clip") - prior_term("sds")


def test_a_wrong_term_field_is_named() -> None:
    with pytest.raises(ConfigError, match=r'veiws: unknown field.*did you mean "views"'):
        referee_term("clip", term={"veiws": "main"})


def test_an_objective_replaces_the_terms_of_a_config() -> None:
    config = (2 * referee_term("toy", seed=3) - referee_term("toy", prompt="blurry") + 0.1 * prior_term("smooth")).into(
        toy_config()
    )
    assert [term.weight for term in config.referees] == [2, 1]
    assert [term.name for term in config.priors] == ["smooth"]
    kept = referee_term("toy").into(toy_config())
    assert [term.name for term in kept.priors] == ["toy_sds", "smooth"]
    assert set(run(config).scores()) == {"toy", "toy-2"}


def test_an_instance_is_a_term_too() -> None:
    assert referee_term(ToyReferee(seed=4)) == referee_term("toy", seed=4)
    assert isinstance(referee_term(ToyReferee()), Objective)


def test_plugins_and_classes_are_objectives_of_one_term() -> None:
    a, b = ToyReferee(seed=4), Smooth
    assert 2 * a + 0.5 * b == 2 * referee_term("toy", seed=4) + 0.5 * prior_term("smooth")
    assert a - ToyReferee == referee_term("toy", seed=4) - referee_term("toy")
    assert ToyReferee + a == referee_term("toy") + referee_term("toy", seed=4)
    assert -a == -referee_term("toy", seed=4)
    assert ToyReferee / 4 == 0.25 * referee_term("toy")
    assert sum([a, ToyReferee, OBJECTIVE]) == referee_term("toy", seed=4) + referee_term("toy") + OBJECTIVE
    assert a - OBJECTIVE == referee_term("toy", seed=4) - OBJECTIVE
    assert as_objective(Smooth()) == prior_term("smooth")


def test_an_objective_prints_in_the_order_in_which_it_was_written() -> None:
    assert str(ToyReferee(seed=4) + 0.5 * Smooth - BoundedReferee) == "1 toy(seed=4) + 0.5 smooth - 1 bounded"
    assert repr(OBJECTIVE) == str(OBJECTIVE)
    shown = str(referee_term("clip", term={"views": "close", "label": "near"}))
    assert shown == "1 clip[label=near, views=close]"


def test_other_plugins_and_values_are_not_terms() -> None:
    with pytest.raises(RefcoreError, match="ToyPixel is a canvas; only referees and priors"):
        ToyPixel() + ToyReferee()
    with pytest.raises(RefcoreError, match="Smooth is a prior; expected a referee"):
        referee_term(Smooth)
    with pytest.raises(RefcoreError, match="is not an objective"):
        as_objective(3)
    for wrong in (lambda: OBJECTIVE + 1, lambda: "x" * ToyReferee(), lambda: OBJECTIVE * True, lambda: 1 - OBJECTIVE):
        with pytest.raises(TypeError):
            wrong()
    with pytest.raises(RefcoreError, match="factor of an objective is inf"):
        OBJECTIVE * float("inf")


def test_a_schedule_scales_and_schedules_multiply() -> None:
    ramp = Linear(start=0, end=1)
    warm = ramp * ToyReferee
    assert warm == ToyReferee() * ramp
    assert warm.referees[0].weight_at(5, 10) == 0.5
    assert (3 * warm).referees[0].weight_at(5, 10) == 1.5
    both = ramp * (2 * warm)
    assert both.referees[0].weight_at(5, 10) == 0.5
    assert Objective.from_settings(both.settings()) == both
    assert str(both) == (
        "product(of=[linear(start=0.0, end=1.0, first=0, last=None), "
        "linear(start=0.0, end=2.0, first=0, last=None)]) toy"
    )


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["toy", "bounded", "smooth"]),
            st.floats(-4, 4).filter(bool),
            st.sampled_from([{}, {"window": [0, 3]}, {"label": "other"}]),
            st.sampled_from(["{prompt}", "blurry", "a {prompt}"]),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_settings_and_config_give_the_objective_back(drawn: list[Any]) -> None:
    objective = Objective()
    for name, weight, term, prompt in drawn:
        make = prior_term if name == "smooth" else referee_term
        objective = objective + (abs(weight) if name == "smooth" else weight) * make(name, term=term, prompt=prompt)
    assert Objective.from_settings(json.loads(json.dumps(objective.settings()))) == objective
    labels = [label for _, _, term, _ in drawn if (label := term.get("label"))]
    if objective.priors and len(labels) < 2:
        assert Objective.of(objective.into(toy_config())) == objective


def test_settings_that_are_not_an_objective_are_named() -> None:
    with pytest.raises(ConfigError, match=r'referees\.0\.wieght: unknown field.*did you mean "weight"'):
        Objective.from_settings({"referees": [{"name": "toy", "wieght": 1}]})
    with pytest.raises(RefcoreError, match="no canvas; expected referees and priors"):
        Objective.from_settings({"canvas": []})


def test_the_same_plugin_twice_with_different_settings_runs_as_two() -> None:
    config = (ToyReferee(seed=1) + 2 * ToyReferee(seed=2, side=20)).into(toy_config(priors=[]))
    inversion = run(config)
    assert [use.referee.config.seed for use in inversion.engine.panel.referees] == [1, 2]
    assert set(inversion.scores()) == {"toy", "toy-2"}


def test_invert_takes_an_unregistered_class_and_its_config_reads_back() -> None:
    class Redness(ToyReferee):
        """Unregistered."""

    try:
        result = refcore.invert("a", config=toy_config(steps=1), objective=2 * Redness(seed=5) + ToyReferee)
        assert [term.name for term in result.config.referees] == ["redness", "toy"]
        again = refcore.invert("a", config=result.config.settings())
        assert torch.equal(result.images, again.images)
        assert set(refcore.invert("a", config=toy_config(steps=1), objective=Redness).samples[0].scores) == {"redness"}
    finally:
        registry.unregister("referees", "redness")


def test_a_config_takes_plugins_in_the_place_of_names() -> None:
    direct = toy_config(canvas=ToyPixel, referees=[ToyReferee(seed=3), BoundedReferee], priors=[Smooth()])
    named = toy_config(
        canvas={"name": "toy_pixel"},
        referees=[{"name": "toy", "config": {"seed": 3}}, {"name": "bounded"}],
        priors=[{"name": "smooth"}],
    )
    assert direct == named


def test_a_plugin_shows_its_settings() -> None:
    assert repr(ToyReferee(seed=4)) == "ToyReferee(seed=4)"


@pytest.mark.fault("4.6")
@pytest.mark.parametrize("terms", [{"referees": []}, {"referees": None}, {}])
def test_an_objective_alone_is_enough_for_a_run(terms: dict[str, Any]) -> None:
    config = {"canvas": {"name": "pixel"}, "size": 8, "steps": 1, "device": "cpu", **terms}
    result = refcore.invert("red", objective=referee_term("toy"), config=config)
    assert [term.name for term in result.config.referees] == ["toy"]
    by_prior = refcore.invert("red", objective=0.1 * prior_term("tv"), config=config)
    assert [term.name for term in by_prior.config.priors] == ["tv"]


@pytest.mark.fault("4.13")
def test_a_plugin_of_another_kind_has_its_article() -> None:
    affine = registry.get("augmentations", "affine")
    with pytest.raises(RefcoreError, match="Affine is an augmentation; only referees and priors"):
        as_objective(affine)
