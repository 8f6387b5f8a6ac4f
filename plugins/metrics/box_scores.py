"""The formulas of the box metrics, from detections alone: T2I-CompBench's space and number, GenEval's position.

Each function is one formula of public code: Karine-Huang/T2I-CompBench at 1b70949 (2026-05-07), whose paper is
T2I-CompBench++ (arXiv 2307.06350), and djghosh13/geneval at af4902f (2025-03-03), whose paper is arXiv 2310.11513.
The defaults are what that code does; an argument mends what it does against its own paper.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from refcore_plugins.models.detections import Box, Detection, covered, iou

Relation = Literal["near", "left", "right", "bottom", "top", "on top of", "on bottom of"]
SPATIAL_WORDS: tuple[tuple[str, Relation], ...] = (
    ("on side", "near"),
    ("next to", "near"),
    ("near", "near"),
    ("on the left", "left"),
    ("on the right", "right"),
    ("on the bottom", "bottom"),
    ("on the top", "top"),
    ("on top of", "on top of"),
)
"""Words of a 2-D prompt in the order in which they are looked for -> relation."""
COMPLEX_WORDS: tuple[tuple[str, Relation], ...] = (
    ("on top of", "on top of"),
    ("on bottom of", "on bottom of"),
    ("on the left", "left"),
    ("on the right", "right"),
    ("next to", "near"),
    ("on side of", "near"),
    ("near", "near"),
)
"""The same in complex prompts."""
MENDED: Mapping[Relation, Relation] = {"on top of": "top", "on bottom of": "bottom"}
"""Relations that the published code finds, and has no branch to score -> the one that is meant."""
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


def relation_of(text: str, words: Sequence[tuple[str, Relation]] = SPATIAL_WORDS) -> tuple[str, Relation] | None:
    """The first of `words` that the text contains, with its relation."""
    return next(((word, relation) for word, relation in words if word in text), None)


def order_of(text: str) -> Order | None:
    """The order in depth that a text names."""
    return next((order for word, order in DEPTH_WORDS if word in text), None)


def position(first: Box, second: Box, relation: Relation, near: Literal["either", "both"] = "either") -> float:
    """How far a relation of the first box to the second holds, 0 to 1 (T2I-CompBench, 2D_spatial_eval).

    Near: 1 where the centres are less than `NEAR` pixels apart, else NEAR over the larger offset. A direction: the sign
    is right and its axis has the larger offset, and the boxes overlap little; with more overlap, `SMALL_OVERLAP` / IoU.
    "on top of" and "on bottom of" have no branch: 0.

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

    The boxes are walked by falling score. A box is of a thing whose name is part of its label, so that "car" is also
    found in "carpet"; a later one replaces an earlier one until both things have been found.
    """
    a: Detection | None = None
    b: Detection | None = None
    for one in sorted(found, key=lambda detection: -detection.score):
        a = one if first in one.label else a
        b = one if second in one.label else b
        if a is not None and b is not None:
            break
    return a, b


def mean_depth(depth: NDArray[np.float32], box: Box, transposed: bool = True) -> float:
    """Mean of a depth map [H, W] in a box; NaN where the box holds no pixel of it.

    `transposed` indexes [x, y], as the published code does: it reads the box that is mirrored at the diagonal.
    """
    left, top, right, bottom = (max(0, int(side)) for side in box)
    inside = depth[left:right, top:bottom] if transposed else depth[top:bottom, left:right]
    return float(inside.mean(dtype=np.float64)) if inside.size else math.nan


def eight_bit(depth: NDArray[np.float32]) -> NDArray[np.float32]:
    """A depth map as MiDaS saves it and T2I-CompBench reads it back: stretched to whole levels, 0 to 255."""
    low, high = float(depth.min()), float(depth.max())
    if high - low <= np.finfo(np.float32).eps:
        return np.zeros_like(depth)
    levels: NDArray[np.float32] = np.floor(255 * (depth - low) / (high - low)).astype(np.float32)
    return levels


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


def merged(found: Sequence[Detection]) -> list[Detection]:
    """Detections by falling score, without those that repeat one of the same label: IoU or cover above `SAME_THING`."""
    kept: list[Detection] = []
    for one in sorted(found, key=lambda detection: -detection.score):
        same = (other.box for other in kept if other.label == one.label)
        if not any(iou(one.box, box) > SAME_THING or covered(one.box, box) > SAME_THING for box in same):
            kept.append(one)
    return kept


def numeracy(counts: Mapping[str, int], wanted: Mapping[str, int]) -> dict[str, float]:
    """Thing -> its share of the score: half of 1 / number of things if present, and the other half if as many as asked.

    T2I-CompBench++, numeracy_eval. The score of an image is the sum.

    Args:
        counts: thing -> number found, after `merged`.
        wanted: thing -> number asked for.
    """
    share = 1 / len(wanted)
    return {
        name: share * (0.5 * (counts.get(name, 0) > 0) + 0.5 * (counts.get(name, 0) == number))
        for name, number in wanted.items()
    }


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
    if not any(reduced):
        return set()
    dx, dy = (part / math.hypot(*offset) for part in reduced)
    found = {"left of": dx < -0.5, "right of": dx > 0.5, "above": dy < -0.5, "below": dy > 0.5}
    return {name for name, holds in found.items() if holds}
