"""Measured smoothness matches exact results: the Hessian of a quadratic, and the effect of noise on a cosine."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import Field
from torch import Tensor
from toys import toy_config

from refcore import registry
from refcore.config.run import RunConfig
from refcore.contracts.canvas import Canvas, CanvasParams
from refcore.contracts.conditioning import Conditioning
from refcore.contracts.referee import Referee
from refcore.diagnostics.smoothness import Point, SmoothnessReport, extreme_eigenvalues, measure, measure_smoothness
from refcore.engine import checks
from refcore.errors import RefcoreError
from refcore.moment import Moment
from refcore.plugin import PluginConfig
from refcore.rng import Rng

SIDE = 4
D = 3 * SIDE * SIDE
EIGENVALUES = torch.linspace(-2, 5, D, dtype=torch.float64)
BASIS = torch.linalg.qr(torch.randn(D, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q
HESSIAN = BASIS @ EIGENVALUES.diag() @ BASIS.T
SCALE = 3.0
"""The canvas's pixels are this times its parameters."""


class Plain(Canvas):
    """Pixels without bounds, SCALE times the parameters."""

    def load(self, device: torch.device, dtype: torch.dtype, size: tuple[int, int] | None = None) -> None:
        self.device, self.size = device, size or (SIDE, SIDE)

    def init(self, rng: Rng) -> CanvasParams:
        return {"pixels": rng.normal(3, *self.size)}

    def decode(self, params: CanvasParams, at: Moment) -> Tensor:
        return SCALE * params["pixels"]


class Quadratic(Referee):
    """x' H x / 2, whatever the prompt."""

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype, self.input_size = device, dtype, (SIDE, SIDE)

    def read(self, prompts: Sequence[str]) -> Conditioning:
        return Conditioning(tuple(prompts))

    def judge(self, views: Tensor, conditioning: Conditioning, prompt_index: Tensor, wanted: bool = True) -> Tensor:
        flat = views.flatten(1)
        return 0.5 * (flat @ HESSIAN.to(flat) * flat).sum(1)

    def score(self, images: Tensor, conditioning: Conditioning) -> Tensor:
        return -self.judge(images, conditioning, torch.zeros(len(images)))


class Waves(Quadratic):
    """sum of 1 - cos(k x), over k^2: at 0 every eigenvalue is 1, and exp(-k^2 std^2 / 2) under Gaussian noise."""

    class Config(PluginConfig):
        k: float = Field(10.0, description="Frequency.")

    def judge(self, views: Tensor, conditioning: Conditioning, prompt_index: Tensor, wanted: bool = True) -> Tensor:
        return (1 - torch.cos(self.config.k * views)).flatten(1).sum(1) / self.config.k**2


PLUGINS: dict[str, dict[registry.Kind, Any]] = {
    "plain": {"canvases": Plain},
    "quadratic": {"referees": Quadratic},
    "waves": {"referees": Waves},
}


@pytest.fixture(autouse=True)
def _unbounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Functions whose curvature is known have no bounds, and no picture."""
    monkeypatch.setattr(checks, "OVERSHOOT", torch.inf)


@pytest.fixture(autouse=True, scope="module")
def _plugins() -> Iterator[None]:
    for name, kinds in PLUGINS.items():
        for kind, cls in kinds.items():
            registry.register(kind, name, cls, "of the tests")
    yield
    for name, kinds in PLUGINS.items():
        for kind in kinds:
            registry.unregister(kind, name)


def config(**fields: Any) -> RunConfig:
    own = {"canvas": {"name": "plain"}, "referees": [{"name": "quadratic", "weight": 2.0}], "priors": [], "views": {}}
    settings = {**own, "prompts": ["a"], "optimizer": {"name": "sgd", "lr": 0.01}, "steps": 4, **fields}
    settings["views"] = {"main": {"count": 2, "augment": []}, **settings["views"]}
    return toy_config(**settings)


def waves(**fields: Any) -> RunConfig:
    return config(referees=[{"name": "waves"}], **fields)


@pytest.mark.parametrize(("at", "scale"), [("params", 2 * SCALE**2), ("image", 2.0)])
def test_the_curvature_of_a_quadratic_is_its_hessian(at: Any, scale: float) -> None:
    (point,) = measure_smoothness(config(), [0], [0], at=at, directions=64, tolerance=1e-6).points
    assert point.dimension == D
    assert point.smallest == pytest.approx(scale * -2, rel=1e-5)
    assert point.largest == pytest.approx(scale * 5, rel=1e-5)
    rms = scale * float(EIGENVALUES.square().mean().sqrt())
    assert point.rms_eigenvalue == pytest.approx(rms, rel=0.1)
    assert point.condition == pytest.approx(scale * 5 / point.rms_eigenvalue)
    assert rms < point.lipschitz_random < scale * 5


def test_the_constant_along_the_step_is_that_of_the_step_which_is_taken() -> None:
    found = measure_smoothness(config(), [0, 2, 4], [0])
    with_prior = measure_smoothness(config(priors=[{"name": "smooth"}]), [0], [0]).points[0]
    z = Plain()
    z.load(torch.device("cpu"), torch.float64)
    x = z.init(Rng([3], 0, "init"))["pixels"].double().flatten()
    hessian = 2 * SCALE**2 * HESSIAN
    for step in range(5):
        gradient = hessian @ x
        if step in (0, 2):
            (point,) = (p for p in found.points if p.step == step)
            assert point.gradient_norm == pytest.approx(float(gradient.norm()), rel=1e-9)
            assert point.lipschitz_step == pytest.approx(float((hessian @ gradient).norm() / gradient.norm()), rel=1e-6)
            assert point.loss == pytest.approx(float(0.5 * x @ gradient), rel=1e-9)
        x = x - 0.01 * gradient
    assert found.points[-1].step == 4  # at the end of the run: along the step that led there
    assert found.points[-1].lipschitz_step is not None
    assert with_prior.loss == found.points[0].loss  # priors move the run but are not part of the loss
    assert with_prior.lipschitz_step != found.points[0].lipschitz_step


def test_more_views_of_more_noise_are_smoother() -> None:
    settings = waves(steps=1)
    clean, one, many = measure_smoothness(settings, [0], [0, 1, 256], [0.15], at="image").points
    assert (clean.noise, one.noise, many.noise) == (None, 0.15, 0.15)
    smoothed = math.exp(-((10 * 0.15) ** 2) / 2)
    assert clean.largest is not None
    assert many.largest is not None
    assert one.largest is not None
    assert clean.largest > 0.9  # one of 48 cosines at random points is near its peak
    assert one.largest > 0.9  # one noisy view is another point of the same loss, and as rough
    assert many.largest < smoothed + 4 / math.sqrt(2 * 256)


def test_a_measurement_is_deterministic_and_survives_json() -> None:
    settings = waves(views={"main": {"count": 3, "augment": [{"name": "gaussian_noise", "config": {"std": [0, 0.2]}}]}})
    first, again = measure_smoothness(settings, [1], [None, 2]), measure_smoothness(settings, [1], [None, 2])
    assert first.points == again.points
    assert [point.views for point in first.points] == [None, 2]
    assert first.points[0].loss != first.points[1].loss
    found = json.loads(json.dumps(first.to_dict()))
    assert found["points"][0]["condition"] == first.points[0].condition
    assert RunConfig.from_settings(found["config"]).steps == 4


def test_a_sample_is_measured_as_it_is_alone_and_rows_are_medians() -> None:
    settings = waves(prompts=["a"], seeds=[1, 2, 3])
    report = measure_smoothness(settings, [0], [2])
    (row,) = report.rows()
    assert row["samples"] == 3
    assert row["largest"] == sorted(p.largest for p in report.points if p.largest is not None)[1]
    alone = measure_smoothness(waves(prompts=["a"], seeds=[2]), [0], [2]).points[0]
    assert alone == report.points[1]


def test_a_run_with_candidates_is_followed_along_the_first() -> None:
    many = waves(candidates={"count": 3, "keep": [[1, 1]]})
    assert measure_smoothness(many, [2], [0]).points == measure_smoothness(waves(), [2], [0]).points


def test_eigenvalues_of_large_and_small_matrices() -> None:
    values = np.linspace(-1, 30, 200)
    smallest, largest = extreme_eigenvalues(lambda v: values * v, 200, 1e-6)
    assert (smallest, largest) == (pytest.approx(-1, abs=1e-4), pytest.approx(30, rel=1e-6))
    assert extreme_eigenvalues(lambda v: np.array([3.0, -4.0]) * v, 2) == (-4, 3)


def test_what_does_not_converge_is_none_and_has_no_condition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refcore.diagnostics.smoothness.RESTARTS", 1)
    values = np.linspace(0, 1, 4000) ** 0.1
    found = measure(
        lambda x: values * x, np.ones(4000), None, torch.Generator().manual_seed(0), 1, 0.1, 1e-9, 1e-4, lambda x: 0.0
    )
    assert (found["largest"], found["smallest"], found["lipschitz_step"]) == (None, None, None)
    point = Point("a", 0, 0, None, None, 4000, **found)
    assert point.condition is None
    report = SmoothnessReport("params", 1, 0.1, "float64", {}, (point,))
    assert report.rows()[0]["largest"] is None


@pytest.mark.parametrize(
    ("fields", "arguments", "message"),
    [
        ({"prompts": []}, {}, "prompts is empty"),
        ({"referees": [], "priors": [{"name": "smooth"}]}, {}, "referees is empty"),
        ({}, {"steps": [5]}, "step 5 is outside the run; expected 0 to 4"),
        ({"referees": [{"name": "quadratic", "window": [0, 2]}]}, {"steps": [3]}, "no referee takes part in step 3"),
        ({}, {"views": [-1]}, "views is -1"),
        ({}, {"noise": [-0.1]}, "noise is -0.1"),
        ({}, {"radius": 0.0}, "radius 0 and"),
        (
            {"referees": [{"name": "quadratic", "satisfied_at": 1e9}], "early_stop": {"every": 1}},
            {"steps": [4]},
            "step 4 is never reached: every sample stopped after 1 steps",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused(fields: dict[str, Any], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(RefcoreError, match=message):
        measure_smoothness(config(**fields), **{"steps": [0], **arguments})
