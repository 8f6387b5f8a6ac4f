"""Numbers that are not finite: refused in a config by their field, and after the last update by the step."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import toy_config

from refcore.engine.inversion import Inversion
from refcore.errors import PARAMETERS, ConfigError, NonFiniteError
from refcore.runs.run import Run

pytestmark = pytest.mark.fault("5.4")

FIELDS = [
    "noise",
    *(f"optimizer.{name}" for name in ("lr", "eps", "final", "weight_decay", "momentum")),
    "optimizer.betas.1",
    "ema.decay",
    "combine.factor",
    "early_stop.min_delta",
    "referees.0.weight",
    "referees.0.satisfied_at.width",
    "referees.0.phrases.weight",
    "referees.0.phrases.whole",
    "priors.0.weight",
    "init.guidance",
    "noise.start",
    "noise.of.0",
    "noise.pieces.0.value",
    "noise.peak",
]
AROUND: dict[str, Any] = {
    "noise.start": {"kind": "linear", "end": 1.0},
    "noise.of.0": {"kind": "hypot", "of": [0.0, 1.0]},
    "noise.pieces.0.value": {"kind": "piecewise", "pieces": [{"until": 1}, {"value": 1.0}]},
    "noise.peak": {"kind": "warmup_cosine", "end": 0.0, "warmup": 1},
    "ema.decay": {},
    "early_stop.min_delta": {"patience": 1},
    "optimizer.betas.1": {"betas": [0.9, 0.99]},
    "combine.factor": {"name": "norm_balance"},
    "referees.0.satisfied_at.width": {"loss": 1.0},
    "referees.0.phrases.weight": {"parser": "grammar"},
    "referees.0.phrases.whole": {"parser": "grammar"},
    "init.guidance": {},
}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("field", FIELDS)
def test_a_setting_that_is_not_finite_is_refused_by_its_field(field: str, value: float) -> None:
    first, *path = field.split(".")
    settings: dict[str, Any] = {"referees": [{"name": "toy"}], "priors": [{"name": "smooth"}]}
    around = AROUND.get(field, {})
    if first in ("referees", "priors"):
        node: Any = settings[first][0]
        if len(path) > 2:
            node = node.setdefault(path[1], dict(around))
        node[path[-1]] = value
    elif not path:
        settings[first] = value
    else:
        node = settings[first] = json.loads(json.dumps(around))
        for part in path[:-1]:
            node = node[int(part) if part.isdecimal() else part]
        node[int(path[-1]) if path[-1].isdecimal() else path[-1]] = value
    with pytest.raises(ConfigError, match=rf"{field}: input should be a finite number; given: -?(nan|inf)"):
        toy_config(**settings)


def test_a_plugins_own_number_that_is_not_finite_is_refused_by_its_field() -> None:
    with pytest.raises(ConfigError, match=r"views\.main\.augment\.0\.config\.degrees.*finite"):
        Run(toy_config(views={"main": {"augment": [{"name": "affine", "config": {"degrees": math.nan}}]}}))


OVERFLOW = {"kind": "product", "of": [1e30] * 11}


def poisoned(at: int) -> dict[str, Any]:
    """Noise of infinite size at one step."""
    pieces = [{"until": at, "value": 0.0}, {"until": at + 1, "value": OVERFLOW}, {"value": 0.0}]
    return {"kind": "piecewise", "pieces": pieces[1:] if at == 0 else pieces}


@pytest.mark.parametrize("fields", [{}, {"ema": {"decay": 0.5}}, {"output": "best"}, {"candidates": {"count": 2}}])
@pytest.mark.parametrize("at", [0, 2, 3])
def test_an_update_that_is_not_finite_is_taken_back_and_ends_the_run(at: int, fields: dict[str, Any]) -> None:
    inversion, good = (Inversion(toy_config(steps=4, noise=n, **fields)) for n in (poisoned(at), 0.0))
    with pytest.raises(NonFiniteError, match=f'step {at}: "parameters" gave NaN or infinity') as caught:
        list(inversion)
    assert caught.value.terms == (PARAMETERS,)
    assert inversion.step == at
    for _ in range(at):
        next(good)
    rows = [good.tracks.numbers.index(number) for number in inversion.tracks.numbers]
    assert all(torch.equal(value, good.params[name][rows]) for name, value in inversion.params.items())
    assert inversion.images("current").isfinite().all()


def test_a_run_that_ends_non_finite_keeps_what_was_finite_and_is_not_finished(tmp_path: Path) -> None:
    run = Run(toy_config(steps=3, noise=poisoned(2)), out=tmp_path / "run")
    result = run.execute()
    assert isinstance(result.error, NonFiniteError)
    assert result.images.isfinite().all()
    written = json.loads((tmp_path / "run" / "result.json").read_text())
    assert written["finished"] is False
    assert written["steps"] == 2
    assert "parameters" in written["stopped"]
    assert all(isinstance(score, float) for sample in written["samples"] for score in sample["scores"].values())
