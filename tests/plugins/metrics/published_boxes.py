"""The box formulas of T2I-CompBench and GenEval once more, in plain Python, for comparison with the detector metrics.

Written from descriptions of the two benchmarks and from what their public code does, apart from the metrics. Detections
are (label, score, box) with the box as (left, top, right, bottom) in pixels, in any order; every function goes through
them from the highest score to the lowest, and keeps the order of equal scores. Each quirk of the public code is a
keyword whose default is what is published.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Box = tuple[float, float, float, float]
Detection = tuple[str, float, Box]

PEOPLE = ("girl", "boy", "man", "woman")
KEYS_2D = (
    "on side of",
    "next to",
    "near",
    "on the left of",
    "on the right of",
    "on the bottom of",
    "on the top of",
    "on top of",
)
"""Key words of the 2-D relations, in the order in which a prompt is searched."""
BESIDE = ("on side of", "next to", "near")
PREPOSITIONS = ("on top of", "on bottom of", "on the left", "on the right", "next to", "on side of", "near")
"""Between whose neighbours a complex prompt names its relation; which one it is, KEYS_2D says."""
KEYS_3D = ("in front of", "behind", "hidden")
RENAMED = {"ship": "boat", "painting": "picture", "goldfish": "fish", "telivision": "tv"}
"""Objects of numeracy prompts, beside PEOPLE -> the detector's names; one is spelt as in the public file."""
NUMBERS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8}


def sorted_by_score(detections: Sequence[Detection]) -> list[Detection]:
    return sorted(detections, key=lambda found: -found[1])


def area(box: Box) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def intersection(first: Box, second: Box) -> float:
    wide = min(first[2], second[2]) - max(first[0], second[0])
    high = min(first[3], second[3]) - max(first[1], second[1])
    return wide * high if wide > 0 and high > 0 else 0.0


def iou(first: Box, second: Box) -> float:
    both = intersection(first, second)
    union = area(first) + area(second) - both
    return both / union if union else 0.0


def centre(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def relation_2d(prompt: str) -> str | None:
    """The first of KEYS_2D in the prompt; None if it has none."""
    for key in KEYS_2D:
        if key in prompt:
            return key
    return None


def relation_3d(prompt: str) -> str | None:
    """The first of KEYS_3D in the prompt; None if it has none."""
    for key in KEYS_3D:
        if key in prompt:
            return key
    return None


def named(noun: str) -> str:
    """The detector's label of a spatial prompt's noun."""
    return "person" if noun in PEOPLE else noun


def position_2d(relation: str | None, first: Box, second: Box, *, on_top_of_scores: bool = False) -> float:
    """How well two boxes are placed, in [0, 1].

    Args:
        relation: one of KEYS_2D, or None.
        first: box of the first noun, in pixels of the picture of 480.
        second: box of the second.
        on_top_of_scores: "on top of" counts as "on the top of"; as published it has no branch, and scores 0.
    """
    (x1, y1), (x2, y2) = centre(first), centre(second)
    dx, dy = x2 - x1, y2 - y1
    if relation in BESIDE:
        if abs(dx) < 150 or abs(dy) < 150:
            return 1.0
        return 150 / max(abs(dx), abs(dy))
    if relation == "on top of" and on_top_of_scores:
        relation = "on the top of"
    right_way = {
        "on the left of": dx > 0 and abs(dx) > abs(dy),  # the second lies to the right of the first
        "on the right of": dx < 0 and abs(dx) > abs(dy),
        "on the top of": dy > 0 and abs(dy) > abs(dx),  # y grows downwards
        "on the bottom of": dy < 0 and abs(dy) > abs(dx),
    }.get(relation or "", False)
    if not right_way:
        return 0.0
    overlap = iou(first, second)
    return 1.0 if overlap < 0.1 else 0.1 / overlap


def spatial_2d(
    nouns: tuple[str, str],
    relation: str | None,
    detections: Sequence[Detection],
    *,
    threshold: float = 0.5,
    least: float = 0.5,
    on_top_of_scores: bool = False,
    two_of_a_kind: bool = False,
) -> float:
    """Score of the category "spatial", in [0, 1].

    Args:
        nouns: the first and the last noun of the prompt, as written.
        relation: one of KEYS_2D, or None.
        detections: of the picture.
        threshold: score that a detection must reach.
        least: scores below it become 0.
        on_top_of_scores: see `position_2d`.
        two_of_a_kind: two nouns of one label ("a man next to a woman") are looked for in two boxes; as published, the
            first box stands for both.
    """
    seen = [found for found in sorted_by_score(detections) if found[1] >= threshold]
    wanted = [named(noun) for noun in nouns]
    of_first = [found for found in seen if found[0] == wanted[0]]
    of_second = [found for found in seen if found[0] == wanted[1]]
    if two_of_a_kind and wanted[0] == wanted[1]:
        of_second = of_second[1:]
    score = 0.0
    if of_first:
        score += 0.25 * of_first[0][1]
    if of_second:
        score += 0.25 * of_second[0][1]
    if of_first and of_second:
        score += 0.5 * position_2d(relation, of_first[0][2], of_second[0][2], on_top_of_scores=on_top_of_scores)
    return score if score >= least else 0.0


def as_png(depth: NDArray[Any]) -> NDArray[Any]:
    """A depth map as it comes back from an 8-bit PNG: its least value is 0, its greatest 255, cut to whole levels."""
    low, high = float(depth.min()), float(depth.max())
    if high - low <= np.finfo("float").eps:
        return np.zeros_like(depth)
    return np.trunc(255 * ((depth - low) / (high - low)))


def as_read_back(depth: NDArray[Any], image: tuple[int, int], size: tuple[int, int]) -> NDArray[Any]:
    """A depth map of a model as it comes back from its PNG, which is as large as the image, for a picture of `size`.

    The stretched map is resampled with its corners on those of the image, between the four nearest values, before it is
    cut to whole levels; the picture of it is then resized as the image is.
    """
    depth = np.asarray(depth, np.float64)
    stretched = (depth - depth.min()) / (depth.max() - depth.min())
    rows, columns = (
        np.linspace(0, have - 1, wanted) if wanted > 1 else np.zeros(1)
        for have, wanted in zip(depth.shape, image, strict=True)
    )
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    below, right = np.minimum(top + 1, depth.shape[0] - 1), np.minimum(left + 1, depth.shape[1] - 1)
    down, along = (rows - top)[:, None], (columns - left)[None]
    upper = stretched[np.ix_(top, left)] * (1 - along) + stretched[np.ix_(top, right)] * along
    lower = stretched[np.ix_(below, left)] * (1 - along) + stretched[np.ix_(below, right)] * along
    levels = Image.fromarray(np.trunc(255 * (upper * (1 - down) + lower * down)).astype(np.uint8))
    return np.asarray(levels.resize((size[1], size[0]), Image.Resampling.BILINEAR), dtype=float)


def mean_depth(depth: NDArray[Any], box: Box, *, transposed: bool = True) -> float:
    """Mean of the depth map [H, W] in a box, cut to whole pixels; NaN for an empty one.

    `transposed`: the map is read as if it were [W, H], at (y, x) of the box.
    """
    left, top, right, bottom = (int(edge) for edge in box)
    values = depth[left:right, top:bottom] if transposed else depth[top:bottom, left:right]
    return float(values.mean()) if values.size else math.nan


def position_3d(
    relation: str | None,
    first: Box,
    second: Box,
    depth: NDArray[Any],
    *,
    transposed: bool = True,
    half_scores: bool = False,
) -> float:
    """How well two boxes are placed in depth, in [0, 1].

    Args:
        relation: one of KEYS_3D, or None.
        first: box of the first noun, in pixels of the depth map.
        second: box of the second.
        depth: [H, W], larger is nearer.
        transposed: see `mean_depth`.
        half_scores: an IoU of exactly one half counts 1; as published it is in neither branch, and counts 0.
    """
    one = mean_depth(depth, first, transposed=transposed)
    other = mean_depth(depth, second, transposed=transposed)
    if relation == "in front of":
        right_way = one > other
    elif relation in ("behind", "hidden"):
        right_way = one < other
    else:
        right_way = False
    overlap = iou(first, second)
    if not right_way:
        return 0.0
    if overlap > 0.5 or (overlap == 0.5 and half_scores):
        return 1.0
    if 0 < overlap < 0.5:
        return overlap / 0.5
    return 0.0


def spatial_3d(
    nouns: tuple[str, str],
    relation: str | None,
    detections: Sequence[Detection],
    depth: NDArray[Any],
    *,
    threshold: float = 0.5,
    substring: bool = True,
    last_match: bool = True,
    transposed: bool = True,
    eight_bits: bool = True,
    half_scores: bool = False,
) -> float:
    """Score of the category "3d_spatial", in [0, 1].

    Args:
        nouns: the first and the last noun of the prompt, as written.
        relation: one of KEYS_3D, or None.
        detections: of the picture.
        depth: [H, W], larger is nearer.
        threshold: score that a detection must reach.
        substring: a label that contains the noun is one of it; otherwise it must be equal.
        last_match: of each noun, the last box before both nouns are found, or the first where one of them is not
            found; otherwise the first.
        transposed: see `mean_depth`.
        eight_bits: the depth map goes through `as_png`.
        half_scores: see `position_3d`.
    """
    seen = [found for found in sorted_by_score(detections) if found[1] >= threshold]
    wanted = [named(noun) for noun in nouns]
    of_each = [
        [i for i, (label, _, _) in enumerate(seen) if (noun in label if substring else noun == label)]
        for noun in wanted
    ]
    both = all(of_each)
    chosen: list[Detection | None] = []
    for places, others in (of_each, of_each[::-1]):
        if both and last_match:
            end = max(places[0], others[0])  # where the second of the two is found
            chosen.append(seen[max(place for place in places if place <= end)])
        else:
            chosen.append(seen[places[0]] if places else None)
    score = sum(0.25 * found[1] for found in chosen if found is not None)
    if chosen[0] is not None and chosen[1] is not None:
        seen_depth = as_png(depth) if eight_bits else depth
        score += 0.5 * position_3d(
            relation, chosen[0][2], chosen[1][2], seen_depth, transposed=transposed, half_scores=half_scores
        )
    return score


def covers(first: Box, second: Box, *, whole_pixels: bool = True, limit: float = 0.9) -> bool:
    """Whether two boxes are one thing: their IoU, or the share of either that lies in the other, exceeds `limit`.

    `whole_pixels`: sides are a pixel longer than the difference of their edges.
    """
    more = 1.0 if whole_pixels else 0.0
    sides = [max(0.0, min(first[i + 2], second[i + 2]) - max(first[i], second[i]) + more) for i in (0, 1)]
    both = sides[0] * sides[1]
    sizes = [(box[2] - box[0] + more) * (box[3] - box[1] + more) for box in (first, second)]
    union = sizes[0] + sizes[1] - both
    return any(size and both / size > limit for size in (union, *sizes))


def distinct(detections: Sequence[Detection], *, whole_pixels: bool = True) -> list[Detection]:
    """The detections without those that are one thing with a higher-scoring one of the same label that is kept."""
    kept: list[Detection] = []
    for found in sorted_by_score(detections):
        if not any(found[0] == other[0] and covers(found[2], other[2], whole_pixels=whole_pixels) for other in kept):
            kept.append(found)
    return kept


def numeracy(
    wanted: Sequence[tuple[str, int]],
    detections: Sequence[Detection],
    *,
    threshold: float = 0.5,
    merge: bool = True,
    whole_pixels: bool = True,
    substring: bool = True,
) -> float:
    """Score of the category "numeracy", in [0, 1]: of each object, half its share for being there, half for its number.

    Args:
        wanted: (object, count), in the singular; see RENAMED and NUMBERS.
        detections: of the picture.
        threshold: score that a detection must reach.
        merge: boxes of one thing count once, see `distinct`.
        whole_pixels: see `covers`.
        substring: where no label equals the object, those that contain it are taken for it, also for the objects after
            it.
    """
    seen = [found for found in sorted_by_score(detections) if found[1] >= threshold]
    if merge:
        seen = distinct(seen, whole_pixels=whole_pixels)
    labels = [found[0] for found in seen]
    score = 0.0
    for name, count in wanted:
        label = RENAMED.get(name, named(name))
        if substring and label not in labels:
            labels = [label if label in other else other for other in labels]
        number = labels.count(label)
        share = 1 / len(wanted)
        if number:
            score += share * 0.5
        if number == count:
            score += share * 0.5
    return score


def objects_of_complex(tokens: Sequence[tuple[str, str]]) -> tuple[str, str] | None:
    """The two objects of a complex prompt's 2-D relation; None, for a score of 0, if there are not exactly two.

    For every preposition, the object is the nearest common or proper noun before it, and the first common noun after
    it; without a common one, the end of the first run of proper nouns, unless it ends the prompt.

    Args:
        tokens: (text, spaCy's coarse part of speech) of each token of the prompt, set apart by spaces.
    """
    words, tags = [word for word, _ in tokens], [tag for _, tag in tokens]
    found = []
    for i in range(len(tokens)):
        length = next((n for n in (3, 2, 1) if " ".join(words[i : i + n]) in PREPOSITIONS), 0)
        if not length:
            continue
        found += [words[j] for j in range(i) if tags[j] in ("NOUN", "PROPN")][-1:]
        after = range(min(i + length, len(tokens)), len(tokens))
        common = [words[j] for j in after if tags[j] == "NOUN"]
        proper = [words[j] for j in after[:-1] if tags[j] == "PROPN" != tags[j + 1]]
        found += (common or proper)[:1]
    return (found[0], found[1]) if len(found) == 2 else None


def three_in_one(attribute: float, spatial: float, clip: float, kind: str) -> float:
    """Score of the category "complex" from those of its three metrics; `kind`: "spatial", "action", or any other."""
    if kind == "spatial":
        return (attribute + spatial) / 2
    if kind == "action":
        return (attribute + clip) / 2
    return (attribute + spatial + clip) / 3


def relations_geneval(first: Box, second: Box) -> set[str]:
    """Where the first box is as seen from the second: of "left of", "right of", "above" and "below".

    The offset of the centres loses a tenth of both sizes on each axis, but never changes its sign; what is left is
    compared with the length of the whole offset.
    """
    (x1, y1), (x2, y2) = centre(first), centre(second)
    offset = np.array([x1 - x2, y1 - y2])
    length = float(np.hypot(*offset))
    if length == 0:
        return set()
    sizes = np.array([(first[2] - first[0]) + (second[2] - second[0]), (first[3] - first[1]) + (second[3] - second[1])])
    left = np.sign(offset) * np.maximum(np.abs(offset) - 0.1 * sizes, 0)
    if np.all(np.abs(left) < 1e-3):
        return set()
    dx, dy = left / length
    found = {"left of": dx < -0.5, "right of": dx > 0.5, "above": dy < -0.5, "below": dy > 0.5}
    return {relation for relation, holds in found.items() if holds}


def geneval(
    facts: Mapping[str, Any],
    detections: Sequence[Detection],
    colour_of: Callable[[Detection], str],
    *,
    threshold: float | None = None,
    most: int = 16,
) -> bool:
    """Whether an image is correct by GenEval.

    Args:
        facts: {tag, include: [{class, count, color?, position?: [relation, index]}], exclude: [{class, count}]}.
        detections: of the picture.
        colour_of: the colour that is seen on a detection.
        threshold: score that a detection must exceed; None: 0.3, and 0.9 for counting.
        most: boxes of a class that are looked at.
    """
    if threshold is None:
        threshold = 0.9 if facts["tag"] == "counting" else 0.3
    by_class: dict[str, list[Detection]] = {}
    for found in sorted_by_score(detections):
        of_class = by_class.setdefault(found[0], [])
        if found[1] > threshold and len(of_class) < most:
            of_class.append(found)

    groups: list[list[Detection] | None] = []
    for asked in facts["include"]:
        group = by_class.get(asked["class"], [])[: asked["count"]]
        right = len(group) == asked["count"]
        if right and "color" in asked:
            right = sum(colour_of(found) == asked["color"] for found in group) >= asked["count"]
        if right and "position" in asked:
            relation, index = asked["position"]
            target = groups[index]
            right = target is not None and all(
                relation in relations_geneval(found[2], other[2]) for found in group for other in target
            )
        groups.append(group if right else None)
    too_many = any(len(by_class.get(asked["class"], [])) >= asked["count"] for asked in facts.get("exclude", []))
    return None not in groups and not too_many
