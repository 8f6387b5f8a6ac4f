"""Segments an image into ground and visible regions; unmixes each pixel into coverage by a thing and its brightness."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from refcore_playground.render import SHADE
from refcore_playground.world import COLOURS, SIZE

Array = NDArray[np.floating]
Mask = NDArray[np.bool_]

SMOOTHING = 0.7
"""Sigma in pixels of the initial Gaussian blur: it divides white noise by 2.5 and keeps stripes of 3 px."""
GROUND_LIGHTNESS = 0.5
GROUND_CHROMA = 0.22
"""The ground is light and nearly grey: the mean of its channels is above the one, their spread below the other."""
GROUND_TOLERANCE = 0.05
"""Pixels within this (sRGB, root mean square over channels) of the fitted ground take part in its next fit."""
VISIBLE = 0.06
"""Minimum OKLab distance to the ground of anything visible; yellow, the palest colour, is at 0.19."""
TRACE = 0.25
"""Minimum coverage of a pixel of a region: 3 px of ground between two things stay below it when blurred."""
HALF = 0.5
"""A region ends where coverage falls to this share of the coverage inside, for faded things, too."""
PLATEAU = 0.75
"""Quantile of a region's coverage taken as the coverage inside."""
FAINTEST = 0.3
"""Minimum coverage inside a faded thing; fainter ones are not scaled up to full coverage."""
SPECK = 14
"""Minimum pixels of a region; a star of radius 6 has 47."""
SHADES = (0.5 * SHADE, 1.15)
"""Range of a pixel's shade; clean renders have SHADE..1."""
HUE_SHARE = 0.08
"""Minimum share of a region's pixels for a hue by which to split it."""
NARROWS = (1.0, 1.5, 2.0, 3.0, 4.0)
"""Pixels of erosion under which a region may fall apart: half the width of the bridge that is cut."""

PALETTE: Array = np.array(list(COLOURS.values()), np.float32) / 255
"""The colours of the world, [8, 3], sRGB in [0, 1]."""
_TO_LMS = np.array(
    [[0.41222147, 0.53633254, 0.05144599], [0.21190350, 0.68069955, 0.10739696], [0.08830246, 0.28171884, 0.62997870]],
    np.float32,
)
_TO_LAB = np.array(
    [[0.21045426, 0.79361779, -0.0040720], [1.97799850, -2.42859221, 0.4505937], [0.02590404, 0.78277177, -0.8086758]],
    np.float32,
)


@dataclass(frozen=True)
class Percept:
    """An image decomposed into ground and coverage. All maps are [SIZE, SIZE]."""

    image: Array
    """[SIZE, SIZE, 3], smoothed by SMOOTHING, with a uniform ground of colour `ground`."""
    ground: Array
    """[3], sRGB."""
    visibility: Array
    """OKLab distance to the ground."""
    misfit: Array
    """[8, SIZE, SIZE]: the residual of `misfit` for each palette colour."""
    hue: NDArray[np.intp]
    """Index of the palette colour that fits each pixel and its neighbours best."""
    coverage: Array
    """Share of each pixel covered by a thing, 0..1, assuming the thing has colour `hue`."""

    @property
    def seen(self) -> Mask:
        """Pixels where something is visible."""
        seen: Mask = self.visibility > VISIBLE
        return seen


def perceive(image: Array) -> Percept:
    """Decomposes an image [SIZE, SIZE, 3] in [0, 1]."""
    smooth = ndimage.gaussian_filter(image, (SMOOTHING, SMOOTHING, 0), mode="nearest")
    surface = _ground(smooth)
    ground = surface.mean((0, 1))
    smooth = smooth - surface + ground
    visibility = np.linalg.norm(oklab(np.clip(smooth, 0, 1)) - oklab(ground), axis=-1)
    coverages, costs = map(np.stack, zip(*(misfit(smooth, ground, colour) for colour in PALETTE), strict=True))
    hue = ndimage.uniform_filter(costs, (0, 3, 3), mode="nearest").argmin(0)
    coverage = np.take_along_axis(coverages, hue[None], 0)[0]
    return Percept(smooth, ground, visibility, costs, hue, coverage)


def oklab(rgb: Array) -> Array:
    """sRGB in [0, 1], [..., 3], as OKLab (Ottosson 2020), where equal distances look about equally different."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((np.maximum(rgb, 0) + 0.055) / 1.055) ** 2.4)
    lab: Array = np.cbrt(linear @ _TO_LMS.T) @ _TO_LAB.T
    return lab


def unmix(image: Array, ground: Array, colour: Array) -> tuple[Array, Array]:
    """Coverage `a` and light `a s` of pixels [..., 3]: least squares on pixel = (1 - a) ground + a s colour.

    Coverage is independent of the shade `s`: a dark stripe covers the ground as well as a bright one.
    """
    solution = (image - ground) @ np.linalg.pinv(np.stack([-ground, colour], 1)).T.astype(np.float32)
    return solution[..., 0], solution[..., 1]


def misfit(image: Array, ground: Array, colour: Array) -> tuple[Array, Array]:
    """Coverage, 0..1, of pixels [..., 3], and their sRGB distance to the nearest mixture with a shade in SHADES."""
    covered, light = unmix(image, ground, colour)
    covered = np.clip(covered, 0, 1)
    light = np.clip(light, SHADES[0] * covered, SHADES[1] * covered)
    model = ground + light[..., None] * colour - covered[..., None] * ground
    return covered, np.linalg.norm(image - model, axis=-1)


def coverage_of(percept: Percept, colour: Array) -> Array:
    """Coverage [SIZE, SIZE], 0..1, by things of this colour or of the palette's."""
    covered, _ = unmix(percept.image, percept.ground, colour)
    return np.clip(np.maximum(covered, percept.coverage), 0, 1)


def regions(percept: Percept) -> list[Mask]:
    """Connected regions covered by things, largest first, without specks."""
    found = []
    for rough in parts((percept.coverage > TRACE) & percept.seen):
        inside = np.clip(np.quantile(percept.coverage[rough], PLATEAU), FAINTEST, 1)
        found += parts(rough & (percept.coverage > HALF * inside))
    return found


def parts(mask: Mask, least: int = SPECK) -> list[Mask]:
    """Connected parts of a mask with at least `least` pixels, largest first."""
    labels, n = ndimage.label(mask)
    areas = np.bincount(labels.ravel(), minlength=n + 1)[1:]
    return [labels == 1 + i for i in np.argsort(-areas) if areas[i] >= least]


def splits(region: Mask, hue: NDArray[np.intp]) -> Iterator[list[Mask]]:
    """Ways to split a region: where its hues differ, then where it is narrow. Each pixel goes to one part."""
    shares = np.bincount(hue[region], minlength=len(PALETTE)) / region.sum()
    of_one_hue = [region & (hue == h) for h in np.argsort(-shares) if shares[h] > HUE_SHARE]
    seeds = [part for mask in of_one_hue for part in parts(ndimage.binary_opening(mask))]
    if len(of_one_hue) > 1 and len(seeds) > 1:
        yield _grow(seeds, region)
    depth = ndimage.distance_transform_edt(region)
    found = 1
    for narrow in NARROWS:
        seeds = parts(depth > narrow, least=4)
        if len(seeds) > found:
            found = len(seeds)
            yield _grow(seeds, region)


def _grow(seeds: list[Mask], region: Mask) -> list[Mask]:
    """The region's pixels, each assigned to the nearest seed."""
    labels = sum(i * seed for i, seed in enumerate(seeds, start=1))
    nearest = ndimage.distance_transform_edt(labels == 0, return_distances=False, return_indices=True)
    labels = np.asarray(labels)[tuple(nearest)]
    return [region & (labels == i) for i in range(1, len(seeds) + 1)]


def _ground(image: Array) -> Array:
    """The ground behind all things, [SIZE, SIZE, 3]: a quadratic in position, fitted to light grey pixels."""
    pixels, terms = image.reshape(-1, 3), _quadratic()
    light, chroma = pixels.mean(1), np.ptp(pixels, 1)
    candidates = (light > GROUND_LIGHTNESS) & (chroma < GROUND_CHROMA)
    if candidates.sum() < SIZE:  # no light grey anywhere: take the lightest pixels
        candidates = light >= np.quantile(light, 0.9)
    counts, edges = np.histogram(light[candidates], bins=25, range=(0, 1))
    mode = edges[(counts[:-1] + counts[1:]).argmax() + 1]
    common = candidates & (abs(light - mode) < GROUND_TOLERANCE)
    surface = np.broadcast_to(np.median(pixels[common], 0), pixels.shape)
    for order in (1, 3, 6, 6):  # constant, plane, quadratic
        agreeing = np.sqrt(((pixels - surface) ** 2).mean(1)) < GROUND_TOLERANCE
        basis = terms[agreeing, :order]
        normal = basis.T @ basis + 1e-3 * np.eye(order, dtype=np.float32)
        surface = terms[:, :order] @ np.linalg.solve(normal, basis.T @ pixels[agreeing])
    return surface.reshape(image.shape)


@cache
def _quadratic() -> Array:
    """1, x, y, x^2, xy, y^2 at every pixel, x and y in -1..1: [SIZE * SIZE, 6]."""
    y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], -1).reshape(-1, 6).astype(np.float32)
