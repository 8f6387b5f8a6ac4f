"""The formulas of the box metrics, from detections alone: T2I-CompBench's space and number, GenEval's position.

Each function is one formula of public code: Karine-Huang/T2I-CompBench at 1b70949 (2026-05-07), whose paper is
T2I-CompBench++ (arXiv 2307.06350), and djghosh13/geneval at af4902f (2025-03-03), whose paper is arXiv 2310.11513.
The defaults are what that code does; an argument mends what it does against its own paper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from refcore_plugins.models.detections import Box, Detection, covered, iou

Relation = Literal["near", "left", "right", "bottom", "top", "on top of"]
SPATIAL_WORDS: tuple[tuple[str, Relation], ...] = (
    ("on side of", "near"),
    ("next to", "near"),
    ("near", "near"),
    ("on the left of", "left"),
    ("on the right of", "right"),
    ("on the bottom of", "bottom"),
    ("on the top of", "top"),
    ("on top of", "on top of"),
)
"""Words of a prompt in the order in which they are looked for -> relation."""
Order = Literal["in front of", "behind"]
DEPTH_WORDS: tuple[tuple[str, Order], ...] = (
    ("in front of", "in front of"),
    ("behind", "behind"),
    ("hidden", "behind"),
)
"""Words of a 3-D prompt -> order along the line of sight."""
NEAR = 150.0
"""Pixels, of an image resized to 480, up to which two things are near each other."""
CUT = 0.5
"""2-D scores below are 0."""
ENOUGH_OVERLAP = 0.5
"""IoU above which an order in depth counts fully."""
SMALL_OVERLAP = 0.1
"""IoU below which a direction counts fully."""
SAME_THING = 0.9
"""IoU, or part of the smaller box, above which two boxes of a label are one thing."""


def relation_of(text: str) -> Relation | None:
    """The relation of the first of `SPATIAL_WORDS` that the text contains."""
    return next((relation for word, relation in SPATIAL_WORDS if word in text), None)


def order_of(text: str) -> Order | None:
    """The order in depth that a text names."""
    return next((order for word, order in DEPTH_WORDS if word in text), None)


def position(first: Box, second: Box, relation: Relation, near: Literal["either", "both"] = "either") -> float:
    """How far a relation of the first box to the second holds, 0 to 1 (T2I-CompBench, 2D_spatial_eval).

    Near: 1 where the centres are less than `NEAR` pixels apart, else NEAR over the larger offset. A direction: the sign
    is right and its axis has the larger offset, and the boxes overlap little; with more overlap, `SMALL_OVERLAP` / IoU.
    "on top of" has no branch: 0.

    Args:
        first: of the prompt's first thing, in pixels of an image resized to 480.
        second: of its last.
        relation: of the first to the second.
        near: axes along which the offset must be small; the published code is satisfied with either.
    """
    dx = (second[0] + second[2] - first[0] - first[2]) / 2
    dy = (second[1] + second[3] - first[1] - first[3]) / 2
    if relation == "near":
        small = abs(dx) < NEAR, abs(dy) < NEAR
        return 1.0 if (any(small) if near == "either" else all(small)) else NEAR / max(abs(dx), abs(dy))
    toward, across = {"left": (dx, dy), "right": (-dx, dy), "top": (dy, dx), "bottom": (-dy, dx)}.get(
        relation, (0.0, 0.0)
    )
    if toward <= 0 or toward <= abs(across):
        return 0.0
    overlap = iou(first, second)
    return 1.0 if overlap < SMALL_OVERLAP else SMALL_OVERLAP / overlap


def highest(found: Sequence[Detection], label: str, rank: int = 0) -> Detection | None:
    """The detection of exactly this label with the highest score, or the one `rank` places below."""
    named = sorted((one for one in found if one.label == label), key=lambda one: -one.score)
    return named[rank] if rank < len(named) else None


def spatial_2d(
    first: Detection | None,
    second: Detection | None,
    relation: Relation | None,
    *,
    cut: float = CUT,
    near: Literal["either", "both"] = "either",
) -> float:
    """Score of a 2-D relation, 0 to 1: a quarter of each thing's score and half the position; below `cut`, 0.

    Args:
        first: the prompt's first thing, None where it was not found.
        second: its last thing.
        relation: None where the prompt has no word of a relation: the position counts 0.
        cut: 0 keeps every score.
        near: see `position`.
    """
    score = sum(0.25 * one.score for one in (first, second) if one is not None)
    if first is not None and second is not None and relation is not None:
        score += 0.5 * position(first.box, second.box, relation, near)
    return score if score >= cut else 0.0


def last_before_both(found: Sequence[Detection], first: str, second: str) -> tuple[Detection | None, Detection | None]:
    """Boxes of two things as T2I-CompBench's 3D_spatial_eval finds them.

    A box is of a thing whose name is part of its label, so that "car" is also found in "carpet". Boxes are walked by
    falling score until both things have been found, and of each the last one met counts. Of a thing that is found
    alone, the first one counts.
    """
    walked = sorted(found, key=lambda detection: -detection.score)
    of_first = [i for i, one in enumerate(walked) if first in one.label]
    of_second = [i for i, one in enumerate(walked) if second in one.label]
    if not of_first or not of_second:
        return (walked[of_first[0]] if of_first else None), (walked[of_second[0]] if of_second else None)
    end = max(of_first[0], of_second[0])
    return walked[max(i for i in of_first if i <= end)], walked[max(i for i in of_second if i <= end)]


def mean_depth(depth: NDArray[np.float32], box: Box, transposed: bool = True) -> float:
    """Mean of a depth map [H, W] in a box; NaN where the box holds no pixel of it.

    `transposed` indexes [x, y], as the published code does: it reads the box that is mirrored at the diagonal.
    """
    left, top, right, bottom = (max(0, int(side)) for side in box)
    inside = depth[left:right, top:bottom] if transposed else depth[top:bottom, left:right]
    return float(inside.mean(dtype=np.float64)) if inside.size else math.nan


def depth_order(first: float, second: float, overlap: float, order: Order) -> float:
    """How far an order in depth holds, 0 to 1 (T2I-CompBench, 3D_spatial_eval).

    Args:
        first: nearness of the first thing, larger is nearer, as in MiDaS.
        second: nearness of the last.
        overlap: IoU of their boxes.
        order: of the first to the last. Where it holds, an IoU above `ENOUGH_OVERLAP` counts fully, and one below in
            proportion; an IoU of exactly `ENOUGH_OVERLAP` has no branch in the published code and counts 0.
    """
    holds = first > second if order == "in front of" else first < second
    if not holds or overlap == ENOUGH_OVERLAP:
        return 0.0
    return 1.0 if overlap > ENOUGH_OVERLAP else overlap / ENOUGH_OVERLAP


def spatial_3d(first: Detection | None, second: Detection | None, position: float) -> float:
    """Score of a 3-D relation, 0 to 1: a quarter of each thing's score and half of `depth_order`; nothing is cut."""
    score = sum(0.25 * one.score for one in (first, second) if one is not None)
    return score + (0.5 * position if first is not None and second is not None else 0.0)


def same_thing(a: Box, b: Box, whole_pixels: bool = True) -> bool:
    """Whether two boxes show one thing: their IoU, or the part of either in the other, is above `SAME_THING`.

    `whole_pixels`: a side is one pixel longer than the difference of its edges, as in the published code.
    """
    more = 1.0 if whole_pixels else 0.0
    a, b = (a[0], a[1], a[2] + more, a[3] + more), (b[0], b[1], b[2] + more, b[3] + more)
    return covered(a, b) > SAME_THING  # the part of the smaller one, which is never below the IoU


def merged(found: Sequence[Detection], whole_pixels: bool = True) -> list[Detection]:
    """Detections by falling score, without those that show the same thing as a kept one of the same label."""
    kept: list[Detection] = []
    for one in sorted(found, key=lambda detection: -detection.score):
        if not any(other.label == one.label and same_thing(one.box, other.box, whole_pixels) for other in kept):
            kept.append(one)
    return kept


def numbers_of(found: Sequence[Detection], names: Sequence[str], exact: bool = False) -> list[int]:
    """Number of detections of each name (T2I-CompBench++, numeracy_eval).

    Where no label equals a name, labels that contain it count as it, for this name and for those after it; `exact` asks
    for equality.
    """
    labels, numbers = [one.label for one in found], []
    for name in names:
        if name not in labels and not exact:
            labels = [name if name in label else label for label in labels]
        numbers.append(labels.count(name))
    return numbers


def numeracy(numbers: Sequence[int], wanted: Sequence[int]) -> list[float]:
    """Each thing's share of the score: half of 1 / number of things if it is there, and half if as often as asked.

    T2I-CompBench++, numeracy_eval. The score of an image is the sum.

    Args:
        numbers: of each thing, after `merged`.
        wanted: of each thing, in the prompt.
    """
    share = 1 / len(wanted)
    return [
        share * (0.5 * (number > 0) + 0.5 * (number == asked)) for number, asked in zip(numbers, wanted, strict=True)
    ]


def directions(a: Detection, b: Detection) -> set[str]:
    """Directions in which the first thing lies from the second: "left of", "right of", "above", "below" (GenEval).

    The offset of the centres, less a tenth of both sizes along each axis, over the length of the whole offset; a
    component beyond one half is a direction.
    """
    offset = [a.centre[axis] - b.centre[axis] for axis in (0, 1)]
    reduced = [
        math.copysign(max(abs(offset[axis]) - 0.1 * (a.size[axis] + b.size[axis]), 0.0), offset[axis])
        for axis in (0, 1)
    ]
    if all(abs(part) < 1e-3 for part in reduced):
        return set()
    dx, dy = (part / math.hypot(*offset) for part in reduced)
    found = {"left of": dx < -0.5, "right of": dx > 0.5, "above": dy < -0.5, "below": dy > 0.5}
    return {name for name, holds in found.items() if holds}
