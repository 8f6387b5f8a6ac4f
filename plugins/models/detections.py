"""A detected thing, and the geometry of boxes: overlap, cover, and the size that detectors resize an image to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels; x grows to the right, y downwards."""


@dataclass(frozen=True)
class Detection:
    """A thing that a detector found in an image."""

    label: str
    """The name that it was looked for by."""
    score: float
    """In [0, 1]."""
    box: Box

    @property
    def centre(self) -> tuple[float, float]:
        """(x, y) in pixels."""
        left, top, right, bottom = self.box
        return (left + right) / 2, (top + bottom) / 2

    @property
    def size(self) -> tuple[float, float]:
        """(width, height) in pixels."""
        left, top, right, bottom = self.box
        return right - left, bottom - top

    def scaled(self, factor: float) -> Detection:
        """The same thing in the same image, resized by `factor`."""
        left, top, right, bottom = self.box
        return Detection(self.label, self.score, (left * factor, top * factor, right * factor, bottom * factor))


def area(box: Box) -> float:
    """Square pixels of a box; 0 where it is turned inside out."""
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def intersection(a: Box, b: Box) -> float:
    """Square pixels that two boxes share."""
    return area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, 0 to 1; 0 for boxes without area."""
    shared = intersection(a, b)
    union = area(a) + area(b) - shared
    return shared / union if union > 0 else 0.0


def covered(a: Box, b: Box) -> float:
    """Part of the smaller box that the other covers, 0 to 1; 0 for boxes without area."""
    smaller = min(area(a), area(b))
    return intersection(a, b) / smaller if smaller > 0 else 0.0


def without_repeats(found: Sequence[Detection], overlap: float) -> list[Detection]:
    """Non-maximum suppression: by falling score, without boxes whose IoU with a kept one of the same label is above
    `overlap`; 1 keeps all."""
    kept: list[Detection] = []
    for one in sorted(found, key=lambda detection: -detection.score):
        if all(one.label != other.label or iou(one.box, other.box) <= overlap for other in kept):
            kept.append(one)
    return kept


def resized_to(height: int, width: int, shorter: int, longer: int) -> float:
    """Factor by which an image is resized so that its shorter side is `shorter` pixels and no side exceeds `longer`.

    >>> round(resized_to(512, 512, 479, 480) * 512), round(resized_to(512, 768, 479, 480) * 768)
    (479, 480)
    """
    return min(shorter / min(height, width), longer / max(height, width))
