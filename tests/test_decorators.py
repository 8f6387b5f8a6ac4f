"""A decorated function is a plugin: its settings are a config, and its values are checked."""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated, Any

import pytest
import torch
from pydantic import Field
from torch import Tensor

import refcore
from refcore.config.run import RunConfig
from refcore.errors import RefcoreError
from refcore.moment import Moment
from refcore.rng import Rng

CPU = torch.device("cpu")
CONFIG = {"canvas": {"name": "pixel"}, "size": 12, "referees": [{"name": "clip"}], "steps": 12, "device": "cpu"}


def loaded(cls: Any, **fields: Any) -> Any:
    plugin = cls(**fields)
    plugin.load(CPU, torch.float32)
    return plugin


def judged(plugin: Any, wanted: bool = True, n: int = 2) -> Tensor:
    views = torch.rand(n, 3, *plugin.input_size, generator=torch.Generator().manual_seed(0), requires_grad=True)
    return plugin.judge(views, plugin.read(["red", "blue"]), torch.arange(n) % 2, wanted)


def test_a_function_is_a_referee_that_a_run_descends() -> None:
    @refcore.referee(input_size=(8, 10))
    def redness(views: Tensor, prompts: list[str], *, target: float = 0.8) -> Tensor:
        """Wants red."""
        assert views.shape[1:] == (3, 8, 10)
        assert set(prompts) == {"anything"}
        return (views[:, 0] - target).square().mean((1, 2))

    result = refcore.invert(
        "anything", config=CONFIG, objective=2 * redness(target=0.9), overrides=["optimizer.lr=0.5"]
    )
    assert result.images[0, 0].mean() > 0.85
    assert result.config.referees[0].config == {"target": 0.9}
    assert (redness.__doc__, redness.name) == ("Wants red.", "redness")
    assert issubclass(redness, refcore.Referee)


def test_settings_are_fields_with_their_types_and_constraints() -> None:
    @refcore.referee
    def tuned(views: Tensor, *, power: Annotated[int, Field(ge=1, description="Of the mean.")] = 2, mode="a") -> Tensor:
        return views.mean((1, 2, 3)) ** power

    fields = tuned.Config.model_fields
    assert fields["power"].description == "Of the mean."
    assert tuned(power=3).config.model_dump() == {"power": 3, "mode": "a"}
    config = RunConfig.from_settings({**CONFIG, "referees": [tuned(power=3)]})
    assert refcore.resolve(config).referees[0].config == {"power": 3, "mode": "a"}
    wrong = RunConfig.from_settings({**CONFIG, "referees": [{"name": "tuned", "config": {"power": 0}}]})
    with pytest.raises(RefcoreError, match=r"referees\.0\.config\.power: .*greater than or equal to 1"):
        refcore.resolve(wrong)


def test_a_probability_has_a_loss_and_a_negated_question() -> None:
    @refcore.referee(returns="probability", input_size=4)
    def bright(views: Tensor) -> Tensor:
        return views.mean((1, 2, 3))

    plugin = loaded(bright)
    yes, no = judged(plugin), judged(plugin, wanted=False)
    assert torch.allclose((-yes).exp() + (-no).exp(), torch.ones(2), atol=1e-6)
    score = plugin.score(torch.full((1, 3, 4, 4), 0.25), plugin.read(["x"]))
    assert (score.tolist(), plugin.score_unit) == ([0.25], "probability")


def test_a_loss_is_negated_by_its_function_or_not_at_all() -> None:
    @refcore.referee(input_size=4)
    def one_way(views: Tensor) -> Tensor:
        return views.mean((1, 2, 3))

    @refcore.referee(input_size=4)
    def two_way(views: Tensor, wanted: bool) -> Tensor:
        return views.mean((1, 2, 3)) if wanted else 1 - views.mean((1, 2, 3))

    with pytest.raises(RefcoreError, match=r'"one_way" has a loss without a negated question.*returns="probability"'):
        judged(loaded(one_way), wanted=False)
    assert torch.allclose(judged(loaded(two_way)) + judged(loaded(two_way), wanted=False), torch.ones(2))
    assert loaded(one_way).score(torch.ones(1, 3, 4, 4), one_way().read(["x"])).tolist() == [-1]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda views: views.mean(), r"returned a tensor \[\] for images \[2, 3, 4, 4\]; expected \[2\]"),
        (lambda views: views.mean((2, 3)), r"returned a tensor \[2, 3\]"),
        (lambda views: 0.5, "returned float; expected a tensor"),
        (lambda views: torch.tensor([1, 2]), r"returned torch\.int64; expected a floating-point dtype"),
        (lambda views: views.detach().mean((1, 2, 3)), "lost the gradient"),
        (lambda views: views.mean((1, 2, 3)).to("meta"), "on meta; its images are on cpu"),
    ],
)
def test_what_a_function_returns_is_checked(function: Any, message: str) -> None:
    with pytest.raises(RefcoreError, match=message):
        judged(loaded(refcore.referee(name="wrong", input_size=4)(function)))


def test_a_probability_outside_its_range_is_refused() -> None:
    plugin = loaded(
        refcore.referee(name="p", returns="probability", input_size=4)(lambda views: 3 + views.mean((1, 2, 3)))
    )
    with pytest.raises(RefcoreError, match=r'from 3.* expected 0 to 1, or returns="loss"'):
        judged(plugin)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda: 0, "takes no images"),
        (lambda views, strength: 0, '"strength".*has no default.*prompts, wanted'),
        (lambda views, **more: 0, r'"\*\*more".*has no default'),
        (3, "3 is not a function"),
    ],
)
def test_a_signature_that_does_not_fit_is_refused(function: Any, message: str) -> None:
    with pytest.raises(RefcoreError, match=message):
        refcore.referee(function)


def test_a_function_is_a_prior_with_the_gradient_of_its_value() -> None:
    @refcore.prior
    def dim(images: Tensor, prompts: list[str], at: Moment, rng: Rng, *, target: float = 0.5) -> Tensor:
        assert (len(prompts), at.step, rng.n) == (2, 3, 2)
        return (images - target).square().sum((1, 2, 3)) / 2

    plugin = loaded(dim, target=0.25)
    x = torch.rand(2, 3, 4, 4)
    gradient, value = plugin.gradient(x, plugin.read(["a", "b"]), Moment(3, 10), Rng([0, 1], 3, "test"))
    assert torch.allclose(gradient, x - 0.25)
    assert torch.allclose(value, (x - 0.25).square().sum((1, 2, 3)) / 2)
    assert not gradient.requires_grad
    assert not value.requires_grad


def test_a_latent_function_refuses_a_canvas_without_latents() -> None:
    small = refcore.prior(name="small", space="latent")(lambda z: z.square().mean((1, 2, 3)))
    with pytest.raises(RefcoreError, match='prior "small" works on latents, but canvas "pixel" has none'):
        refcore.invert("a", config={**CONFIG, "referees": [], "priors": [small]})


def test_the_decorators_are_there_whichever_module_was_imported_first() -> None:
    assert callable(refcore.referee)  # here `refcore` was the first; in another process its module is
    code = "import refcore.contracts.referee, refcore; assert callable(refcore.referee) and callable(refcore.prior)"
    code += "; from refcore.contracts.referee import Referee; from refcore import prior; assert callable(prior)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
