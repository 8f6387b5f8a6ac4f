"""Offload: weights are on the device only while their plugin is evaluated, one plugin at a time, and bits stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from toys import ToyReferee, run, toy_config

from refcore.config.run import RunConfig
from refcore.engine import offload
from refcore.engine.build import build
from refcore.engine.inversion import Inversion
from refcore.engine.models import Models
from refcore.engine.networks import tensors
from refcore.engine.start import start
from refcore.engine.step import Engine


class Elsewhere:
    """A device and a host that cannot be confused: on the host, a weight is a ticket that no operation can use."""

    def __init__(self) -> None:
        self.stored: list[Tensor] = []
        self.watch: Callable[[], Any] = lambda: None

    def to_host(self, weight: Tensor) -> Tensor:
        self.stored.append(weight.detach().clone())
        return torch.tensor([len(self.stored) - 1])

    def to_device(self, ticket: Tensor, device: torch.device) -> Tensor:
        self.watch()
        return self.stored[int(ticket)].clone()


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    place = Elsewhere()
    monkeypatch.setattr(offload, "is_apart", lambda device: True)
    monkeypatch.setattr(offload, "to_host", place.to_host)
    monkeypatch.setattr(offload, "to_device", place.to_device)
    return place


def here(engine: Engine) -> set[int]:
    """Ids of the referees, witnesses and priors that have a weight on the device."""
    panel = engine.panel
    plugins = [judge.referee for judge in (*panel.referees, *panel.witnesses)] + [one.prior for one in engine.priors]
    return {id(plugin) for plugin in plugins if any(weight.dim() > 1 for weight in tensors(plugin))}


FIELDS: dict[str, Any] = {
    "witnesses": [{"name": "toy", "config": {"seed": 5}}],
    "views": {"main": {"count": 3, "hardest": 2}},
    "output": "best",
    "steps": 3,
}


def test_bits_stay_and_at_most_one_model_is_on_the_device(elsewhere: Elsewhere) -> None:
    plain = run(toy_config(**FIELDS))
    assert not elsewhere.stored
    inversion = Inversion(toy_config(**FIELDS, offload="cpu"))
    entered: list[set[int]] = []
    elsewhere.watch = lambda: entered.append(here(inversion.engine))
    list(inversion)
    assert entered
    assert max(map(len, entered)) == 1
    assert len(set().union(*entered)) == 2 + 1  # two referees, and the prior with a network
    assert not here(inversion.engine)
    assert torch.equal(inversion.params["latent"], plain.params["latent"])
    images = plain.images()
    ours, theirs = inversion.engine.panel.scores(images), plain.engine.panel.scores(images)
    assert all(torch.equal(ours[label], theirs[label]) for label in theirs)


def test_embedded_models_give_the_same_bits(elsewhere: Elsewhere) -> None:
    settings: dict[str, Any] = {
        "prompts": ["a red circle"],
        "canvas": {"name": "pixel"},  # without latents, so that the prior encodes the image
        "size": 64,
        "referees": [{"name": "clip"}, {"name": "blip2"}],
        "priors": [{"name": "sds"}],
        "views": {"main": {"count": 1}},
        "device": "cpu",
    }
    moved = []
    for place in (None, "cpu"):
        engine = build(RunConfig.from_settings({**settings, "offload": place}))
        engine.plan()
        engine.finish_reading()
        moved.append(engine.gradients(start(engine), [0], 0).combined)
    assert len(elsewhere.stored) > 500
    assert all(torch.equal(moved[0][name], moved[1][name]) for name in moved[0])


def test_weights_leave_after_an_error_too(elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = build(toy_config(offload="cpu"))
    params = start(engine)
    monkeypatch.setattr(ToyReferee, "logits", lambda *given: 1 / 0)
    with pytest.raises(Exception, match="division by zero"):
        engine.gradients(params, [0, 1], 0)
    assert not here(engine)
    monkeypatch.undo()


def test_a_run_without_offload_gets_no_model_that_waits_elsewhere(elsewhere: Elsewhere) -> None:
    with Models() as models:
        away, stays = (build(toy_config(offload=place), models) for place in ("cpu", None))
        assert not here(away)
        assert len(here(stays)) == 3
        again = build(toy_config(offload="cpu"), models)
        assert again.panel.referees[0].referee is away.panel.referees[0].referee


def test_on_a_cpu_nothing_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offload, "to_host", lambda weight: pytest.fail("copied"))
    assert len(here(build(toy_config(offload="cpu")))) == 3
