"""Box metrics against formulas that were written apart from them: hundreds of drawn cases for each branch."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import published_boxes as published
import pytest
from english_model import english_folder, with_model
from numpy.random import Generator

from refcore.contracts.metric import BenchmarkPrompt
from refcore_plugins.metrics.box_scores import (
    SPATIAL_WORDS,
    depth_order,
    directions,
    highest,
    last_before_both,
    mean_depth,
    merged,
    numbers_of,
    numeracy,
    order_of,
    position,
    relation_of,
    same_thing,
    spatial_2d,
    spatial_3d,
)
from refcore_plugins.metrics.complex_prompts import things_around
from refcore_plugins.metrics.geneval_facts import requirements_of
from refcore_plugins.metrics.geneval_rules import judge
from refcore_plugins.metrics.numeracy import Numeracy
from refcore_plugins.metrics.spatial_2d import Spatial2d
from refcore_plugins.metrics.spatial_3d import Spatial3d
from refcore_plugins.models.depth import read_back
from refcore_plugins.models.detections import Box, Detection

ROOT = Path(__file__).parents[3]
PROMPTS = Path(os.environ.get("REFCORE_T2I_COMPBENCH", ROOT.parent / "shared" / "t2i-compbench"))
with_prompts = pytest.mark.skipif(
    not (PROMPTS / "spatial_val.txt").is_file(),
    reason=f"no prompts: REFCORE_T2I_COMPBENCH names no folder with T2I-CompBench's files, and {PROMPTS} is none",
)
SIDE = 479
"""Of a picture that the detectors do not resize."""
EACH = 200
"""Cases of every branch."""
TRIED = 400_000
"""Draws after which a branch that was not met often enough fails."""
Case = TypeVar("Case")


def compared(
    draw: Callable[[Generator], Case],
    branch: Callable[[Case], Hashable],
    branches: Iterable[Hashable],
    compare: Callable[[Case], None],
    each: int = EACH,
) -> None:
    """Compares `each` drawn cases of every branch."""
    rng, left = np.random.default_rng(0), dict.fromkeys(branches, each)
    for _ in range(TRIED):
        case = draw(rng)
        where = branch(case)
        if left.get(where, 0):
            compare(case)
            left[where] -= 1
            if not left[where]:
                del left[where]
        if not left:
            return
    raise AssertionError(f"met too rarely: {left}")


def box(rng: Generator, step: float = 30.0, cells: int = 16) -> Box:
    """A box on a grid, so that ties and round shares are met; one in two with edges between its lines."""
    left, top = (float(start) * step for start in rng.integers(0, cells, 2))
    right, bottom = (
        edge + float(size) * step for edge, size in zip((left, top), rng.integers(1, cells, 2), strict=True)
    )
    if rng.random() < 0.5:
        drift = rng.uniform(0, step / 2, 4).tolist()
        left, top, right, bottom = left + drift[0], top + drift[1], right + drift[2], bottom + drift[3]
    return left, top, min(right, cells * step), min(bottom, cells * step)


def score(rng: Generator) -> float:
    return float(rng.choice([0.5, 0.625, 0.75, 0.9])) if rng.random() < 0.3 else float(rng.uniform(0.5, 1))


def plain(found: Iterable[Detection]) -> list[published.Detection]:
    return [(one.label, one.score, one.box) for one in found]


def offset(first: Box, second: Box) -> tuple[float, float]:
    return (second[0] + second[2] - first[0] - first[2]) / 2, (second[1] + second[3] - first[1] - first[3]) / 2


# Two things in the picture.


def of_words(word: str, first: Box, second: Box) -> str:
    """The branch of a 2-D position."""
    dx, dy = offset(first, second)
    if word in published.BESIDE:
        return f"{'x' if abs(dx) < 150 else ''}{'y' if abs(dy) < 150 else ''}" or "far"
    if word == "on top of":
        return "none"
    toward, across = {"left": (dx, dy), "right": (-dx, dy), "top": (dy, dx), "bottom": (-dy, dx)}[word.split()[2]]
    if toward <= 0:
        return "wrong side"
    if toward <= abs(across):
        return "other axis"
    return "apart" if published.iou(first, second) < 0.1 else "overlapping"


BRANCHES_2D = [
    (word, branch)
    for word in published.KEYS_2D
    for branch in (
        ("x", "y", "xy", "far")
        if word in published.BESIDE
        else ("none",)
        if word == "on top of"
        else ("wrong side", "other axis", "apart", "overlapping")
    )
]


def test_the_words_of_relations_are_the_same_and_in_the_same_order():
    assert tuple(word for word, _ in SPATIAL_WORDS) == published.KEYS_2D
    for word in published.KEYS_2D:
        text = f"a cat {word} a dog"
        assert relation_of(text) == dict(SPATIAL_WORDS)[published.relation_2d(text)]
    for word in published.KEYS_3D:
        assert order_of(f"a cat {word} a dog") is not None
        assert published.relation_3d(f"a cat {word} a dog") == word
    assert relation_of("a cat on a dog") is published.relation_2d("a cat on a dog") is None
    assert order_of("a cat on a dog") is published.relation_3d("a cat on a dog") is None


def test_every_branch_of_a_position_in_the_picture():
    relations = dict(SPATIAL_WORDS)

    def compare(case: tuple[str, Box, Box]) -> None:
        word, first, second = case
        ours, theirs = position(first, second, relations[word]), published.position_2d(word, first, second)
        assert ours == pytest.approx(theirs, abs=1e-12), case

    compared(
        lambda rng: (str(rng.choice(published.KEYS_2D)), box(rng), box(rng)),
        lambda case: (case[0], of_words(*case)),
        BRANCHES_2D,
        compare,
    )


@pytest.mark.parametrize("mended", [False, True])
def test_every_combination_of_things_found_in_the_picture(mended: bool):
    relations = dict(SPATIAL_WORDS)

    def draw(rng: Generator) -> tuple[str, list[Detection]]:
        labels = rng.choice(["cat", "dog", "catfish"], rng.integers(0, 6))
        return str(rng.choice(published.KEYS_2D)), [Detection(str(label), score(rng), box(rng)) for label in labels]

    def branch(case: tuple[str, list[Detection]]) -> Hashable:
        labels = Counter(one.label for one in case[1])
        return case[0], labels["cat"] > 0, labels["dog"] > 0, labels["cat"] > 1 or labels["dog"] > 1

    def compare(case: tuple[str, list[Detection]]) -> None:
        word, found = case
        meant = "top" if mended and word == "on top of" else relations[word]
        for cut in (0.0, 0.5):
            ours = spatial_2d(highest(found, "cat"), highest(found, "dog"), meant, cut=cut)
            theirs = published.spatial_2d(("cat", "dog"), word, plain(found), least=cut, on_top_of_scores=mended)
            assert ours == pytest.approx(theirs, abs=1e-12), case

    found = [(a, b, many) for a in (False, True) for b in (False, True) for many in (False, True) if a or b or not many]
    compared(draw, branch, [(word, *one) for word in published.KEYS_2D for one in found], compare, 100)


# Two things in depth.


def in_depth(rng: Generator) -> tuple[Box, Box]:
    """Two boxes within 60 pixels, one in four of which shares exactly half of its area with the other."""
    first, second = box(rng, 4, 15), box(rng, 4, 15)
    if rng.random() < 0.25:
        left, top, right, bottom = (float(round(v)) for v in first)
        first = left, top, left + 2 * max(1, (right - left) // 2), max(bottom, top + 1)
        second = left, top, (first[0] + first[2]) / 2, first[3]
    return (first, second) if rng.random() < 0.5 else (second, first)


@pytest.mark.parametrize("transposed", [True, False])
def test_every_branch_of_an_order_in_depth(transposed: bool):
    maps = np.random.default_rng(6).integers(0, 4, (50, 64, 80)).astype(np.float32)

    def draw(rng: Generator) -> tuple[str, Box, Box, Any]:
        return str(rng.choice(published.KEYS_3D)), *in_depth(rng), maps[rng.integers(len(maps))]

    def branch(case: tuple[str, Box, Box, Any]) -> Hashable:
        word, first, second, depth = case
        one, other = (published.mean_depth(depth, part, transposed=transposed) for part in (first, second))
        overlap = published.iou(first, second)
        size = "none" if overlap == 0 else "half" if overlap == 0.5 else "large" if overlap > 0.5 else "small"
        return word, "nearer" if one > other else "not nearer", size

    def compare(case: tuple[str, Box, Box, Any]) -> None:
        word, first, second, depth = case
        order = order_of(word)
        near = [mean_depth(depth, part, transposed) for part in (first, second)]
        theirs = published.position_3d(word, first, second, depth, transposed=transposed)
        assert depth_order(near[0], near[1], published.iou(first, second), order) == pytest.approx(theirs, abs=1e-9)

    branches = [
        (word, side, size)
        for word in published.KEYS_3D
        for side in ("nearer", "not nearer")
        for size in ("none", "small", "half", "large")
    ]
    compared(draw, branch, branches, compare, 100)


def test_every_combination_of_things_found_in_depth():
    """Labels that contain both names, too, and a noun found once, often, alone or with the other."""

    def draw(rng: Generator) -> tuple[str, list[Detection], Any]:
        labels = rng.choice(["cat", "dog", "catfish", "catdog", "bus"], rng.integers(0, 6))
        found = [Detection(str(label), score(rng), box(rng, 4, 15)) for label in labels]
        return str(rng.choice(published.KEYS_3D)), found, rng.random((64, 64), np.float32)

    def branch(case: tuple[str, list[Detection], Any]) -> Hashable:
        labels = [one.label for one in case[1]]
        cats, dogs = (sum(name in label for label in labels) for name in ("cat", "dog"))
        return min(cats, 2), min(dogs, 2), "catdog" in labels

    def compare(case: tuple[str, list[Detection], Any]) -> None:
        word, found, depth = case
        for last in (True, False):
            a, b = last_before_both(found, "cat", "dog") if last else (highest(found, "cat"), highest(found, "dog"))
            holds = 0.0
            if a is not None and b is not None:
                levels = read_back(depth, depth.shape, depth.shape)
                near = [mean_depth(levels, one.box) for one in (a, b)]
                holds = depth_order(near[0], near[1], published.iou(a.box, b.box), order_of(word))
            theirs = published.spatial_3d(("cat", "dog"), word, plain(found), depth, substring=last, last_match=last)
            assert spatial_3d(a, b, holds) == pytest.approx(theirs, abs=1e-9), case

    branches = [(a, b, False) for a in range(3) for b in range(3)] + [(1, 1, True), (2, 1, True), (1, 2, True)]
    compared(draw, branch, branches, compare)


def test_a_depth_map_comes_back_from_eight_bits_the_same():
    rng = np.random.default_rng(3)
    for _ in range(EACH):
        depth = (rng.random((9, 7)) * rng.choice([1e-3, 1, 1e4]) - rng.choice([0, 5])).astype(np.float32)
        np.testing.assert_array_equal(read_back(depth, (9, 7), (9, 7)), published.as_png(depth))
    flat = np.full((3, 3), 2.0, np.float32)
    np.testing.assert_array_equal(read_back(flat, (3, 3), (3, 3)), published.as_png(flat))


@pytest.mark.parametrize(
    ("image", "size"), [((512, 512), (479, 479)), ((300, 400), (360, 480)), ((20, 50), (192, 480))]
)
def test_a_depth_map_is_resampled_before_it_is_cut_to_levels(image: tuple[int, int], size: tuple[int, int]):
    """A map of 48 x 48 in the place of MiDaS's 480; a level may differ where a value lies on the edge of one."""
    rng = np.random.default_rng(4)
    depth = np.cumsum(np.cumsum(rng.normal(size=(48, 48)), 0), 1).astype(np.float32)
    ours, theirs = read_back(depth, image, size), published.as_read_back(depth, image, size)
    assert ours.shape == size
    assert np.abs(ours - theirs).max() <= 1
    assert np.mean(ours != theirs) < 1e-3


# Numbers of things.


def repeats(rng: Generator) -> tuple[Box, Box]:
    """Two boxes, most of which nearly repeat or cover each other."""
    first = box(rng, 10, 10)
    left, top, right, bottom = first
    kind = rng.integers(0, 4)
    if kind == 0:
        return first, box(rng, 10, 10)
    spread = 0.12 if kind == 1 else 0.04
    moves = rng.uniform(-spread, spread, 4) * [right - left, bottom - top, right - left, bottom - top]
    second = tuple(float(v) for v in np.array(first) + moves)
    if kind == 3:  # a small one inside
        second = left + 1, top + 1, left + 1 + (right - left) * 0.4, top + 1 + (bottom - top) * 0.5
    return first, (second[0], second[1], max(second[2], second[0]), max(second[3], second[1]))


@pytest.mark.parametrize("whole_pixels", [True, False])
def test_every_way_in_which_two_boxes_are_one_thing(whole_pixels: bool):
    def branch(case: tuple[Box, Box]) -> Hashable:
        first, second = case
        small = published.covers(first, second, whole_pixels=whole_pixels)
        return "one" if small and published.iou(first, second) > 0.9 else "covered" if small else "two"

    def compare(case: tuple[Box, Box]) -> None:
        for pair in (case, case[::-1]):
            theirs = published.covers(*pair, whole_pixels=whole_pixels)
            assert same_thing(*pair, whole_pixels=whole_pixels) == theirs, case

    compared(repeats, branch, ["one", "covered", "two"], compare)


def test_every_combination_of_numbers_found_and_asked():
    def draw(rng: Generator) -> tuple[list[tuple[str, int]], list[Detection]]:
        wanted = [(str(name), int(rng.integers(1, 5))) for name in rng.permutation(["cat", "dog", "ship"])]
        found = []
        for label in rng.choice(["cat", "dog", "boat", "catfish", "hot dog"], rng.integers(0, 8)):
            first, second = repeats(rng)
            found.append(Detection(str(label), score(rng), first))
            if rng.random() < 0.4:
                found.append(Detection(str(label), score(rng), second))
        return wanted[: int(rng.integers(1, 4))], found

    def branch(case: tuple[list[tuple[str, int]], list[Detection]]) -> Hashable:
        (name, count), *others = case[0]
        labels = [label for label, _, _ in published.distinct(plain(case[1]))]
        label = published.RENAMED.get(name, name)
        number = labels.count(label)
        how = "none" if not number else "right" if number == count else "few" if number < count else "many"
        if not number and any(label in other for other in labels):
            how = "within another"
        return how, len(others)

    def compare(case: tuple[list[tuple[str, int]], list[Detection]]) -> None:
        wanted, found = case
        names = [Numeracy.renamed.get(name, name) for name, _ in wanted]
        for contains in (True, False):
            for whole in (True, False):
                kept = merged(found, whole)
                assert plain(kept) == published.distinct(plain(found), whole_pixels=whole)
                shares = numeracy(numbers_of(kept, names, exact=not contains), [count for _, count in wanted])
                theirs = published.numeracy(wanted, plain(found), whole_pixels=whole, substring=contains)
                assert sum(shares) == pytest.approx(theirs, abs=1e-12), case

    hows = ("none", "right", "few", "many", "within another")
    compared(draw, branch, [(how, others) for how in hows for others in range(3)], compare)


def test_objects_are_renamed_alike():
    for name in (*published.RENAMED, *published.PEOPLE, "cat"):
        assert Numeracy.renamed.get(name, name) == published.RENAMED.get(name, published.named(name))
        assert Spatial2d.renamed.get(name, name) == published.named(name)
        assert Spatial3d.renamed.get(name, name) == published.named(name)


# GenEval.


def test_every_direction_of_geneval_and_none():
    def draw(rng: Generator) -> tuple[Box, Box]:
        first = box(rng)
        return (first, first) if rng.random() < 0.05 else (first, box(rng))

    def branch(case: tuple[Box, Box]) -> Hashable:
        return "same" if case[0] == case[1] else tuple(sorted(published.relations_geneval(*case)))

    def compare(case: tuple[Box, Box]) -> None:
        a, b = (Detection("cup", 0.9, part) for part in case)
        assert directions(a, b) == published.relations_geneval(*case), case

    pairs = [tuple(sorted((x, y))) for x in ("left of", "right of") for y in ("above", "below")]
    single = [(one,) for one in ("left of", "right of", "above", "below")]
    compared(draw, branch, ["same", (), *single, *pairs], compare)


def drawn_prompt(rng: Generator) -> dict[str, Any]:
    """Facts of one of GenEval's six tags."""
    tag = str(rng.choice(["single_object", "two_object", "counting", "colors", "position", "color_attr"]))
    colour = lambda: str(rng.choice(["red", "blue"]))  # noqa: E731
    most = {"counting": 4, "colors": 2}.get(tag, 1)
    first: dict[str, Any] = {"class": "cup", "count": int(rng.integers(1, most + 1))}
    second: dict[str, Any] = {"class": "dog", "count": 1}
    if tag in ("colors", "color_attr"):
        first["color"] = colour()
    if tag == "color_attr":
        second["color"] = colour()
    if tag == "position":
        second["position"] = [str(rng.choice(["left of", "right of", "above", "below"])), 0]
    include = [first] if tag in ("single_object", "counting", "colors") else [first, second]
    exclude = [{"class": "cup", "count": first["count"] + 1}] if tag == "counting" else []
    if rng.random() < 0.2:  # as no public prompt is: all at once
        include = [{"class": "cup", "count": 2, "color": colour()}, {**second, "count": 2, "color": colour()}]
        include[1]["position"] = [str(rng.choice(["left of", "right of", "above", "below"])), 0]
        tag = "all"
    return {"tag": tag, "include": include, "exclude": exclude}


def test_every_verdict_of_every_tag_of_geneval():
    def draw(rng: Generator) -> tuple[dict[str, Any], list[Detection], list[str]]:
        facts = drawn_prompt(rng)
        labels = rng.choice(["cup", "dog", "bus"], rng.integers(0, 20 if rng.random() < 0.1 else 5))
        least = 0.9 if facts["tag"] == "counting" and rng.random() < 0.5 else 0.2
        scores = [0.3 if rng.random() < 0.1 else float(rng.uniform(least, 1)) for _ in labels]
        found = [Detection(str(label), part, box(rng)) for label, part in zip(labels, scores, strict=True)]
        return facts, found, [str(one) for one in rng.choice(["red", "blue"], len(found))]

    def theirs(case: tuple[dict[str, Any], list[Detection], list[str]]) -> bool:
        facts, found, colours = case
        seen = dict(zip(plain(found), colours, strict=True))
        return published.geneval(facts, list(seen), seen.__getitem__)

    def compare(case: tuple[dict[str, Any], list[Detection], list[str]]) -> None:
        facts, found, colours = case
        least = 0.9 if facts["tag"] == "counting" else 0.3
        order = sorted(range(len(found)), key=lambda i: -found[i].score)
        of: dict[str, list[int]] = {}
        for i in order:
            if found[i].score > least:
                of.setdefault(found[i].label, []).append(i)
        boxes = {name: [found[i] for i in own[:16]] for name, own in of.items()}
        holds = judge(
            requirements_of(BenchmarkPrompt("a photo", facts["tag"], facts), str),
            boxes,
            lambda one, indices: [colours[of[one.name][index]] for index in indices],
        )
        assert all(holds.values()) == theirs(case), case

    tags = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
    branches = [(tag, right) for tag in tags for right in (True, False)] + [("all", False)]
    compared(draw, lambda case: (case[0]["tag"], theirs(case)), branches, compare)


# The metrics themselves, on the benchmark's prompts.


def prompts_of(split: str) -> list[str]:
    return [line for line in (PROMPTS / f"{split}_val.txt").read_text("utf-8").split("\n") if line.strip()]


class Draws:
    """A detector that finds what it is asked for, now and then, and keeps it."""

    def __init__(self) -> None:
        self.rng, self.found = np.random.default_rng(7), list[Detection]()

    def __call__(self, image: Any, names: list[str], threshold: float) -> list[Detection]:
        labels = self.rng.choice(names, self.rng.integers(0, 7)) if names else []
        self.found = [Detection(str(label), score(self.rng), box(self.rng)) for label in labels]
        return sorted(self.found, key=lambda one: -one.score)


@with_model
@with_prompts
def test_the_metric_of_the_picture_on_every_prompt():
    image, metric = np.zeros((SIDE, SIDE, 3), np.uint8), Spatial2d(parser=str(english_folder()))
    metric.detector, values = Draws(), Counter[bool]()
    for text in prompts_of("spatial"):
        nouns = [token.text for token in metric.parse(text) if token.pos_ == "NOUN"]
        (one,) = metric.measure([image], [BenchmarkPrompt(text)])
        found = plain(metric.detector.found)
        theirs = published.spatial_2d((nouns[0], nouns[-1]), published.relation_2d(text), found)
        assert one.value == pytest.approx(theirs, abs=1e-12), text
        values[theirs > 0] += 1
    assert min(values[False], values[True]) > 20


@with_model
@with_prompts
def test_the_metric_of_depth_on_every_prompt():
    image, metric = np.zeros((SIDE, SIDE, 3), np.uint8), Spatial3d(parser=str(english_folder()))
    depth = np.random.default_rng(8).random((SIDE, SIDE), np.float32)
    metric.detector, values = Draws(), Counter[bool]()
    metric.nearness = lambda image: depth
    for text in prompts_of("3d_spatial"):
        nouns = [token.text for token in metric.parse(text) if token.pos_ == "NOUN"]
        (one,) = metric.measure([image], [BenchmarkPrompt(text)])
        found = plain(metric.detector.found)
        theirs = published.spatial_3d((nouns[0], nouns[-1]), published.relation_3d(text), found, depth)
        assert one.value == pytest.approx(theirs, abs=1e-9), text
        values[theirs > 0.5] += 1
    assert min(values[False], values[True]) > 5


@with_model
@with_prompts
def test_the_metric_of_complex_prompts_on_every_prompt():
    image, metric = np.zeros((SIDE, SIDE, 3), np.uint8), Spatial2d(parser=str(english_folder()), form="complex")
    metric.detector, values = Draws(), Counter[str]()
    for text in prompts_of("complex"):
        tokens = [(token.text, token.pos_) for token in metric.parse(text)]
        objects = published.objects_of_complex(tokens)
        assert things_around(metric.parse(text)) == objects, text
        (one,) = metric.measure([image], [BenchmarkPrompt(text)])
        theirs = 0.0
        if objects is not None:
            theirs = published.spatial_2d(objects, published.relation_2d(text), plain(metric.detector.found))
        assert one.value == pytest.approx(theirs, abs=1e-12), text
        values["none" if objects is None else "zero" if theirs == 0 else "some"] += 1
    assert min(values.values()) > 2
    assert len(values) == 3


@with_model
def test_the_objects_around_prepositions_of_drawn_words():
    """Words and tags that no parser gives; the parse is spaCy's own document."""
    import spacy

    vocab, rng, seen = spacy.blank("en").vocab, np.random.default_rng(9), Counter[bool]()
    words = ["on", "top", "of", "bottom", "the", "left", "right", "next", "to", "side", "near", "cat", "Rex", "red"]
    phrases = [phrase.split() for phrase in published.PREPOSITIONS]
    for _ in range(3000):
        text: list[str] = []
        for _ in range(rng.integers(1, 6)):
            text += phrases[rng.integers(len(phrases))] if rng.random() < 0.25 else [str(rng.choice(words))]
        tags = ["NOUN" if rng.random() < 0.3 else str(rng.choice(["PROPN", "DET"])) for _ in text]
        doc = spacy.tokens.Doc(vocab, words=text, pos=tags)
        theirs = published.objects_of_complex(list(zip(text, tags, strict=True)))
        assert things_around(doc) == theirs, (text, tags)
        seen[theirs is None] += 1
    assert min(seen[False], seen[True]) > 300
