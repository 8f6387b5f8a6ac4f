"""RunConfig: every mistake is named with its dotted field, its value and what was expected."""

from __future__ import annotations

import json
import typing
from typing import Any

import pytest
from pydantic import BaseModel

from refcore.config.run import RunConfig
from refcore.errors import ConfigError
from refcore.moment import Moment

BASE: dict[str, Any] = {"canvas": {"name": "latent"}, "referees": [{"name": "clip"}], "priors": [{"name": "sds"}]}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stps": 3}, r'^stps: unknown field; known: .*; did you mean "steps"\?$'),
        ({"steps": "many"}, r'^steps: input should be a valid integer.*; given: "many"$'),
        ({"referees": [{"name": "clip", "wieght": 1}]}, r'^referees\.0\.wieght: unknown field.*did you mean "weight"'),
        ({"referees": [{"name": "clip", "weight": "x"}]}, r'^referees\.0\.weight: .*valid number.*given: "x"$'),
        (
            {"referees": [{"name": "clip", "weight": {"kind": "cosin"}}]},
            r'^referees\.0\.weight\.kind: "cosin" is unknown',
        ),
        ({"noise": {"kind": "cosine", "start": 1}}, r"^noise\.end: required, but missing$"),
        ({"noise": {"kind": "linear", "start": 1, "end": -1}}, r"^noise falls below 0"),
        ({"noise": {"kind": "cosine", "start": 1, "end": 0, "frist": 1}}, r'^noise\.frist: .*did you mean "first"\?$'),
        ({"output": "emma"}, r'^output: "emma" is unknown; expected current, ema, best; did you mean "ema"\?$'),
        ({"output": "ema"}, r"^output is ema, but ema is null; set ema"),
        ({"combine": {"name": "summ"}}, r'^combine\.name: "summ" is unknown; .*did you mean "sum"'),
        ({"combine": {"name": "norm_balance"}, "priors": []}, r"^combine is norm_balance, but priors is empty"),
        ({"canvas": {}}, r"^canvas\.name: required, but missing$"),
        ({"prompts": ["a cat", " "]}, r"^prompts\.1 is empty"),
        ({"referees": [{"name": "clip", "views": "mian"}]}, r'unknown view group "mian".*did you mean "main"'),
        ({"referees": [{"name": "clip", "window": [5, 2]}]}, r"^referees\.0\.window: \[5, 2\] is not a window"),
        ({"views": {"main": {"count": 2, "hardest": 3}}}, r"^views\.main: hardest is 3, but count is only 2"),
        ({"optimizer": {"nesterov": True}}, r"^optimizer: nesterov is true, but momentum is 0"),
        ({"ema": {"decay": 2}}, r"^ema\.decay: input should be less than 1; given: 2$"),
        ({"size": 0}, r"^size is 0"),
        ({"referees": [], "priors": []}, r"^referees and priors are both empty"),
        ({"early_stop": {}}, r"^early_stop never stops"),
        ({"priors": [{"name": "sds", "label": "x"}, {"name": "tv", "label": "x"}]}, r'^the label "x" is given to 2'),
    ],
)
def test_a_mistake_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RunConfig.from_settings({**BASE, **fields})


def test_settings_read_back_to_an_equal_config() -> None:
    schedule = {
        "kind": "piecewise",
        "pieces": [{"until": 3, "value": {"kind": "cosine", "start": 1, "end": 0}}, {"value": 2}],
    }
    config = RunConfig.from_settings({**BASE, "noise": schedule, "size": [64, 96], "ema": {}})
    plain = json.loads(json.dumps(config.settings()))
    assert RunConfig.from_settings(plain) == config


def test_every_field_is_described() -> None:
    seen: set[type[BaseModel]] = set()
    waiting: list[Any] = [RunConfig]
    while waiting:
        found = waiting.pop()
        waiting += typing.get_args(found)
        if isinstance(found, type) and issubclass(found, BaseModel) and found not in seen:
            seen.add(found)
            waiting += [field.annotation for field in found.model_fields.values()]
            bare = [name for name, field in found.model_fields.items() if not field.description]
            assert not bare or found.__name__.startswith("_"), f"{found.__name__}: {bare}"
    assert len(seen) > 15
    assert RunConfig.model_json_schema()["additionalProperties"] is False


def test_samples_are_prompts_by_seeds_prompts_outermost() -> None:
    config = RunConfig.from_settings({**BASE, "prompts": ["a", "b"], "seeds": [1, 2]})
    assert config.samples == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]


def test_labels_are_distinct() -> None:
    terms = {"referees": [{"name": "clip"}, {"name": "clip"}, {"name": "clip", "label": "clip-2"}]}
    config = RunConfig.from_settings({**BASE, **terms, "witnesses": [{"name": "clip"}]})
    assert config.referee_labels == ["clip", "clip-3", "clip-2"]
    assert config.prior_labels == ["sds"]
    assert config.witness_labels == ["clip-4"]


def test_a_weight_is_zero_outside_its_window() -> None:
    term = RunConfig.from_settings({**BASE, "referees": [{"name": "clip", "weight": 3, "window": [2, 4]}]}).referees[0]
    assert [term.weight_at(t, 10) for t in range(6)] == [0, 0, 3, 3, 0, 0]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("constant", [0.5, 1.0, 1.0, 1.0]), ("linear", [0.5, 1.0, 1.0, 0.6]), ("cosine", [0.5, 1.0, 1.0, 0.6])],
)
def test_the_learning_rate_warms_up_and_falls(schedule: str, expected: list[float]) -> None:
    optimizer = RunConfig.from_settings(
        {**BASE, "optimizer": {"lr": 1.0, "warmup": 2, "schedule": schedule, "final": 0.2}}
    ).optimizer
    assert [optimizer.lr_at(Moment(t, 10)) for t in (0, 1, 2, 6)] == pytest.approx(expected)


def with_prompts(*prompts: Any, **fields: Any) -> RunConfig:
    return RunConfig.from_settings({**BASE, "referees": [{"name": "clip", "prompt": list(prompts), **fields}]})


def test_a_list_of_prompts_with_weights_and_stop_values_is_as_many_referees() -> None:
    config = with_prompts("{prompt}", "a sign: open:0.5", "an oil painting:0.25:0.4", "text:-0.3", weight=2.0)
    assert [term.prompt for term in config.referees] == ["{prompt}", "a sign: open", "an oil painting", "text"]
    assert [term.weight for term in config.referees] == [2.0, 1.0, 0.5, -0.6]
    stops = [term.satisfied_at and term.satisfied_at.loss for term in config.referees]
    assert stops == [None, None, 0.4, None]
    assert config.referee_labels == ["clip", "clip-2", "clip-3", "clip-4"]
    assert with_prompts("a", "b", label="look").referee_labels == ["look", "look-2"]
    assert RunConfig.from_settings(config.settings()) == config


@pytest.mark.parametrize(
    ("prompts", "fields", "message"),
    [
        ([], {}, r"prompt is \[\]; expected a text, or a list of texts"),
        ([3], {}, r"prompt is \[3\]; expected a text"),
        (["a:0.5"], {"weight": {"kind": "linear", "start": 1, "end": 2}}, 'prompt "a:0.5" has a weight, and so has'),
        (["a:1:0.2"], {"satisfied_at": 0.1}, 'prompt "a:1:0.2" has a stop value, and its referee has `satisfied_at`'),
        (["a:-1:0.2"], {}, "satisfied_at`, which needs a weight of 0 or more"),
    ],
)
def test_lists_of_prompts_that_make_no_referees_are_refused(prompts: Any, fields: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        with_prompts(*prompts, **fields)
