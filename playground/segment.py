"""Parts an image into ground and visible regions; unmixes each pixel into how much thing it holds, and how bright."""

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
"""Gaussian sigma in pixels, applied to every image first: it divides white noise by 2.5 and keeps a stripe of 3 px."""
GROUND_LIGHTNESS = 0.5
GROUND_CHROMA = 0.22
"""The ground is light and nearly grey: a mean of channels above the one, a spread between them below the other."""
GROUND_TOLERANCE = 0.05
"""Pixels within this (sRGB, root mean square over channels) of the fitted ground take part in its next fit."""
VISIBLE = 0.06
"""OKLab distance to the ground from which something can be seen at all; yellow, the palest colour, is at 0.19."""
TRACE = 0.25
"""Coverage from which a pixel may belong to a region: 3 px of ground between two things stay below it when blurred."""
HALF = 0.5
"""A region reaches to where its coverage falls to this share of what it has inside, faded things included."""
PLATEAU = 0.75
"""Quantile of a region's coverage that stands for its inside."""
FAINTEST = 0.3
"""Coverage inside a faded thing, at least; fainter ones are not brought up to whole."""
SPECK = 14
"""Regions below this many pixels are no candidates for a thing; a star of radius 6 has 47."""
SHADES = (0.5 * SHADE, 1.15)
"""What a pixel's shade may be, around SHADE..1 of clean renders."""
HUE_SHARE = 0.08
"""Of a region's pixels, for a hue to be worth parting the region by."""
NARROWS = (1.0, 1.5, 2.0, 3.0, 4.0)
"""Pixels of erosion at which a region is tried for falling apart: half the width of the bridge that it cuts."""

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
    """An image taken apart. All maps are [SIZE, SIZE]."""

    image: Array
    """[SIZE, SIZE, 3], smoothed by SMOOTHING, its ground levelled to `ground` everywhere."""
    ground: Array
    """[3], sRGB."""
    visibility: Array
    """OKLab distance to the ground."""
    misfit: Array
    """[8, SIZE, SIZE]: what `misfit` leaves for each palette colour."""
    hue: NDArray[np.intp]
    """The palette colour that explains each pixel and its neighbours best."""
    coverage: Array
    """How much of each pixel is thing and not ground, 0..1, if the thing there has colour `hue`."""

    @property
    def seen(self) -> Mask:
        """Where something can be seen."""
        seen: Mask = self.visibility > VISIBLE
        return seen


def perceive(image: Array) -> Percept:
    """Takes an image [SIZE, SIZE, 3] in [0, 1] apart."""
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
    """sRGB in [0, 1], [..., 3], as OKLab (Ottosson 2020): equal distances look about equally far apart."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((np.maximum(rgb, 0) + 0.055) / 1.055) ** 2.4)
    lab: Array = np.cbrt(linear @ _TO_LMS.T) @ _TO_LAB.T
    return lab


def unmix(image: Array, ground: Array, colour: Array) -> tuple[Array, Array]:
    """Coverage `a` and light `a s` of pixels [..., 3]: least squares on pixel = (1 - a) ground + a s colour.

    So coverage does not depend on the shade `s`, and a dark stripe covers the ground as well as a bright one.
    """
    solution = (image - ground) @ np.linalg.pinv(np.stack([-ground, colour], 1)).T.astype(np.float32)
    return solution[..., 0], solution[..., 1]


def misfit(image: Array, ground: Array, colour: Array) -> tuple[Array, Array]:
    """Coverage, 0..1, of pixels [..., 3], and their distance (sRGB) to the nearest mixture whose shade is in SHADES."""
    covered, light = unmix(image, ground, colour)
    covered = np.clip(covered, 0, 1)
    light = np.clip(light, SHADES[0] * covered, SHADES[1] * covered)
    model = ground + light[..., None] * colour - covered[..., None] * ground
    return covered, np.linalg.norm(image - model, axis=-1)


def coverage_of(percept: Percept, colour: Array) -> Array:
    """Coverage [SIZE, SIZE], 0..1, by things of this very colour or the palette's."""
    covered, _ = unmix(percept.image, percept.ground, colour)
    return np.clip(np.maximum(covered, percept.coverage), 0, 1)


def regions(percept: Percept) -> list[Mask]:
    """Connected regions that are thing rather than ground, larger ones first, specks left out."""
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
    """Ways to part a region: where its hues differ, then where it is narrow. Each of its pixels goes to one part."""
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
    """The region's pixels, each given to the nearest seed."""
    labels = sum(i * seed for i, seed in enumerate(seeds, start=1))
    nearest = ndimage.distance_transform_edt(labels == 0, return_distances=False, return_indices=True)
    labels = np.asarray(labels)[tuple(nearest)]
    return [region & (labels == i) for i in range(1, len(seeds) + 1)]


def _ground(image: Array) -> Array:
    """The ground behind everything, [SIZE, SIZE, 3]: a quadratic of position through light grey pixels that agree."""
    pixels, terms = image.reshape(-1, 3), _quadratic()
    light, chroma = pixels.mean(1), np.ptp(pixels, 1)
    candidates = (light > GROUND_LIGHTNESS) & (chroma < GROUND_CHROMA)
    if candidates.sum() < SIZE:  # no light grey anywhere: the lightest pixels have to do
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
