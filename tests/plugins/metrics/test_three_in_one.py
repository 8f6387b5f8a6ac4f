"""The `3-in-1` metric: which measures count for which prompts, and a whole run on checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import detectors
import published_boxes as published
import pytest
import torch
from english_model import english_folder, with_model

from refcore import registry
from refcore.contracts.metric import BenchmarkPrompt, Measurement
from refcore.errors import RefcoreError
from refcore.images import Levels
from refcore.testing import suite
from refcore_plugins.metrics.three_in_one import ACTION, ATTRIBUTE, SPACE, ThreeInOne

pytestmark = with_model
CPU = torch.device("cpu")
PROMPTS = (
    "The red hat was on top of the brown shelf.",
    "The fluffy cat is on the left of the soft pillow.",
    "The young girl eats a sweet apple.",
)


class Fixed:
    """A metric of one value, that counts its images."""

    def __init__(self, value: float) -> None:
        self.value, self.measured = value, 0

    def measure(self, images: Sequence[Levels], prompts: Sequence[BenchmarkPrompt]) -> list[Measurement]:
        self.measured += len(images)
        return [Measurement(self.value) for _ in images]


def of_kind(kind: str | None) -> BenchmarkPrompt:
    return BenchmarkPrompt("a cat near a dog", "complex", {} if kind is None else {"kind": kind})


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("spatial", (ATTRIBUTE, SPACE)),
        ("action", (ATTRIBUTE, ACTION)),
        ("spatialaction", (ATTRIBUTE, SPACE, ACTION)),
        (None, (ATTRIBUTE, SPACE, ACTION)),
    ],
)
def test_the_list_of_a_prompt_decides_what_counts(kind, parts, images):
    metric = ThreeInOne()
    metric.metrics = {ATTRIBUTE: Fixed(0.8), SPACE: Fixed(0.5), ACTION: Fixed(0.3)}
    found = metric.measure(images[:2], [of_kind(kind)] * 2)
    assert [tuple(one.parts) for one in found] == [parts] * 2
    assert found[0].value == pytest.approx(published.three_in_one(0.8, 0.5, 0.3, kind or ""))
    assert [one.measured for one in metric.metrics.values()] == [2 * (part in parts) for part in metric.metrics]


def test_each_image_counts_by_its_own_prompt(images):
    metric = ThreeInOne()
    metric.metrics = {ATTRIBUTE: Fixed(0.8), SPACE: Fixed(0.5), ACTION: Fixed(0.3)}
    found = metric.measure(images[:3], [of_kind("action"), of_kind("spatial"), of_kind("action")])
    assert [one.value for one in found] == pytest.approx([0.55, 0.65, 0.55])


def test_a_list_that_the_benchmark_does_not_have_is_refused(images):
    with pytest.raises(RefcoreError, match="is 'colour'; expected spatial, action or spatialaction"):
        ThreeInOne().measure(images[:1], [of_kind("colour")])


def test_prompts_that_do_not_say_their_list_are_told_of():
    assert ThreeInOne().remarks([of_kind("action")]) == []
    (said,) = ThreeInOne().remarks([of_kind("action"), of_kind(None)])
    assert said.startswith("1 of these 2 prompts do not say")


def test_its_parts_are_of_complex_prompts_whatever_the_settings_say():
    metric = ThreeInOne(spatial_2d={"form": "2d", "cut": 0.0}, clip_score={"scale": "cosine"})
    assert metric.metrics[SPACE].config.form == "complex"
    assert metric.metrics[SPACE].config.cut == 0.0
    assert metric.metrics[ACTION].config.without_adjectives
    named = metric.config.checkpoints()
    assert set(named) == {"blip_vqa.model", "spatial_2d.model", "clip_score.model"}
    assert set(metric.downloads()) == set(named.values())


@pytest.fixture(scope="module")
def settings(tmp_path_factory, blip_folder) -> dict[str, object]:
    torch.manual_seed(0)
    made: dict[str, Path] = {
        "owlv2": detectors.owlv2(tmp_path_factory.mktemp("owlv2"), length=32, shift=0.5),
        "clip": detectors.clip(tmp_path_factory.mktemp("clip"), length=64),
    }
    parser = str(english_folder())
    return {
        "blip_vqa": {"model": str(blip_folder), "size": 32, "parser": parser},
        "spatial_2d": {"model": str(made["owlv2"]), "threshold": 0.2, "cut": 0.0, "parser": parser},
        "clip_score": {"model": str(made["clip"]), "parser": parser},
    }


def test_it_is_the_mean_of_the_three_metrics(settings, images):
    metric = ThreeInOne(**settings)
    metric.load(CPU, torch.float32)
    prompts = [BenchmarkPrompt(text) for text in PROMPTS]
    found = metric.measure(images[:3], prompts)
    each = [part.measure(images[:3], prompts) for part in metric.metrics.values()]
    for i, one in enumerate(found):
        assert one.value == pytest.approx(sum(values[i].value for values in each) / 3)
        assert list(one.parts.values()) == [values[i].value for values in each]
    assert found[0].parts[SPACE] > 0
    assert found[2].parts[SPACE] == 0.0  # it has no preposition


def test_it_holds_the_contract(settings):
    tests = suite(ThreeInOne(**settings), prompts=PROMPTS)()
    for name in dir(tests):
        if name.startswith("test_"):
            getattr(tests, name)()


def test_a_missing_checkpoint_of_a_part_is_named(settings, tmp_path):
    broken = {**settings, "spatial_2d": {**settings["spatial_2d"], "model": str(tmp_path / "none")}}  # type: ignore[dict-item]
    with pytest.raises(RefcoreError, match="spatial_2d"):
        ThreeInOne(**broken).check()
    assert registry.get("metrics", "3-in-1") is ThreeInOne
