"""The preset `clipdraw`: the rates and views of the authors' notebook; and its small sister in the playground."""

from __future__ import annotations

from pathlib import Path

import pytest

import refcore
from refcore.config import presets
from refcore.moment import Moment

DEMO = "a red circle left of a blue square"


def test_its_rates_fall_at_half_and_three_quarters_of_the_run_for_points_alone() -> None:
    config = presets.compose("clipdraw", prompts=["a cat"])
    rates = [config.optimizer.lr_at(Moment(step, config.steps)) for step in (0, 499, 500, 749, 750, 999)]
    assert [rate["points"] for rate in rates if isinstance(rate, dict)] == [1.0, 1.0, 0.4, 0.4, 0.1, 0.1]
    for rate in rates:
        assert isinstance(rate, dict)
        assert (rate["widths"], rate["colours"]) == (0.1, 0.01)


def test_four_views_are_bent_and_cropped_on_white() -> None:
    views = presets.compose("clipdraw", prompts=["a cat"]).views["main"]
    assert (views.count, views.padding) == (4, "ones")
    assert [use.name for use in views.augment] == ["perspective", "resized_crop"]


def test_in_the_playground_three_shapes_are_drawn_without_a_diffusion_model() -> None:
    config = presets.compose("playground-clipdraw", prompts=[DEMO])
    assert {term.name for term in config.priors} == {"l2", "tv"}
    few = ["steps=2", "candidates={count: 1}", "views.main.count=1"]
    result = refcore.invert(DEMO, preset="playground-clipdraw", overrides=few)
    assert result[0].files[".svg"].count("<path") == 3
    assert result[0].verdict is not None


@pytest.mark.slow
def test_it_raises_the_score_of_its_referee_on_the_embedded_one(tmp_path: Path) -> None:
    """With a tenth of the strokes and steps, at the size of the playground's CLIP."""
    small = [
        "referees.0.config={model: 'playground:clip'}",
        "size=64",
        "steps=60",
        "canvas.config.strokes=24",
        "optimizer.lr={points: 1.0, widths: 0.1, colours: 0.03}",
    ]
    scores = [
        refcore.invert("a red circle", preset="clipdraw", overrides=[*small, *more], out=tmp_path / str(i))[0].scores
        for i, more in enumerate([["optimizer.lr={points: 1.0e-6, widths: 0, colours: 0}"], []])
    ]
    assert scores[1]["clip"] > scores[0]["clip"] + 0.1
    assert (tmp_path / "1" / "image_0.svg").read_text().count("<path") == 24
