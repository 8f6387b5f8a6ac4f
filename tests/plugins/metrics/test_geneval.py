"""GenEval: the verdict from detections alone, its facts, the colours, and a whole run on checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import detectors
import numpy as np
import published_answers
import pytest
import torch
from PIL import Image
from transformers import CLIPModel

from refcore import registry
from refcore.contracts.metric import BenchmarkPrompt
from refcore.errors import RefcoreError
from refcore.testing import suite
from refcore_plugins.metrics.geneval import COLOURS, GREY, GenEval
from refcore_plugins.metrics.geneval_facts import requirements_of
from refcore_plugins.metrics.geneval_rules import judge
from refcore_plugins.models.detections import Detection
from refcore_plugins.models.instance_segmentation import Instance

CPU = torch.device("cpu")
IMAGE = np.zeros((100, 100, 3), np.uint8)


def prompt(*include: dict[str, Any], tag: str = "single_object", **facts: Any) -> BenchmarkPrompt:
    return BenchmarkPrompt("a photo", tag, {"tag": tag, "include": list(include), **facts})


def at(label: str, x: float, y: float = 50, score: float = 0.95) -> Detection:
    return Detection(label, score, (x - 5, y - 5, x + 5, y + 5))


def verdict(asked: BenchmarkPrompt, *boxes: Detection, colours: Sequence[str] = ()) -> dict[str, bool]:
    found: dict[str, list[Detection]] = {}
    for one in sorted(boxes, key=lambda one: -one.score):
        found.setdefault(one.label, []).append(one)
    return judge(requirements_of(asked, str), found, lambda one, indices: [colours[index] for index in indices])


def test_a_thing_must_be_there_as_often_as_asked():
    asked = prompt({"class": "cup", "count": 2})
    assert verdict(asked, at("cup", 10), at("cup", 90)) == {"2 cup": True}
    assert verdict(asked, at("cup", 10), at("cup", 50), at("cup", 90)) == {"2 cup": True}  # more are as good
    assert verdict(asked, at("cup", 10), at("dog", 90)) == {"2 cup": False}
    assert verdict(prompt({"class": "cup", "count": 1}, {"class": "dog", "count": 1}), at("cup", 10)) == {
        "1 cup": True,
        "1 dog": False,
    }


def test_what_is_excluded_must_not_be_there_so_often():
    asked = prompt({"class": "cup", "count": 2}, exclude=[{"class": "cup", "count": 3}])
    assert verdict(asked, at("cup", 10), at("cup", 90)) == {"2 cup": True, "fewer than 3 cup": True}
    three = verdict(asked, at("cup", 10), at("cup", 50), at("cup", 90))
    assert three == {"2 cup": True, "fewer than 3 cup": False}


def test_a_colour_is_asked_of_the_best_things_alone():
    asked = prompt({"class": "cup", "count": 2, "color": "red"})
    boxes = at("cup", 10, score=0.9), at("cup", 50, score=0.8), at("cup", 90, score=0.7)
    assert verdict(asked, *boxes, colours=("red", "red", "blue"))["2 red cup"]
    assert not verdict(asked, *boxes, colours=("red", "blue", "red"))["2 red cup"]
    assert verdict(asked, boxes[0]) == {"2 cup": False, "2 red cup": False}  # no colour is looked at


def test_a_place_holds_for_every_pair():
    asked = prompt({"class": "dog", "count": 1}, {"class": "cup", "count": 2, "position": ["left of", 0]})
    dog, cups = at("dog", 80), (at("cup", 10), at("cup", 20))
    assert all(verdict(asked, dog, *cups).values())
    assert verdict(asked, dog, cups[0], at("cup", 95))["cup left of dog"] is False
    assert verdict(asked, dog, cups[0]) == {"1 dog": True, "2 cup": False, "cup left of dog": False}
    assert verdict(asked, *cups) == {"1 dog": False, "2 cup": True, "cup left of dog": False}


def test_a_place_next_to_something_of_another_colour_does_not_hold():
    asked = prompt(
        {"class": "dog", "count": 1, "color": "red"}, {"class": "cup", "count": 1, "position": ["right of", 0]}
    )
    boxes = at("dog", 10), at("cup", 80)
    assert all(verdict(asked, *boxes, colours=("red",)).values())
    assert verdict(asked, *boxes, colours=("blue",)) == {
        "1 dog": True,
        "1 red dog": False,
        "1 cup": True,
        "cup right of dog": False,
    }


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"tag": "counting"}, "has no include"),
        ({"include": [{"class": "cup", "count": 1}]}, "has no tag"),
        ({"tag": "x", "include": []}, r"has \[\]; expected at least one class"),
        ({"tag": "x", "include": "cup"}, "expected a list"),
        ({"tag": "x", "include": ["cup"]}, "expected {class, count"),
        ({"tag": "x", "include": [{"class": "cup", "count": 0}]}, "has count 0; expected a whole number from 1"),
        ({"tag": "x", "include": [{"class": "unicorn", "count": 1}]}, '"unicorn", which is no class'),
        ({"tag": "x", "include": [{"class": "cup", "count": 1, "color": "mauve"}]}, '"mauve"; expected one of red'),
        (
            {"tag": "x", "include": [{"class": "cup", "count": 1, "position": ["left of", 0]}]},
            "expected an earlier entry",
        ),
        ({"tag": "x", "include": [{"class": "cup", "count": 1, "position": ["near", 0]}]}, "expected .one of left of"),
    ],
)
def test_facts_of_another_form_are_refused(facts, message):
    with pytest.raises(RefcoreError, match=message):
        GenEval().read(BenchmarkPrompt("a photo of a cup", "", facts))


def test_names_of_the_benchmark_are_those_of_coco():
    needed = GenEval().read(prompt({"class": "computer mouse", "count": 1}, {"class": "couch", "count": 1}))
    assert [one.name for one in needed] == ["mouse", "couch"]


def shown(metric: GenEval, *instances: Detection) -> GenEval:
    """The metric with a segmenter that finds these, with full masks."""

    def segment(image: np.ndarray, threshold: float) -> list[Instance]:
        mask = np.ones(image.shape[:2], bool)
        return [Instance(one, mask) for one in instances if one.score >= threshold]

    segment.names = {0: "cup", 1: "dog"}
    metric.segmenter = segment
    return metric


def test_counting_needs_surer_detections():
    boxes = at("cup", 10, score=0.95), at("cup", 50, score=0.5)
    metric = shown(GenEval(), *boxes)
    for tag, value in (("two_object", 1.0), ("counting", 0.0)):
        (found,) = metric.measure([IMAGE], [prompt({"class": "cup", "count": 2}, tag=tag)])
        assert found.value == value
        assert found.parts == {"2 cup": value}


def test_no_more_than_16_of_a_class_are_looked_at():
    metric = shown(GenEval(), *(at("cup", 5 * i) for i in range(18)))
    asked = prompt({"class": "cup", "count": 1}, exclude=[{"class": "cup", "count": 17}])
    assert metric.measure([IMAGE], [asked])[0].value == 1.0
    metric = shown(GenEval(most=18), *(at("cup", 5 * i) for i in range(18)))
    assert metric.measure([IMAGE], [asked])[0].value == 0.0


# --- colours and the whole metric on checkpoints


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    torch.manual_seed(0)
    return {
        "model": detectors.mask2former(tmp_path_factory.mktemp("mask2former")),
        "clip": detectors.clip(tmp_path_factory.mktemp("clip"), length=40),
    }


@pytest.fixture(scope="module")
def metric(folders) -> GenEval:
    loaded = GenEval(**{name: str(folder) for name, folder in folders.items()})
    loaded.load(CPU, torch.float32)
    return loaded


def test_a_colour_is_the_nearest_text_to_the_masked_crop(metric, folders):
    """By hand: crop, grey outside the mask, CLIP's features, three sentences a colour."""
    draw = np.random.default_rng(0)
    image, mask = draw.integers(0, 256, (60, 60, 3), dtype=np.uint8), np.zeros((60, 60), bool)
    mask[20:36, 30:46] = draw.random((16, 16)) > 0.5
    instance = Instance(Detection("cup", 0.9, (30.0, 20.0, 46.0, 36.0)), mask)
    crop = image[20:36, 30:46].copy()
    crop[~mask[20:36, 30:46]] = GREY
    model = CLIPModel.from_pretrained(folders["clip"]).eval()
    pixels = metric.towers.normalise(torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 255)  # 16 pixels already
    with torch.no_grad():
        seen = model.get_image_features(pixel_values=pixels).pooler_output[0]
        sums = []
        for colour in COLOURS:
            texts = (
                f"a photo of a {colour} cup",
                f"a photo of a {colour}-colored cup",
                f"a photo of a {colour} object",
            )
            words = metric.towers.tokenizer(list(texts), padding=True, return_tensors="pt")
            features = model.get_text_features(**words).pooler_output
            mean = torch.nn.functional.normalize(features, dim=-1).mean(0)
            sums.append(float(torch.nn.functional.normalize(mean, dim=0) @ seen))
    assert metric.colour(image, instance, "cup") == COLOURS[int(np.argmax(sums))]
    assert len({round(one, 4) for one in sums}) == 10


@pytest.mark.parametrize(("called", "detected"), [("computer keyboard", "keyboard"), ("tv remote", "remote")])
def test_the_sentences_of_a_colour_have_the_benchmarks_name_of_the_class(metric, monkeypatch, called, detected):
    """evaluate_images.py makes its sentences from the class of the metadata, and its detector's names are the same."""
    read: list[str] = []
    monkeypatch.setattr(metric, "_colours", {})
    monkeypatch.setattr(metric, "segmenter", shown(GenEval(), at(detected, 50)).segmenter)
    monkeypatch.setattr(metric.segmenter, "names", {0: detected}, raising=False)
    text = metric.towers.text
    monkeypatch.setattr(metric.towers, "text", lambda texts: read.extend(texts) or text(texts))
    (one,) = metric.measure([IMAGE], [prompt({"class": called, "count": 1, "color": "red"}, tag="colors")])
    assert one.parts[f"1 {detected}"] == 1.0
    assert read[:3] == [f"a photo of a red {called}", f"a photo of a red-colored {called}", "a photo of a red object"]


def test_a_crop_is_resized_and_cut_in_whole_levels_as_clips_own_code_does(metric, monkeypatch):
    """open_clip's transform is OpenAI's: the shorter side by Pillow, bicubic, then the centre."""
    image = np.random.default_rng(2).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    seen: list[torch.Tensor] = []
    image_features = metric.towers.image
    monkeypatch.setattr(metric.towers, "image", lambda views: seen.append(views) or image_features(views))
    metric.colour(image, Instance(Detection("cup", 0.9, (5.0, 3.0, 80.0, 42.0)), np.ones((60, 90), bool)), "cup")
    side, crop = metric.towers.input_size[0], image[3:42, 5:80]
    wanted = published_answers.clip_pixels(Image.fromarray(crop), side, (0.0,) * 3, (1.0,) * 3)
    torch.testing.assert_close(seen[0], wanted, rtol=0, atol=1e-6)


def test_a_score_must_exceed_the_threshold():
    metric = shown(GenEval(), at("cup", 10, score=0.3))
    assert metric.measure([IMAGE], [prompt({"class": "cup", "count": 1})])[0].value == 0.0


def test_the_background_of_a_crop_does_not_matter(metric):
    draw = np.random.default_rng(1)
    image, mask = draw.integers(0, 256, (60, 60, 3), dtype=np.uint8), np.zeros((60, 60), bool)
    mask[20:36, 30:40] = True
    other = np.where(mask[..., None], image, draw.integers(0, 256, image.shape, dtype=np.uint8))
    seen: list[torch.Tensor] = []
    image_features = metric.towers.image
    metric.towers.image = lambda views: seen.append(views) or image_features(views)
    for one in (image, other):
        metric.colour(one, Instance(Detection("cup", 0.9, (30.0, 20.0, 46.0, 36.0)), mask), "cup")
    metric.towers.image = image_features
    assert torch.equal(seen[0], seen[1])
    outside = seen[0][0][:, :, 10:]  # of 16 pixels, as many as CLIP sees
    assert torch.equal(outside, torch.full_like(outside, 0x99 / 255))


def test_it_holds_the_contract(metric, folders):
    draw = np.random.default_rng(0)
    image = draw.integers(0, 256, (48, 64, 3), dtype=np.uint8)
    found = metric.segmenter(image, 0.3)
    facts = {"tag": "colors", "include": [{"class": found[0].detection.label, "count": 1, "color": "red"}]}
    tests = suite(GenEval(metric.config), prompts=("a photo of a cup", "a photo of a dog"), facts=facts)()
    for name in dir(tests):
        if name.startswith("test_"):
            getattr(tests, name)()
    (one,) = metric.measure([image], [BenchmarkPrompt("a photo", "colors", facts)])
    colour = metric.colour(image, found[0], found[0].detection.label)
    assert one.parts[f"1 {found[0].detection.label}"] == 1.0
    assert one.value == float(colour == "red")


def test_it_is_registered_with_what_it_needs():
    cls = registry.get("metrics", "geneval")
    assert cls is GenEval
    assert set(cls.needs) == {"include", "tag"}
