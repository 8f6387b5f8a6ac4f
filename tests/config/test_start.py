"""`init` of images: what is short for what, which file each sample has, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from toys import toy_config

from refcore.config.run import RunConfig
from refcore.config.start import ImageStart, SampleStart
from refcore.errors import ConfigError, RefcoreError
from refcore.runs.run import Run

pytestmark = [pytest.mark.fault("4.12"), pytest.mark.usefixtures("toys")]
SAMPLES = [("a cat", 0), ("a cat", 7), ("a {seed}", 0)]


def test_a_path_is_short_for_a_start_from_it_and_survives_a_file() -> None:
    config = toy_config(init="photo.png")
    assert config.init == ImageStart(image="photo.png")
    assert RunConfig.from_settings(config.settings()).init == config.init
    assert toy_config(init="sample").init == SampleStart()
    assert toy_config(init={"image": "a.png", "strength": 0.5}).init == ImageStart(image="a.png", strength=0.5)


def test_each_sample_has_the_file_of_its_prompt_and_seed() -> None:
    start = ImageStart(image="refs/{prompt}/{seed}.png")
    assert start.paths(SAMPLES) == ["refs/a cat/0.png", "refs/a cat/7.png", "refs/a {seed}/0.png"]
    assert ImageStart(image=["b.png", "{seed}.png", "c.png"]).paths(SAMPLES) == ["b.png", "7.png", "c.png"]


@pytest.mark.parametrize(
    ("init", "message"),
    [
        ({"image": "a.png", "strength": 0}, r"init\.strength: .*greater than 0; given: 0"),
        ({"image": "a.png", "strength": 1.5}, r"init\.strength: .*less than or equal to 1; given: 1\.5"),
        ({"image": "a.png", "strenght": 0.5}, r'init\.strenght: unknown field; .*did you mean "strength"'),
        ({"image": []}, r"init\.image: .*at least 1 item"),
        ({"image": ["a.png", "b.png", "c.png"]}, r"init\.image has 3 paths; expected 2, one for each prompt and seed"),
        ({"image": "a.png", "prior": "sdx"}, r'init\.prior is "sdx", which is not a prior of this run'),
        (5, "init is 5; expected the path of an image, sample, or the settings of one of them"),
    ],
)
def test_what_is_wrong_is_named(init: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        toy_config(init=init, prompts=["a cat", "a dog"])


def test_missing_files_are_named_together_before_a_model_is_loaded(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a cat.png")
    fields: dict[str, Any] = {"canvas": {"name": "toy_pixel"}, "prompts": ["a cat", "a dog", "a cow"], "seeds": [0, 1]}
    config = toy_config(init=str(tmp_path / "{prompt}.png"), **fields)
    with pytest.raises(RefcoreError, match=r'2 of 3 files are missing: ".*/a dog\.png", ".*/a cow\.png"'):
        Run(config)
    (tmp_path / "a dog.png").write_text("no image")
    (tmp_path / "a cow.png").write_text("no image")
    with pytest.raises(RefcoreError, match=r'cannot read the image ".*/a dog\.png": not a known image format'):
        Run(config)
    with pytest.raises(RefcoreError, match=r'init\.image: the file is missing: ".*/none\.png"'):
        Run(toy_config(init=str(tmp_path / "none.png"), **fields))


def test_a_relative_path_is_recorded_so_that_it_works_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / name)
    init = {"image": ["a.png", "b.png"]}
    run = Run(toy_config(canvas={"name": "toy_pixel"}, prompts=["x", "y"], init=init))
    assert isinstance(run.config.init, ImageStart)
    assert run.config.init.image == [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
