"""The preset `clipasso`: the values of the public code; and its small sister in the playground."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from PIL import Image

import refcore
from refcore.config import presets
from refcore.moment import Moment
from refcore_playground.draw import draw_scene
from refcore_playground.grammar import parse
from refcore_playground.render import render_batch

PROMPT = "a purple triangle right of an orange cross"


@pytest.fixture
def picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """A picture of the prompt in the working directory, where both presets look for it: [3, 64, 64]."""
    scene = torch.from_numpy(render_batch([draw_scene(parse(PROMPT), random.Random(4))]))[0]
    levels = (scene.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    Image.fromarray(levels).save(tmp_path / "picture.png")
    monkeypatch.chdir(tmp_path)
    return scene


def test_sixteen_black_strokes_are_judged_whole_and_in_four_views_by_two_layers(picture: torch.Tensor) -> None:
    config = presets.compose("clipasso", prompts=["a horse"])
    assert (config.canvas.config["strokes"], config.canvas.config["width"], config.steps) == (16, 1.5, 2001)
    weights = {term.views: term.weight for term in config.referees}
    # The mean over five pictures: the whole one, and four views.
    assert weights == {"main": 0.8, "clean": 0.2}
    assert config.views["main"].count == 4
    for term in config.referees:
        assert term.config["layers"] == {"layer2": 1.0, "layer3": 1.0}
    assert config.optimizer.lr_at(Moment(0, config.steps)) == {"points": 1.0, "widths": 0.0, "colours": 0.0}


@pytest.mark.slow
def test_in_the_playground_three_shapes_come_near_the_picture(picture: torch.Tensor) -> None:
    start, end = (
        refcore.invert(PROMPT, preset="playground-clipasso", overrides=overrides)[0]
        for overrides in (["steps=1", "candidates={count: 1}"], [])
    )
    assert end.files[".svg"].count("<path") == 3
    assert end.scores["image-layers"] > max(0.9, start.scores["image-layers"] + 0.1)
