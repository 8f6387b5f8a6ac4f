"""Recognises a thing's surface: its colour from its bright parts, its texture from patterns of shade at any phase."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from refcore_playground.render import dark
from refcore_playground.segment import PALETTE, SMOOTHING, Array, Mask, Percept, misfit, oklab, parts, unmix
from refcore_playground.world import COLOURS, SIZE, TEXTURES

UNCLEAR = "unclear"
"""Value of an attribute that a person could not name either. No request has it, so no fact holds of it."""

INSIDE = 0.8
"""Minimum coverage of a pixel that shows only the surface."""
BRIGHT = 0.35
"""Share of a surface taken as its bright part; checkered is the darkest texture, half dark."""
MOST_GROUND = 0.7
"""Maximum share of ground in the colour of a faded thing."""
LIGHTNESS_WEIGHT = 0.35
"""Weight of lightness in colour distances: textures, blur and exposure change lightness more than hue."""
COLOUR_REACH = 0.13
"""Maximum OKLab distance to the palette colour that names a colour; palette colours are at least 0.13 apart."""
OTHER_HUE = 0.08
"""Minimum sRGB distance by which another palette colour must fit a pixel better than the thing's own."""
OTHER_SHARE = 0.1
OTHER_PIECE = 12
"""Share of a surface, or connected pixels, of another hue from which the thing has two colours."""

SOLID_CONTRAST = 0.15
"""Maximum contrast (bright minus dark, as a share of the colour) of a solid surface; clean textures have 0.72."""
PATTERN_CONTRAST = 0.2
"""Minimum contrast of a pattern."""
PATTERN_MATCH = 0.6
"""Minimum correlation with a recognised pattern."""
PATTERN_LEAD = 0.03
"""Minimum lead in correlation over the best pattern of another texture."""
SHADE_RANGE = (0.0, 1.3)
"""Range to which shades are clipped: noise on pale colours exceeds it."""
VARIED = 0.1
"""Minimum standard deviation of a pattern over a surface, below which it cannot be distinguished from solid."""
SCALES = (0.77, 0.88, 1.0, 1.14, 1.3)
"""Scales at which patterns are matched, finer and coarser than drawn, in steps of an eighth."""
TILTS: dict[str, tuple[int, ...]] = {
    "striped": tuple(range(0, 180, 15)),
    "dotted": (-10, 0, 10),
    "checkered": (-10, 0, 10),
}
"""Tilts in degrees: stripes are stripes in any direction; the others, turned further, look different."""
_PHASES: dict[str, list[tuple[float, float]]] = {
    "striped": [(0, v) for v in np.arange(0, 6, 0.75)],
    "dotted": [(u, v) for u in np.arange(0.5, 8) for v in np.arange(0.5, 8)],
    "checkered": [(u, v) for u in np.arange(0.5, 8) for v in np.arange(0.5, 4)],
}
"""Shifts in pixels that cover one period of each texture."""


@dataclass(frozen=True)
class Surface:
    """Colour and texture of a thing, either may be UNCLEAR."""

    colour: str
    texture: str
    contrast: float
    """Bright minus dark of the best pattern, as a share of the colour."""
    match: float
    """Correlation with the best pattern, -1..1; 1 for solid."""
    mixed: float
    """Share of the surface, 0..1, that another palette colour fits clearly better."""


def paint(percept: Percept, region: Mask) -> Array:
    """Colour, [3] in sRGB, of the bright part of a region."""
    colour: Array = PALETTE[np.bincount(percept.hue[region], minlength=len(PALETTE)).argmax()]
    pixels = percept.image[region]
    for _ in range(2):  # first from a palette colour, then from the colour found with it
        covered, light = unmix(pixels, percept.ground, colour)
        bare = covered >= min(INSIDE, float(np.quantile(covered, 0.7)))
        bright = bare & (light >= np.quantile(light[bare], 1 - BRIGHT))
        glimpse = 1 - np.clip(covered[bright], 0, 1)  # share of the ground, to be subtracted
        own = (pixels[bright] - glimpse[:, None] * percept.ground).mean(0)
        colour = np.clip(own / (1 - min(float(glimpse.mean()), MOST_GROUND)), 0, 1)
    return colour


def read_surface(percept: Percept, colour: Array, core: Mask, whole: Mask) -> Surface:
    """Colour and texture of a thing whose bright colour is `colour`.

    `core`, [SIZE, SIZE], shows only its surface; `whole` includes its soft edge, where other hues count, too.
    """
    name = name_colour(colour)
    other = _other_hue(percept, colour, name) & whole
    mixed = float(other[core].mean())
    two = mixed > OTHER_SHARE or bool(parts(other, OTHER_PIECE))
    texture, contrast, match = _texture(percept, colour, core)
    return Surface(UNCLEAR if two else name, texture, contrast, match, mixed)


def name_colour(colour: Array) -> str:
    """Palette name of a colour [3] in sRGB, or UNCLEAR."""
    offset = (oklab(PALETTE) - oklab(colour)) * (LIGHTNESS_WEIGHT, 1, 1)
    distances = np.linalg.norm(offset, axis=1)
    nearest = int(distances.argmin())
    return list(COLOURS)[nearest] if distances[nearest] < COLOUR_REACH else UNCLEAR


def _other_hue(percept: Percept, colour: Array, named: str) -> Mask:
    """Pixels that another palette colour fits clearly better than `colour` and its namesake in the palette."""
    own = misfit(percept.image, percept.ground, colour)[1]
    if named != UNCLEAR:
        own = np.minimum(own, percept.misfit[list(COLOURS).index(named)])
    other: Mask = own - percept.misfit.min(0) > OTHER_HUE
    return other


def _texture(percept: Percept, colour: Array, core: Mask) -> tuple[str, float, float]:
    """Texture, contrast and match; see `Surface`."""
    covered, light = unmix(percept.image[core], percept.ground, colour)
    shade = np.clip(light / np.clip(covered, 0.5, 1), *SHADE_RANGE)
    shade = shade - shade.mean()
    names, patterns = _patterns()
    drawn = patterns[:, core]
    drawn = drawn - drawn.mean(1, keepdims=True)
    varied = drawn.std(1)
    scale = np.maximum(varied, VARIED) * max(float(shade.std()), 1e-3)
    matches = np.where(varied > VARIED, drawn @ shade / (len(shade) * scale), -1)
    best = {t: np.where(names == TEXTURES.index(t), matches, -2).argmax() for t in TILTS}
    first, second = sorted(best, key=lambda t: -matches[best[t]])[:2]
    match, lead = matches[best[first]], matches[best[first]] - matches[best[second]]
    # Half of the spread counts even if no pattern explains it: a smear is not solid.
    contrast = float(max(match, 0.5) * shade.std() / max(varied[best[first]], VARIED))
    if contrast < SOLID_CONTRAST:
        return "solid", contrast, 1.0
    clear = contrast > PATTERN_CONTRAST and match > PATTERN_MATCH and lead > PATTERN_LEAD
    return first if clear else UNCLEAR, contrast, float(match)


@cache
def _patterns() -> tuple[NDArray[np.intp], Array]:
    """Every pattern at every phase, tilt and scale: index in TEXTURES [n], and brightness [n, SIZE, SIZE]."""
    fine = 2
    at = (np.arange(SIZE * fine, dtype=np.float32) + 0.5) / fine
    x, y = np.meshgrid(at, at)
    names, patterns = [], []
    for texture, tilts in TILTS.items():
        for scale in SCALES:
            for tilt in np.radians(tilts if scale == 1 or texture == "striped" else (0,)):
                u = (x * np.cos(tilt) + y * np.sin(tilt)) / scale
                v = (y * np.cos(tilt) - x * np.sin(tilt)) / scale
                for shift_u, shift_v in _PHASES[texture]:
                    bright = ~dark(texture, u + shift_u, v + shift_v)
                    pooled = bright.reshape(SIZE, fine, SIZE, fine).mean((1, 3), dtype=np.float32)
                    patterns.append(ndimage.gaussian_filter(pooled, SMOOTHING))
                    names.append(TEXTURES.index(texture))
    return np.array(names), np.stack(patterns)
