"""A gradient is taken at its step, a finished picture at the end of the run, and numbers that change follow."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch
from pydantic import Field
from torch import Tensor
from toys import ToyLatent, ToyPixel, ToyReferee, toy_config

from refcore import registry
from refcore.config.optimize import Optimizer
from refcore.config.schedule import Linear, Piecewise, Schedule
from refcore.contracts.augmentation import Augmentation, Params
from refcore.contracts.canvas import CanvasParams
from refcore.contracts.conditioning import Conditioning
from refcore.contracts.prior import Prior
from refcore.engine.build import build, resolve
from refcore.engine.inversion import Inversion
from refcore.engine.start import start
from refcore.errors import ContractError, RefcoreError
from refcore.moment import Moment
from refcore.plugin import PluginConfig
from refcore.rng import Rng
from refcore.runs.state import load_state, save_state

pytestmark = [pytest.mark.fault("4.14"), pytest.mark.usefixtures("toys")]
STEPS = 4


class Blend(ToyPixel):
    """The coarse tensor alone at first; the fine one is blended in over the run. Remembers when it was decoded."""

    decoded: ClassVar[list[Moment]] = []

    def decode(self, params: CanvasParams, at: Moment) -> Tensor:
        self.decoded.append(at)
        return (params["coarse"] + at.progress * params["fine"]).sigmoid()


class Gain(Augmentation):
    """Multiplies each view by a number that may change over the run. Remembers when it was drawn, and what."""

    drawn: ClassVar[list[tuple[Moment, float]]] = []

    class Config(PluginConfig):
        gain: Schedule = Field(1.0, gt=0, description="The number.")

    config: Config

    def draw(self, size: tuple[int, int], rng: Rng, at: Moment) -> Params:
        gain = at.of(self.config.gain)
        self.drawn.append((at, gain))
        return {"gain": rng.uniform(gain, gain)}

    def apply(self, views: Tensor, params: Params) -> Tensor:
        return views * params["gain"].view(-1, 1, 1, 1).to(views)


class Recorder(Prior):
    """Remembers when its gradient was taken, and when it was trained."""

    space: ClassVar[Literal["latent", "image", "params"]] = "image"
    learns: ClassVar[bool] = True
    seen: ClassVar[list[tuple[str, Moment]]] = []

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """Nothing to load."""

    def gradient(self, x: Tensor, conditioning: Conditioning, at: Moment, rng: Rng) -> tuple[Tensor, None]:
        self.seen.append(("gradient", at))
        return torch.zeros_like(x), None

    def update(self, x: Any, conditioning: Conditioning, at: Moment, rng: Rng) -> None:
        self.seen.append(("update", at))


@pytest.fixture(autouse=True)
def _registered() -> None:
    registry.register("canvases", "blend", Blend)
    registry.register("augmentations", "gain", Gain)
    registry.register("priors", "recorder", Recorder)
    for memory in (Blend.decoded, Gain.drawn, Recorder.seen):
        memory.clear()


def config(**fields: Any) -> Any:
    plain = {"canvas": {"name": "blend"}, "referees": [{"name": "toy"}], "priors": [], "views": {"main": {"count": 2}}}
    return toy_config(**{**plain, "steps": STEPS, **fields})


def end(inversion: Inversion) -> Inversion:
    for _ in inversion:
        pass
    return inversion


RISING = {"kind": "linear", "start": 0.5, "end": 1.0}
END = Moment.end(STEPS)


def test_the_gradient_of_a_step_is_that_of_the_canvas_at_this_step() -> None:
    engine = build(config(prompts=["a cat"]))
    leaves = {name: value.requires_grad_() for name, value in start(engine).items()}
    for step in range(STEPS):
        image = (leaves["coarse"] + step / STEPS * leaves["fine"]).sigmoid()
        opened = engine.panel.groups["main"].open(image, (16, 16), engine.keys, Moment(step, STEPS))
        (judge,) = engine.panel.referees
        referee: Any = judge.referee
        losses = referee.judge(opened.make(range(2)), judge.conditioning, torch.zeros(2, dtype=torch.int64))
        at_source = torch.autograd.grad(losses.mean(), opened.source)[0]
        expected = torch.autograd.grad(image, list(leaves.values()), opened.pull_back(at_source), allow_unused=True)
        found = engine.gradients({name: value.detach() for name, value in leaves.items()}, [0], step).combined
        for name, part in zip(leaves, expected, strict=True):
            torch.testing.assert_close(found[name], part)
    assert not engine.gradients(start(engine), [0], 0).combined["fine"].any()  # at first it is not in the image


def test_gradients_are_taken_at_their_step_and_finished_pictures_at_the_end() -> None:
    inversion = Inversion(
        config(
            output="best",
            best={"every": 1, "views": "main"},
            candidates={"count": 2, "keep": [[2, 1]], "recent": 0},
            views={"main": {"count": 2, "augment": [{"name": "gain", "config": {"gain": RISING}}]}},
        )
    )
    Blend.decoded.clear(), Gain.drawn.clear()
    for step, _ in enumerate(inversion):
        now, *others = Blend.decoded
        assert now == Moment(step, STEPS)  # the gradient; all else are looks
        assert others
        assert set(others) == {END}
        assert Gain.drawn[0] == (Moment(step, STEPS), 0.5 + 0.5 * step / STEPS)
        assert set(Gain.drawn[1:]) <= {(END, 1.0)}
        inversion.images()
        assert Blend.decoded[-1] == END  # also in the middle of a run
        Blend.decoded.clear(), Gain.drawn.clear()
    inversion.scores()
    assert set(Blend.decoded) == {END}


def test_the_best_image_is_the_one_that_was_looked_at() -> None:
    inversion = Inversion(config(output="best", best={"every": 1}, optimizer={"name": "sgd", "lr": 5.0}))
    lowest = inversion.engine.panel.losses(inversion.images("current"))["toy"]  # of the start
    for _ in inversion:
        losses = inversion.engine.panel.losses(inversion.images("current"))["toy"]
        lowest = torch.minimum(lowest, losses)
    assert torch.equal(inversion.engine.panel.losses(inversion.images())["toy"], lowest)


def test_a_prior_is_told_the_step_by_its_gradient_and_its_training() -> None:
    end(Inversion(config(priors=[{"name": "recorder"}])))
    assert Recorder.seen == [(call, Moment(step, STEPS)) for step in range(STEPS) for call in ("gradient", "update")]


def test_the_views_that_results_are_compared_on_are_drawn_at_the_end() -> None:
    engine = build(config(views={"main": {"count": 1, "augment": [{"name": "gain", "config": {"gain": RISING}}]}}))
    picture = torch.full((2, 3, 24, 24), 0.4, dtype=torch.float64)
    at_step = engine.panel.losses(picture, None, "main", Moment(0, STEPS))["toy"]
    at_end = engine.panel.losses(picture, None, "main")["toy"]
    clean = engine.panel.losses(picture)["toy"]
    torch.testing.assert_close(at_end, clean)
    assert not torch.allclose(at_step, clean)


SCHEDULED: dict[str, Any] = {
    "views": {"main": {"count": 2, "augment": [{"name": "affine", "config": {"degrees": RISING}}]}},
    "optimizer": {
        "name": "adam",
        "lr": {"fine": {"kind": "linear", "start": 0.3, "end": 0.1}, "*": 0.05},
        "schedule": "cosine",
        "warmup": 1,
    },
    "ema": {"decay": 0.5},
}


@pytest.mark.parametrize("saved_after", [1, 3])
def test_a_scheduled_run_that_is_resumed_goes_on_to_the_bit(saved_after: int, tmp_path: Path) -> None:
    whole = end(Inversion(config(**SCHEDULED)))
    first = Inversion(config(**SCHEDULED))
    for _ in range(saved_after):
        next(first)
    path = save_state(first.state_dict(), tmp_path / "state.safetensors")
    again = end(Inversion(config(**SCHEDULED), state=load_state(path)))
    for name, value in whole.state_dict()["tensors"].items():
        assert torch.equal(value, again.state_dict()["tensors"][name]), name
    assert torch.equal(whole.images(), again.images())


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("sgd", lambda groups: torch.optim.SGD(groups, momentum=0.9, weight_decay=0.01)),
        ("adam", lambda groups: torch.optim.Adam(groups, weight_decay=0.01)),
        ("adamw", lambda groups: torch.optim.AdamW(groups, weight_decay=0.01)),
    ],
)
def test_each_tensor_moves_at_its_own_rate_as_in_a_group_of_torchs_optimiser(name: str, made: Any) -> None:
    settings = {
        "name": name,
        "lr": {"fine": RISING, "*": 0.02},
        "momentum": 0.9 * (name == "sgd"),
        "weight_decay": 0.01,
    }
    inversion = Inversion(config(optimizer=settings))
    ours = inversion.engine
    params = {name: value.detach().clone() for name, value in inversion.params.items()}
    optimizer = made([{"params": [params["coarse"]], "lr": 0.02}, {"params": [params["fine"]], "lr": 0.5}])
    for step in range(STEPS):
        optimizer.param_groups[1]["lr"] = 0.5 + 0.5 * step / STEPS
        for tensor, gradient in ours.gradients(params, [0, 1], step).combined.items():
            params[tensor].grad = gradient
        optimizer.step()
        params = dict(params)
        result = next(inversion)
        assert result.lr == {"fine": 0.5 + 0.5 * step / STEPS, "*": 0.02}
        assert result.record()["lr"] == result.lr
        for tensor, value in inversion.params.items():
            torch.testing.assert_close(value.detach(), params[tensor], rtol=1e-12, atol=1e-12)


def test_a_tensor_whose_rate_is_0_stays_as_it_is() -> None:
    inversion = Inversion(config(optimizer={"name": "adamw", "lr": {"coarse": 0, "fine": 0.1}, "weight_decay": 0.1}))
    before = {name: value.detach().clone() for name, value in inversion.params.items()}
    end(inversion)
    assert torch.equal(inversion.params["coarse"], before["coarse"])
    assert not torch.equal(inversion.params["fine"], before["fine"])


@pytest.mark.parametrize(
    ("lr", "entries"),
    [
        ({"*": 1, "f*": 2}, {"*": ["coarse"], "f*": ["fine"]}),
        ({"*": 1, "f*": 2, "fine": 3}, {"*": ["coarse"], "f*": [], "fine": ["fine"]}),
        ({"?*": 1, "*e": 2}, {"?*": ["coarse", "fine"], "*e": []}),
    ],
)
def test_a_tensor_has_the_rate_of_its_name_or_else_of_the_first_entry_that_fits(
    lr: dict[str, float], entries: dict[str, list[str]]
) -> None:
    assert Optimizer(lr=lr).tensors_of(["coarse", "fine"]) == entries


def test_warm_up_and_decay_multiply_a_scheduled_rate() -> None:
    optimizer = Optimizer(lr=Linear(start=1.0, end=0.0), schedule="linear", warmup=2, final=0.5)
    rates = [optimizer.lr_at(Moment(step, 10)) for step in (0, 1, 2, 6)]
    assert rates == pytest.approx([0.5 * 1.0, 1.0 * 0.9, 1.0 * 0.8, 0.75 * 0.4])


@pytest.mark.parametrize(
    ("lr", "message"),
    [
        ({"fien": 0.1, "*": 0.01}, r'unknown tensor of the canvas "fien" in optimizer\.lr.*coarse.*mean "fine"'),
        ({"fine": 0.1}, r'optimizer\.lr says nothing of the tensor "coarse".*add "\*" for all others'),
    ],
)
def test_a_rate_of_no_tensor_and_a_tensor_without_rate_are_refused_before_any_referee_is_loaded(
    lr: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ToyReferee, "load", lambda *_: pytest.fail("a referee was loaded"))
    with pytest.raises(RefcoreError, match=message):
        Inversion(config(optimizer={"lr": lr}))


@pytest.mark.parametrize(
    ("lr", "message"),
    [
        (0, "lr is 0, so that nothing moves"),
        (-1, "greater than or equal to 0"),
        ({"fine": {"kind": "linear", "start": 0.1, "end": -0.1}}, r"optimizer\.lr\.fine: .*greater than or equal to 0"),
        ({"kind": "liner", "start": 0.1}, r'optimizer\.lr\.kind: "liner" is unknown; .*did you mean "linear"'),
        ({"kind": "cosine", "start": 1e7, "end": 0}, r"optimizer\.lr: .*less than or equal to 1000000"),
    ],
)
def test_a_rate_out_of_bounds_is_refused_by_its_field(lr: Any, message: str) -> None:
    with pytest.raises(RefcoreError, match=message):
        config(optimizer={"lr": lr})


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (
            {"name": "affine", "config": {"degrees": {"kind": "linear", "start": 0, "end": 300}}},
            r"views\.main\.augment\.0\.config\.degrees: input should be less than or equal to 180; given: .*300",
        ),
        (
            {"name": "affine", "config": {"scale": [RISING, {"kind": "linear", "start": 1.0, "end": 0.8}]}},
            r"augment\.0\.config\.scale: .*at step 3: expected \[low, high\] with low <= high",
        ),
    ],
)
def test_a_schedule_is_held_to_the_bounds_of_its_field_over_the_whole_run(use: Any, message: str) -> None:
    with pytest.raises(RefcoreError, match=message):
        resolve(config(views={"main": {"augment": [use]}}))


def test_a_schedule_of_a_plugin_survives_the_way_through_python_and_yaml() -> None:
    gain = Gain(gain=Piecewise(pieces=[{"until": 2, "value": Linear(start=1, end=2)}, {"value": 3}]))  # type: ignore[list-item]
    made = resolve(config(views={"main": {"augment": [gain]}}))
    again = resolve(type(made).from_settings(made.settings()))
    assert again.views["main"].augment[0].config == made.views["main"].augment[0].config
    inner = made.views["main"].augment[0].config["gain"]["pieces"][0]["value"]
    assert inner == {"kind": "linear", "start": 1.0, "end": 2.0, "first": 0, "last": None}


def test_a_canvas_with_the_arguments_of_version_1_is_told_at_its_first_call() -> None:
    class Old(ToyLatent):
        def decode(self, params: CanvasParams) -> Tensor:  # type: ignore[override]
            return self.net(params["latent"])

    registry.register("canvases", "old", Old)
    with pytest.raises(ContractError, match=r'canvas "old" \(decode\) takes .*expected \(params, at\), where `at` is'):
        Inversion(config(canvas={"name": "old"})).images()


def test_a_prior_that_calls_it_step_is_told_at_its_first_call() -> None:
    class Old(Recorder):
        def gradient(self, x: Tensor, conditioning: Conditioning, step: Any, rng: Rng) -> tuple[Tensor, None]:
            return super().gradient(x, conditioning, step, rng)

    registry.register("priors", "old", Old)
    with pytest.raises(ContractError, match=r'prior "old" \(gradient\) takes .*expected \(x, conditioning, at, rng\)'):
        next(Inversion(config(priors=[{"name": "old"}])))


@pytest.mark.parametrize(("step", "steps"), [(-1, 4), (5, 4), (0, 0)])
def test_a_moment_outside_of_the_run_is_refused(step: int, steps: int) -> None:
    with pytest.raises(RefcoreError, match=rf"no step {step} of {steps}"):
        Moment(step, steps)
