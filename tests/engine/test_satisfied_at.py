"""A referee that has had enough stops pushing, sample by sample, by a number or by a calibration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from toys import toy_config

from refcore.calibration import Calibration, Curve, quantiles
from refcore.engine.build import build
from refcore.engine.gradients import StepGradients
from refcore.engine.start import start
from refcore.engine.step import Engine
from refcore.errors import ConfigError, RefcoreError

TERMS: list[dict[str, Any]] = [{"name": "toy", "weight": 2.0}, {"name": "toy", "config": {"seed": 1}}]


def first_step(engine: Engine) -> StepGradients:
    return engine.gradients(start(engine), list(range(len(engine.keys))), 0)


def with_satisfied_at(satisfied_at: Any, **fields: Any) -> StepGradients:
    return first_step(
        build(toy_config(referees=[{**TERMS[0], "satisfied_at": satisfied_at}, TERMS[1]], priors=[], **fields))
    )


def test_the_satisfied_samples_gradient_is_zero_and_the_others_is_whole() -> None:
    free = first_step(build(toy_config(referees=TERMS, priors=[])))
    other = first_step(build(toy_config(referees=TERMS[1:], priors=[])))
    low = int(free.losses["toy"].argmin())
    between = float(free.losses["toy"].mean())
    gated = with_satisfied_at(between)
    assert torch.equal(gated.losses["toy"], free.losses["toy"])
    assert gated.norms["toy"][low] == 0
    assert torch.allclose(gated.combined["latent"][low], other.combined["latent"][low], atol=1e-12)
    assert torch.equal(gated.norms["toy"][1 - low], free.norms["toy"][1 - low])
    assert torch.allclose(gated.combined["latent"][1 - low], free.combined["latent"][1 - low], atol=1e-12)


def test_with_a_width_the_gradient_fades_linearly() -> None:
    free = first_step(build(toy_config(referees=TERMS, priors=[])))
    threshold, width = float(free.losses["toy"].min()) - 0.1, 0.4
    gated = with_satisfied_at({"loss": threshold, "width": width})
    factor = ((free.losses["toy"] - threshold) / width).clamp(0, 1)
    assert 0 < float(factor.min()) < 1
    assert torch.allclose(gated.norms["toy"], factor * free.norms["toy"])


def test_a_batch_is_gated_as_its_samples_alone() -> None:
    losses = first_step(build(toy_config(referees=TERMS, priors=[]))).losses["toy"]
    satisfied_at = float(losses.mean())
    whole = with_satisfied_at(satisfied_at).combined["latent"]
    for i, prompt in enumerate(["a cat", "a dog"]):
        alone = with_satisfied_at(satisfied_at, prompts=[prompt]).combined["latent"]
        assert torch.allclose(alone[0], whole[i], rtol=0, atol=1e-10)


def written(path: Path, **fields: Any) -> str:
    own = {"seed": 0, "side": 16, "context": 100, "nan_at": None}
    curve = Curve("toy", own, "{prompt}", True, 6, quantiles([0.0, 0.4, 1.0]), {"a dog": quantiles([2.0, 3.0])})
    path.write_text(Calibration((curve,), {"split": "seen"}).to_json())
    return str(path)


def test_a_calibration_gives_the_threshold_of_all_prompts_or_of_each(tmp_path: Path) -> None:
    satisfied_at = {"calibration": written(tmp_path / "c.json"), "quantile": 0.75}
    assert build(toy_config(referees=[{**TERMS[0], "satisfied_at": satisfied_at}])).panel.referees[
        0
    ].satisfied_at == pytest.approx([0.7, 0.7])
    per = {**satisfied_at, "per": "prompt"}
    dog = build(toy_config(prompts=["a dog"], referees=[{**TERMS[0], "satisfied_at": per}]))
    assert dog.panel.referees[0].satisfied_at == pytest.approx([2.75])
    with pytest.raises(RefcoreError, match='has no prompt "a cat"'):
        build(toy_config(referees=[{**TERMS[0], "satisfied_at": per}]))


def test_a_calibration_of_another_question_is_refused(tmp_path: Path) -> None:
    satisfied_at = {"calibration": written(tmp_path / "c.json"), "quantile": 0.5}
    with pytest.raises(
        RefcoreError, match=r'referees\.0\.satisfied_at: .* has no calibration of "toy".*calibrate this'
    ):
        build(toy_config(referees=[{**TERMS[1], "satisfied_at": satisfied_at}]))
    with pytest.raises(RefcoreError, match="cannot read the calibration"):
        build(
            toy_config(
                referees=[{**TERMS[0], "satisfied_at": {**satisfied_at, "calibration": str(tmp_path / "no.json")}}]
            )
        )
    (tmp_path / "bad.json").write_text("[]")
    with pytest.raises(RefcoreError, match="is not a calibration"):
        build(
            toy_config(
                referees=[{**TERMS[0], "satisfied_at": {**satisfied_at, "calibration": str(tmp_path / "bad.json")}}]
            )
        )


@pytest.mark.parametrize(
    ("satisfied_at", "message"),
    [
        ({}, "expected either `loss`, or `quantile`"),
        ({"loss": 1.0, "quantile": 0.5, "calibration": "c"}, "expected either `loss`"),
        ({"quantile": 0.5}, "expected both `quantile` and `calibration`"),
        ({"loss": 1.0, "per": "prompt"}, "needs `calibration`"),
        ({"quantile": 1.5, "calibration": "c"}, r"satisfied_at\.quantile: .*given: 1\.5"),
    ],
)
def test_a_threshold_that_says_too_little_or_too_much_is_refused(satisfied_at: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        toy_config(referees=[{"name": "toy", "satisfied_at": satisfied_at}])


def test_enough_of_a_loss_that_is_pushed_up_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"referees\.0 has `satisfied_at`, which needs a weight of 0 or more"):
        toy_config(referees=[{"name": "bounded", "weight": -1.0, "satisfied_at": 0.2}])
