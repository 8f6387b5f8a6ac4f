"""A panel without a canvas says of images what the engine of a run says of them, and plans its chunks as a run does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from toys import toy_config

from refcore.config.panel import Labelled, PanelConfig
from refcore.config.terms import RefereeTerm
from refcore.engine import memory
from refcore.engine.build import build
from refcore.engine.loading import load_panel
from refcore.engine.start import start
from refcore.errors import RefcoreError
from refcore.moment import Moment


def images(config: Any) -> torch.Tensor:
    engine = build(config)
    with torch.no_grad():
        return engine.decode(start(engine), engine.end)


def test_losses_and_scores_are_those_of_a_run() -> None:
    config = toy_config(witnesses=[{"name": "toy", "label": "far", "coarse": 8}])
    pictures = images(config)
    panel, engine = load_panel(config.panel), build(config)
    for ours, theirs in (
        (panel.scores(pictures), engine.panel.scores(pictures)),
        (panel.losses(pictures), engine.losses(pictures, [0, 1])),
        (panel.losses(pictures, [1, 0], "main", Moment(3, 6)), engine.losses(pictures, [1, 0], "main", Moment(3, 6))),
    ):
        assert list(ours) == list(theirs)
        assert all(torch.equal(ours[label], theirs[label]) for label in ours)
    assert set(panel.scores(pictures)) == {"toy", "toy-2", "far"}


def test_a_sample_may_have_several_images_and_an_image_any_sample() -> None:
    config = toy_config()
    pictures, panel = images(config), load_panel(config.panel)
    twice = panel.losses(pictures[[0, 1, 0]], [0, 1, 0], "main")
    once = panel.losses(pictures, None, "main")
    assert all(torch.equal(twice[label], once[label][[0, 1, 0]]) for label in once)


def test_the_gradient_is_the_slope_of_the_weighted_losses() -> None:
    config = toy_config(views={"main": {"count": 2}})
    panel = load_panel(config.panel)
    pictures = images(config).requires_grad_()
    keys, way = [0, 1], torch.randn(pictures.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = {judge.label: (g, loss) for judge, g, loss in panel.gradients(pictures, keys, [0, 1], Moment(0, 6))}
    for judge in panel.referees:
        gradient, _ = found[judge.label]

        def loss(shift: float, judge: Any = judge) -> torch.Tensor:
            moved = panel.losses((pictures + shift * way).detach(), [0, 1], judge.term.views, Moment(0, 6))
            return judge.term.weight_at(0, 1) * moved[judge.label]

        slope = (loss(1e-6) - loss(-1e-6)) / 2e-6
        assert torch.allclose(slope, (gradient * way).flatten(1).sum(1), rtol=1e-5)


def test_a_panel_of_terms_without_a_run_plans_its_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: 1)
    own = Labelled("mine", RefereeTerm.model_validate({"name": "toy", "views": "clean"}), "--referee")
    panel = load_panel(PanelConfig([("a cat", 0), ("a dog", 0), ("a fox", 0)], [own]))
    assert panel.chunks == {"mine": 1}
    fixed = load_panel(replace(panel.config, chunk=2))
    assert fixed.chunks == {}
    pictures = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(panel.losses(pictures)["mine"], fixed.losses(pictures)["mine"], atol=1e-6)


def test_what_cannot_be_loaded_is_named_by_where_it_was_given() -> None:
    own = Labelled("mine", RefereeTerm(name="tyo"), "--referee")
    with pytest.raises(RefcoreError, match=r'unknown referee "tyo" in --referee.*did you mean "toy"'):
        load_panel(PanelConfig([("a cat", 0)], [own]))
