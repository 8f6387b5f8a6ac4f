"""The playground's world: colours, shapes, textures, sizes, relations, and the combinations held out of training."""

from __future__ import annotations

from dataclasses import dataclass

SIZE = 64
"""Side of a scene in pixels."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (222, 38, 38),
    "orange": (246, 134, 20),
    "yellow": (242, 216, 40),
    "green": (36, 156, 62),
    "cyan": (52, 206, 216),
    "blue": (38, 78, 222),
    "purple": (132, 44, 176),
    "pink": (246, 138, 196),
}
"""Name -> sRGB, 0..255."""

SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "star", "heart", "ring", "cross", "diamond")
TEXTURES: tuple[str, ...] = ("solid", "striped", "dotted", "checkered")
RADII: dict[str, tuple[int, ...]] = {"small": (8, 9, 10), "large": (13, 14, 15)}
"""Size -> possible circumscribed radii, in pixels."""
RELATIONS: tuple[str, ...] = ("left of", "right of", "above", "below")
INVERSE: dict[str, str] = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
MAX_THINGS = 3
GAP = 3
"""Minimum distance between the bounding boxes of two things, in pixels."""
DOMINANCE = 1.5
"""In a scene drawn for a relation, minimum ratio of the offset along the relation's axis to the other offset."""

UNSEEN_COLOUR_SHAPE: frozenset[tuple[str, str]] = frozenset(
    {
        ("red", "star"),
        ("orange", "square"),
        ("yellow", "cross"),
        ("green", "heart"),
        ("cyan", "diamond"),
        ("blue", "triangle"),
        ("purple", "ring"),
        ("pink", "circle"),
    }
)
UNSEEN_TEXTURE_SHAPE: frozenset[tuple[str, str]] = frozenset(
    {("striped", "heart"), ("dotted", "cross"), ("checkered", "triangle"), ("checkered", "star")}
)
"""Combinations that appear in no training image and no training caption."""


@dataclass(frozen=True)
class Thing:
    """An object of a scene. `x`, `y` is its centre and `radius` its circumscribed radius, in pixels."""

    colour: str
    shape: str
    texture: str
    radius: int
    x: int
    y: int

    @property
    def size(self) -> str:
        """`small` or `large`; the boundary lies halfway between the two ranges of radii."""
        return "small" if self.radius < (max(RADII["small"]) + min(RADII["large"])) / 2 else "large"

    @property
    def unseen(self) -> bool:
        """Whether its combination is held out of training."""
        return is_unseen(self.colour, self.shape, self.texture)


@dataclass(frozen=True)
class Scene:
    """Things on a light ground; `ground` is sRGB in 0..255."""

    things: tuple[Thing, ...]
    ground: tuple[int, int, int] = (240, 240, 240)


def is_unseen(colour: str, shape: str, texture: str | None) -> bool:
    """Whether a colour with a shape, or a texture with a shape, is held out of training."""
    return (colour, shape) in UNSEEN_COLOUR_SHAPE or (texture, shape) in UNSEEN_TEXTURE_SHAPE


def relation(dx: float, dy: float) -> str:
    """Relation of one thing to another by its offset (`y` grows downwards), along the axis with the larger offset."""
    if abs(dx) > abs(dy):
        return "left of" if dx < 0 else "right of"
    return "above" if dy < 0 else "below"


def spec() -> dict[str, object]:
    """Palette, shapes, textures, sizes, relations and held-out combinations, ready for JSON."""
    return {
        "size": SIZE,
        "colours": {name: list(rgb) for name, rgb in COLOURS.items()},
        "shapes": list(SHAPES),
        "textures": list(TEXTURES),
        "sizes": {name: list(radii) for name, radii in RADII.items()},
        "relations": list(RELATIONS),
        "max_things": MAX_THINGS,
        "unseen": {
            "colour_shape": sorted(map(list, UNSEEN_COLOUR_SHAPE)),
            "texture_shape": sorted(map(list, UNSEEN_TEXTURE_SHAPE)),
        },
    }
