"""A run on its way is looked at without judging anything, and its views are those that its referees are shown."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from toys import ToyReferee, toy_config

from refcore.engine.inversion import Inversion
from refcore.moment import Moment

THREE = {"count": 3, "keep": [[3, 1]], "recent": 0}


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What toy referees have been shown."""
    shown: list[Tensor] = []
    judge = ToyReferee.judge

    def watch(self: ToyReferee, views: Tensor, *given: Any, **more: Any) -> Tensor:
        shown.append(views.detach().clone())
        return judge(self, views, *given, **more)

    monkeypatch.setattr(ToyReferee, "judge", watch)
    return shown


def test_without_candidates_a_glimpse_is_the_pictures_so_far(judged: list[Tensor]) -> None:
    inversion = Inversion(toy_config(ema={"decay": 0.5}, output="ema"))
    next(inversion)
    judged.clear()
    shown = inversion.glimpse([1, 0])
    assert torch.equal(shown.images, inversion.images()[[1, 0]])
    assert shown.candidates == (0, 0)
    assert not judged


def test_where_candidates_compete_the_leader_of_the_last_step_is_shown_and_nothing_is_judged(
    judged: list[Tensor],
) -> None:
    inversion = Inversion(toy_config(candidates=THREE))
    assert inversion.glimpse([0, 1]).candidates == (0, 0)
    step = next(inversion)
    judged.clear()
    shown = inversion.glimpse([0, 1])
    assert not judged
    columns = [[r for r, own in enumerate(step.candidates) if own.sample == b] for b in range(2)]
    losses = torch.stack([step.losses["toy"], step.losses["toy-2"]])
    best, _ = inversion.engine.ordered(losses, [b * 3 + c for b in range(2) for c in range(3)])
    assert [step.candidates[own[0]].candidate for own in best] == list(shown.candidates)
    row = columns[1][shown.candidates[1]]
    decoded = inversion.engine.decode({"latent": inversion.params["latent"][row : row + 1]}, Moment.end(6))
    assert torch.equal(shown.images[1], decoded[0].detach())


def test_a_try_that_has_not_been_judged_stands_behind_the_one_before() -> None:
    again = {"count": 1, "recent": 0, "by": "loss", "tries": 2, "until": -1e9}
    inversion = Inversion(toy_config(candidates=again, steps=2))
    for step in inversion:
        if step.step == 1:
            break
    assert inversion.glimpse([0, 1]).candidates == (0, 0)
    state = inversion.state_dict()
    resumed = Inversion(inversion.config, state=state)
    assert resumed.glimpse([0, 1]).candidates == (0, 0)
    next(inversion)
    assert len(inversion.candidates) == 4, "the next try begins with its first step"


def views_of(inversion: Inversion, samples: list[int], most: int) -> dict[tuple[str, ...], Tensor]:
    """The views of the last step."""
    seen = inversion.judged(samples)
    assert seen.images is not None
    return inversion.engine.views(seen.images, seen.tracks, seen.step, most)


def test_views_are_those_that_the_step_has_shown(judged: list[Tensor]) -> None:
    inversion = Inversion(toy_config())
    next(inversion)
    judged.clear()
    next(inversion)
    views = views_of(inversion, [0, 1], 2)
    assert {labels: tuple(shown.shape) for labels, shown in views.items()} == {
        ("toy",): (2, 2, 3, 16, 16),
        ("toy-2",): (2, 2, 3, 20, 20),
    }
    assert torch.equal(views[("toy",)], judged[0].view(2, 3, 3, 16, 16)[:, :2])


def test_the_pictures_of_a_step_are_those_before_it_and_cost_no_decoding() -> None:
    inversion = Inversion(toy_config())
    before = inversion.images()
    next(inversion)
    decodes = inversion.engine.canvas.decodes  # type: ignore[attr-defined]
    seen = inversion.judged([1])
    assert inversion.engine.canvas.decodes == decodes  # type: ignore[attr-defined]
    assert seen.images is not None
    assert torch.allclose(seen.images, before[1:])
    assert (seen.step, seen.samples, seen.tracks, seen.candidates) == (0, [1], [1], [0])


def test_what_took_no_part_or_was_never_decoded_is_left_out() -> None:
    latent = Inversion(toy_config(referees=[], priors=[{"name": "toy_sds"}]))
    assert latent.judged([0]).samples == []
    next(latent)
    assert latent.judged([0]).images is None
    frozen = Inversion(toy_config())
    frozen.tracks.active = [1]
    next(frozen)
    assert frozen.judged([0, 1]).samples == [1]


def test_referees_that_share_views_are_named_together_and_one_without_weight_is_shown_none() -> None:
    referees = [
        {"name": "toy", "label": "a"},
        {"name": "toy", "label": "b"},
        {"name": "toy", "label": "c", "weight": 0.0},
    ]
    inversion = Inversion(toy_config(referees=referees, steps=1))
    next(inversion)
    assert list(views_of(inversion, [0], 1)) == [("a", "b")]


def test_looking_changes_nothing_that_a_run_computes() -> None:
    quiet, looked = Inversion(toy_config(candidates=THREE)), Inversion(toy_config(candidates=THREE))
    before = torch.get_rng_state()
    for _ in range(5):
        next(quiet), looked.glimpse([0, 1]), next(looked), views_of(looked, [0], 3), looked._repr_html_()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(quiet.params["latent"], looked.params["latent"])


def test_a_running_inversion_shows_its_pictures_and_losses_in_a_notebook(judged: list[Tensor]) -> None:
    inversion = Inversion(toy_config(prompts=["a <b>", "c"]))
    assert "0 of 6 steps" in inversion._repr_html_()
    step = next(inversion)
    judged.clear()
    html = inversion._repr_html_()
    assert not judged
    assert html.count("<img ") == 2
    assert "a &lt;b&gt;" in html
    assert f"{step.losses['toy'][0]:.3f}" in html
    assert "1 of 6 steps" in html
    assert inversion._repr_png_().startswith(b"\x89PNG")
