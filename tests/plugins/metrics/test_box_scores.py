"""Formulas of boxes: every branch on boxes made by hand; `test_boxes_parity.py` has them against a transcription."""

from __future__ import annotations

import math

import numpy as np
import pytest

from refcore_plugins.metrics.box_scores import (
    CUT,
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
    spatial_2d,
    spatial_3d,
)
from refcore_plugins.models.depth import read_back
from refcore_plugins.models.detections import Detection, covered, iou, resized_to, without_repeats

MIDDLE = (200.0, 200.0, 240.0, 240.0)


def moved(dx: float, dy: float, box: tuple[float, float, float, float] = MIDDLE) -> tuple[float, float, float, float]:
    return box[0] + dx, box[1] + dy, box[2] + dx, box[3] + dy


def found(label: str, score: float = 0.9, box: tuple[float, float, float, float] = MIDDLE) -> Detection:
    return Detection(label, score, box)


@pytest.mark.parametrize(
    ("relation", "dx", "dy", "value"),
    [
        ("near", 149, 300, 1.0),  # near along one axis is near
        ("near", 300, 149, 1.0),
        ("near", 150, 300, 0.5),
        ("near", -300, 200, 0.5),
        ("left", 100, 50, 1.0),  # the second thing is to the right of the first
        ("left", -100, 50, 0.0),
        ("left", 100, 100, 0.0),
        ("left", 100, -120, 0.0),
        ("right", -100, 50, 1.0),
        ("right", 100, 50, 0.0),
        ("top", 50, 100, 1.0),
        ("top", 50, -100, 0.0),
        ("top", 100, 50, 0.0),
        ("bottom", 50, -100, 1.0),
        ("bottom", 50, 100, 0.0),
        ("left", 0, 0, 0.0),
        ("on top of", 0, 100, 0.0),  # it has no branch
    ],
)
def test_a_position_is_scored_by_sign_axis_and_distance(relation, dx, dy, value):
    assert position(MIDDLE, moved(dx, dy), relation) == value


def test_boxes_that_overlap_lower_a_direction_in_proportion():
    second = moved(20, 0)  # half of each: IoU 1/3
    assert position(MIDDLE, second, "left") == pytest.approx(0.3)
    third = moved(30, 0)  # IoU 1/7
    assert position(MIDDLE, third, "left") == pytest.approx(0.7)
    assert position(MIDDLE, moved(35, 0), "left") == 1.0  # IoU 1/15
    assert position(MIDDLE, moved(20, 0), "near") == 1.0


def test_near_along_both_axes_is_the_mended_near():
    assert position(MIDDLE, moved(149, 300), "near", near="both") == 0.5
    assert position(MIDDLE, moved(149, 149), "near", near="both") == 1.0


def test_the_2d_score_is_cut_below_one_half():
    first, second = found("cat", 0.8), found("dog", 0.6, moved(100, 0))
    assert spatial_2d(first, second, "left") == pytest.approx(0.2 + 0.15 + 0.5)
    assert spatial_2d(first, second, "right") == 0.0
    assert spatial_2d(first, second, "right", cut=0.0) == pytest.approx(0.35)
    assert spatial_2d(first, None, "left") == 0.0
    assert spatial_2d(None, second, "left", cut=0.0) == pytest.approx(0.15)
    assert spatial_2d(None, None, "left", cut=0.0) == 0.0
    assert spatial_2d(first, second, None, cut=0.0) == pytest.approx(0.35)
    assert spatial_2d(found("cat", 1.0), found("dog", 1.0, moved(100, 0)), "right") == CUT  # what is at it stays


def test_the_box_of_a_label_is_its_best_and_labels_are_equal_or_not_at_all():
    boxes = [found("cat", 0.6), found("cattle", 0.9), found("cat", 0.7, moved(5, 5))]
    assert highest(boxes, "cat") == boxes[2]
    assert highest(boxes, "cat", rank=1) == boxes[0]
    assert highest(boxes, "cat", rank=2) is None
    assert highest(boxes, "cats") is None


@pytest.mark.parametrize(
    ("text", "relation"),
    [
        ("a cat on side of a dog", "near"),
        ("a cat next to a dog", "near"),
        ("a cat near a dog", "near"),
        ("a cat on the left of a dog", "left"),
        ("a cat on the right of a dog", "right"),
        ("a cat on the bottom of a dog", "bottom"),
        ("a cat on the top of a dog", "top"),
        ("a cat on top of a dog", "on top of"),
        ("a linear cat on the left of a dog", "near"),  # a part of a word is enough
        ("a cat on the left of a dog, next to a bus", "near"),  # the order is that of the list
    ],
)
def test_the_relation_is_the_first_of_the_list_in_the_text(text, relation):
    assert relation_of(text) == relation


def test_a_text_may_have_no_relation():
    assert relation_of("a cat on bottom of a dog") is None
    assert relation_of("a cat on the left") is None


def test_the_3d_boxes_are_the_last_before_both_are_found():
    boxes = [
        found("cat", 0.9),
        found("cat", 0.8, moved(10, 0)),
        found("dog", 0.7, moved(20, 0)),
        found("cat", 0.6, moved(30, 0)),
    ]
    assert last_before_both(boxes, "cat", "dog") == (boxes[1], boxes[2])
    assert last_before_both(boxes, "cat", "bus") == (boxes[0], None)  # alone, the first
    assert last_before_both(boxes, "bus", "dog") == (None, boxes[2])
    assert last_before_both([found("cattle")], "cat", "dog") == (found("cattle"), None)  # a part of the label
    assert last_before_both(boxes[:1], "cat", "cat") == (boxes[0], boxes[0])


@pytest.mark.parametrize(
    ("first", "second", "overlap", "order", "value"),
    [
        (2.0, 1.0, 0.6, "in front of", 1.0),
        (2.0, 1.0, 0.4, "in front of", 0.8),
        (2.0, 1.0, 0.5, "in front of", 0.0),  # one half is in neither branch
        (2.0, 1.0, 0.0, "in front of", 0.0),
        (1.0, 2.0, 0.6, "in front of", 0.0),
        (1.0, 1.0, 0.6, "in front of", 0.0),
        (1.0, 2.0, 0.6, "behind", 1.0),
        (1.0, 2.0, 0.4, "behind", 0.8),
        (2.0, 1.0, 0.6, "behind", 0.0),
        (1.0, 1.0, 0.6, "behind", 0.0),
        (math.nan, 1.0, 0.6, "in front of", 0.0),
        (math.nan, 1.0, 0.6, "behind", 0.0),
    ],
)
def test_an_order_in_depth_needs_nearness_and_overlap(first, second, overlap, order, value):
    assert depth_order(first, second, overlap, order) == pytest.approx(value)


def test_the_3d_score_is_not_cut():
    assert spatial_3d(found("cat", 0.8), found("dog", 0.4), 0.0) == pytest.approx(0.3)
    assert spatial_3d(found("cat", 0.8), None, 1.0) == pytest.approx(0.2)
    assert spatial_3d(None, None, 1.0) == 0.0
    assert spatial_3d(found("cat", 0.8), found("dog", 0.4), 0.5) == pytest.approx(0.55)


def test_the_words_of_depth():
    assert order_of("a cat in front of a dog") == "in front of"
    assert order_of("a cat behind a dog") == "behind"
    assert order_of("a cat hidden by a dog") == "behind"
    assert order_of("a cat beside a dog") is None


def test_the_published_depth_is_that_of_the_mirrored_box():
    depth = np.zeros((60, 80), np.float32)
    depth[10:20, 30:50] = 1.0
    box = (30.0, 10.0, 50.0, 20.0)
    assert mean_depth(depth, box, transposed=False) == 1.0
    assert mean_depth(depth, box) == 0.0
    assert mean_depth(depth, (10.0, 30.0, 20.0, 50.0)) == 1.0
    assert math.isnan(mean_depth(depth, (70.0, 10.0, 79.0, 20.0)))  # beyond the height of the map
    assert math.isnan(mean_depth(depth, (10.2, 30.0, 10.9, 50.0)))  # no whole pixel


def test_depth_is_read_in_whole_levels():
    assert read_back(np.array([[0.0, 0.5, 1.0]], np.float32), (1, 3), (1, 3)).tolist() == [[0, 127, 255]]
    assert read_back(np.full((4, 4), 3.0, np.float32), (3, 3), (2, 2)).tolist() == [[0, 0], [0, 0]]


def test_boxes_of_one_thing_are_counted_once():
    whole, part, shifted = (0.0, 0.0, 100.0, 100.0), (10.0, 10.0, 30.0, 30.0), (0.0, 0.0, 100.0, 95.0)
    boxes = [found("cat", 0.9, whole), found("cat", 0.8, part), found("cat", 0.7, shifted), found("dog", 0.6, part)]
    assert merged(boxes) == [boxes[0], boxes[3]]
    apart = [found("cat", 0.9, whole), found("cat", 0.8, moved(50, 0, whole))]
    assert merged(apart) == apart
    assert merged(list(reversed(boxes)))[0] == boxes[0]


def test_merging_counts_whole_pixels_unless_told():
    """10 x 10 pixels, of which 9 columns are shared: 0.9, and 10 of 11 with a pixel more on each side."""
    boxes = [found("cat", 0.9, (0.0, 0.0, 10.0, 10.0)), found("cat", 0.8, (1.0, 0.0, 11.0, 10.0))]
    assert merged(boxes) == boxes[:1]
    assert merged(boxes, whole_pixels=False) == boxes


def test_a_number_gives_half_for_being_there_and_half_for_being_right():
    assert numeracy([2, 1], [2, 3]) == [0.5, 0.25]
    assert numeracy([0], [1]) == [0.0]
    assert sum(numeracy([1, 1, 1], [1, 1, 1])) == pytest.approx(1.0)


def test_labels_that_contain_a_name_count_where_none_equals_it():
    boxes = [found("stop sign"), found("stop sign"), found("cat")]
    assert numbers_of(boxes, ["sign", "cat"]) == [2, 1]
    assert numbers_of(boxes, ["sign", "stop sign"]) == [2, 0]  # they have become signs
    assert numbers_of(boxes, ["sign"], exact=True) == [0]
    assert numbers_of([*boxes, found("sign")], ["sign", "stop sign"]) == [1, 2]


def test_directions_need_more_than_half_of_the_whole_offset():
    a, size = found("cup"), 40
    assert directions(found("cup", box=moved(-100, 0)), a) == {"left of"}
    assert directions(found("cup", box=moved(100, 0)), a) == {"right of"}
    assert directions(found("cup", box=moved(0, -100)), a) == {"above"}
    assert directions(found("cup", box=moved(0, 100)), a) == {"below"}
    assert directions(found("cup", box=moved(-100, 100)), a) == {"left of", "below"}
    assert directions(found("cup", box=moved(0.2 * size, 0)), a) == set()  # a tenth of both sizes
    assert directions(found("cup", box=moved(0.4 * size, 0)), a) == set()  # exactly one half
    assert directions(found("cup", box=moved(0.41 * size, 0)), a) == {"right of"}
    assert directions(a, a) == set()


def test_overlap_and_cover_of_boxes():
    assert iou(MIDDLE, MIDDLE) == 1.0
    assert iou(MIDDLE, moved(40, 0)) == 0.0
    assert iou((0, 0, 0, 0), (0, 0, 0, 0)) == covered((0, 0, 0, 0), MIDDLE) == 0.0
    assert covered((0, 0, 10, 10), (0, 0, 100, 100)) == 1.0
    assert iou((0, 0, 10, 10), (0, 0, 100, 100)) == pytest.approx(0.01)
    assert resized_to(1024, 1024, 479, 480) * 1024 == pytest.approx(479)
    assert resized_to(100, 400, 479, 480) * 400 == pytest.approx(480)


def test_suppression_drops_repeats_of_the_same_label_alone():
    boxes = [found("cat", 0.6), found("cat", 0.9, moved(1, 0)), found("dog", 0.5)]
    assert without_repeats(boxes, 0.5) == [boxes[1], boxes[2]]
    assert without_repeats(boxes, 1.0) == [boxes[1], boxes[0], boxes[2]]


def test_an_offset_below_a_thousandth_of_a_pixel_has_no_direction():
    """As in GenEval's relative_position."""
    first, near, far = (Detection("cup", 0.9, (x, 0.0, x, 0.0)) for x in (0.0, 5e-4, 5e-3))
    assert directions(first, near) == set()
    assert directions(first, far) == {"left of"}
