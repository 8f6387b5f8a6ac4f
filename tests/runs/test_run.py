"""`refcore.invert`: one call, the same as the command line's run; and a package that imports nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toys import toy_config

import refcore
from refcore.config import presets


def test_invert_gives_images_and_scores_in_the_order_of_prompts_and_seeds() -> None:
    seen: list[int] = []
    result = refcore.invert(["a", "b"], config=toy_config(), seeds=[0, 1], on_step=lambda step: seen.append(step.step))
    assert [(sample.prompt, sample.seed) for sample in result.samples] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert result.images.shape == (4, 3, 32, 32)
    assert result.images.dtype == torch.float32
    assert set(result.samples[0].scores) == {"toy", "toy-2"}
    assert seen == list(range(6))
    assert [record["step"] for record in result.history] == seen
    alone = refcore.invert("b", config=toy_config(), seeds=0)
    assert torch.allclose(alone.images[0], result.images[2], atol=1e-6)


def test_what_invert_writes_reproduces_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    first = refcore.invert("a", config=toy_config(), overrides=["steps=2"], out=folder)
    told = json.loads((folder / "result.json").read_text())
    assert told["samples"][0]["image"] == "image_0.png"
    assert told["samples"][0]["scores"] == first.samples[0].scores
    assert len((folder / "history.jsonl").read_text().splitlines()) == 2
    again = refcore.invert("a", config=folder / "config.yaml")
    assert torch.equal(first.images, again.images)
    with pytest.raises(refcore.RefcoreError, match="holds another run"):
        refcore.invert("a", config=toy_config(), out=folder)


def test_nan_keeps_the_image_so_far(tmp_path: Path) -> None:
    referees = [{"name": "toy", "config": {"nan_at": 3}}]
    with pytest.raises(refcore.NonFiniteError, match='step 3: "toy"'):
        refcore.invert("a", config=toy_config(referees=referees), out=tmp_path)
    assert (tmp_path / "image_0.png").exists()
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == 3
    result = json.loads((tmp_path / "result.json").read_text())
    assert not result["finished"]
    assert result["stopped"].startswith('step 3: "toy" gave NaN')


def test_a_preset_and_a_config_at_once_are_refused() -> None:
    with pytest.raises(refcore.RefcoreError, match="expected one of them"):
        refcore.invert("a", preset="playground", config=toy_config())


def test_presets_are_valid_configs() -> None:
    for name in presets.names():
        assert presets.compose(name).steps > 0


def test_importing_refcore_and_reading_a_config_imports_no_torch() -> None:
    code = """
import sys, refcore, refcore.config.presets, refcore.objective
refcore.RunConfig.from_settings({"canvas": {"name": "latent"}, "referees": [{"name": "clip"}]})
assert "invert" in dir(refcore)
heavy = {"torch", "transformers", "diffusers", "open_clip", "kornia"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_all_public_names_exist() -> None:
    assert all(getattr(refcore, name) is not None for name in refcore.__all__)
    with pytest.raises(AttributeError, match="no attribute 'invrt'"):
        refcore.invrt  # noqa: B018
