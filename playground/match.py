"""Fits the world's shapes to a region: moves, scales, stretches, turns and blurs each to cover the region best."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from refcore_playground.render import inside
from refcore_playground.segment import FAINTEST, Array, Mask
from refcore_playground.world import SHAPES, SIZE

Parameters = NDArray[np.float64]
"""[8, 6], one row per shape: x, y, log radius, stretch (half the log of the axis ratio), turn in radians, log edge."""

MARGIN = 5
"""Pixels of ground around a region that take part in a fit."""
RADIUS_RANGE = (4.5, 24.0)
EDGE_RANGE = (0.5, 2.2)
EDGE = 0.9
"""Sigma of an edge in pixels: its limits, and its value in clean renders (antialiasing and the judge's smoothing)."""
STRETCH_LIMIT = 0.17
TURN_LIMIT = np.radians(20)
"""A shape stretched by 1.4 to 1 or turned by 20 degrees is still that shape to a person."""
PIXEL_DEVIATION = 0.15
PRIOR = np.array([0, 0, 0, 0.10, np.radians(6), 0.5])
"""Standard deviations of a pixel's coverage, and of the parameters around upright, unstretched and sharp (0: free)."""
STRIDE = np.array([2.0, 2.0, 0.15, 0.08, 0.12, 0.3])
"""Maximum step of each parameter per iteration."""
ITERATIONS = 10
TRUSTFUL_ITERATIONS = 4
"""The first iterations trust every pixel; later ones trust one less the more it disagrees, so a bite stays a bite."""
DISAGREEMENT = 0.35
"""Difference in coverage at which a pixel's weight is halved."""
DENT_WIDTH = 0.15
"""Sigma of the blur, in radii, under which a wobble of the outline cancels out and a bite stays."""
HAZE = 0.1
"""Coverage this near to 0 or 1 counts as 0 or 1 in the overlap, so that noise on plain ground weighs nothing."""
UNSEEN_COST = 0.15
"""Overlap lost per hidden share of a shape: of equal fits, the one with less hidden wins."""

_REACH, _STEP = 1.95, 0.025
"""The templates span -_REACH.._REACH radii in steps of _STEP; values in between are extrapolated by the slopes."""
_BLURS = np.geomspace(0.03, 0.4, 13)
"""Edge sigmas of the templates, in radii: from 0.5 px at radius 17 to 2.2 px at 5.5."""


@dataclass(frozen=True)
class Fit:
    """A shape fitted to a region; lengths in pixels, shares of its area in 0..1."""

    shape: str
    x: float
    y: float
    radius: float
    overlap: float
    """Soft intersection over union of shape and region, minus a penalty for its hidden share."""
    hidden: float
    """Share that lies outside the image or behind other things."""
    dent: float
    """Depth, 0..1, of the worst bite, dent or filled hole: the mean error of coverage around it."""
    coverage: Array
    """[SIZE, SIZE], 0..1, soft-edged."""


def fit_shapes(coverage: Array, region: Mask, hidden: Mask) -> list[Fit]:
    """Every shape fitted to `coverage` around `region`, best first; pixels in `hidden` are ignored.

    All arguments are [SIZE, SIZE]; `coverage` is in 0..1.
    """
    window = _window(region)
    y, x = (axis.ravel() for axis in np.mgrid[window].astype(np.float32))
    weight = (~hidden[window]).ravel().astype(np.float32)
    target = coverage[window].ravel() * weight

    parameters = _descend(_guess(region), x, y, target, weight)
    covered = np.clip(_cover(parameters, x, y)[0], 0, 1)
    target = _harden(np.clip(target / _strength(covered, target, weight), 0, 1))
    covered = _harden(covered)
    areas = np.exp(2 * parameters[:, 2]) * _areas()
    common, either = np.minimum(covered, target) @ weight, np.maximum(covered, target) @ weight
    unseen = np.clip(1 - covered @ weight / areas, 0, 1)
    overlap = common / np.maximum(either, 1) - UNSEEN_COST * unseen
    difference = (target - covered) * weight

    fits = []
    for i in np.argsort(-overlap):
        px, py, log_radius = map(float, parameters[i, :3])
        radius = float(np.exp(log_radius))
        whole = np.zeros((SIZE, SIZE), np.float32)
        whole[window] = covered[i].reshape(hidden[window].shape)
        off = difference[i].reshape(hidden[window].shape)
        dent = float(abs(ndimage.gaussian_filter(off, DENT_WIDTH * radius, mode="constant")).max())
        fits.append(Fit(SHAPES[i], px, py, radius, float(overlap[i]), float(unseen[i]), dent, whole))
    return fits


def _descend(parameters: Parameters, x: Array, y: Array, target: Array, weight: Array) -> Parameters:
    """The parameters whose coverage is closest to `target`, by Gauss-Newton for all shapes at once."""
    start = np.array([0, 0, 0, 0, 0, np.log(EDGE)])
    prior = np.divide(PIXEL_DEVIATION**2, PRIOR**2, out=np.zeros_like(PRIOR), where=PRIOR > 0)
    low = np.array([-np.inf, -np.inf, np.log(RADIUS_RANGE[0]), -STRETCH_LIMIT, -TURN_LIMIT, np.log(EDGE_RANGE[0])])
    high = np.array([np.inf, np.inf, np.log(RADIUS_RANGE[1]), STRETCH_LIMIT, TURN_LIMIT, np.log(EDGE_RANGE[1])])
    for iteration in range(ITERATIONS):
        covered, slopes = _cover(parameters, x, y)
        residual = target / _strength(covered, target, weight) - covered
        doubt = (residual / DISAGREEMENT) ** 2 * (iteration >= TRUSTFUL_ITERATIONS)
        trusted = slopes * (weight / (1 + doubt))[:, None]
        normal = trusted @ slopes.transpose(0, 2, 1)  # [8, 6, 6]
        damping = 1e-3 + 0.02 * np.diagonal(normal, axis1=1, axis2=2)
        pull = (trusted @ residual[..., None])[..., 0] - prior * (parameters - start)
        step = np.linalg.solve(normal + np.eye(6) * (prior + damping)[:, None], pull[..., None])[..., 0]
        parameters = np.clip(parameters + np.clip(step, -STRIDE, STRIDE), low, high)
    return parameters


def _cover(parameters: Parameters, x: Array, y: Array) -> tuple[Array, Array]:
    """Coverage [8, N] of pixels by the shapes, and its derivatives [8, 6, N] by their parameters [8, 6]."""
    px, py, log_radius, stretch, turn, log_edge = (p[:, None].astype(np.float32) for p in parameters.T)
    cos, sin = np.cos(turn), np.sin(turn)
    along, across = np.exp(-log_radius - stretch), np.exp(-log_radius + stretch)
    dx, dy = x - px, y - py
    u, v = (cos * dx + sin * dy) * along, (cos * dy - sin * dx) * across  # in the shape's own frame, radius 1
    blur = log_edge - log_radius

    table, blurs = _templates(), np.log(_BLURS).astype(np.float32)
    last = table.shape[2] - 1
    k = np.clip(np.rint((blur - blurs[0]) / (blurs[1] - blurs[0])), 0, len(blurs) - 1).astype(np.intp)
    i = np.clip(np.rint((v + _REACH) / _STEP), 0, last).astype(np.intp)
    j = np.clip(np.rint((u + _REACH) / _STEP), 0, last).astype(np.intp)
    covered, du, dv, db = np.moveaxis(table[np.arange(len(SHAPES))[:, None], k, i, j], -1, 0)
    covered = covered + du * (u - (j * _STEP - _REACH)) + dv * (v - (i * _STEP - _REACH)) + db * (blur - blurs[k])
    slopes = np.stack(
        [
            -du * cos * along + dv * sin * across,
            -du * sin * along - dv * cos * across,
            -du * u - dv * v - db,
            -du * u + dv * v,
            du * v / across * along - dv * u / along * across,
            db,
        ],
        1,
    )
    return covered, slopes


def _strength(covered: Array, target: Array, weight: Array) -> Array:
    """Coverage inside a thing, FAINTEST..1, [8, 1]; below 1 for a faded thing."""
    strength = (covered * target) @ weight / np.maximum((covered * covered) @ weight, 1)
    column: Array = np.clip(strength, FAINTEST, 1)[:, None]
    return column


def _harden(coverage: Array) -> Array:
    hardened: Array = np.clip((coverage - HAZE) / (1 - 2 * HAZE), 0, 1)
    return hardened


def _window(region: Mask) -> tuple[slice, slice]:
    rows, columns = (np.flatnonzero(region.any(axis)) for axis in (1, 0))
    return (
        slice(max(rows[0] - MARGIN, 0), min(rows[-1] + MARGIN + 1, SIZE)),
        slice(max(columns[0] - MARGIN, 0), min(columns[-1] + MARGIN + 1, SIZE)),
    )


def _guess(region: Mask) -> Parameters:
    """Initial parameters of each shape, from the region's centroid and area."""
    y, x = np.nonzero(region)
    radius = np.sqrt(len(x) / _areas())
    drift = _centroids() * radius[:, None]
    upright = np.broadcast_to([0, 0, np.log(EDGE)], (len(SHAPES), 3))
    return np.column_stack([x.mean() - drift[:, 0], y.mean() - drift[:, 1], np.log(radius), upright])


@cache
def _templates() -> Array:
    """Coverage of each shape at each blur, radius 1, and its derivatives by u, v and log blur: [8, 13, n, n, 4].

    The outermost entries are zero and stand for everything beyond.
    """
    fine = 3
    n = 2 * round(_REACH / _STEP) + 1
    at = ((np.arange(n * fine) + 0.5) / fine - n / 2) * _STEP
    x, y = np.meshgrid(at.astype(np.float32), at.astype(np.float32))
    tables = np.empty((len(SHAPES), len(_BLURS), n, n, 4), np.float32)
    for table, shape in zip(tables, SHAPES, strict=True):
        sharp = inside(shape, x, y).reshape(n, fine, n, fine).mean((1, 3)).astype(np.float32)
        table[..., 0] = np.stack([ndimage.gaussian_filter(sharp, blur / _STEP, mode="constant") for blur in _BLURS])
        slopes = np.gradient(table[..., 0], np.log(_BLURS), _STEP, _STEP, axis=(0, 1, 2))
        table[..., 3], table[..., 2], table[..., 1] = slopes
    tables[:, :, [0, -1]] = 0
    tables[:, :, :, [0, -1]] = 0
    return tables


@cache
def _areas() -> NDArray[np.float64]:
    """Area of each shape at radius 1, [8]."""
    areas: NDArray[np.float64] = _templates()[:, 0, :, :, 0].sum((1, 2)).astype(np.float64) * _STEP**2
    return areas


@cache
def _centroids() -> NDArray[np.float64]:
    """Centroid of each shape at radius 1, x and y from its centre, [8, 2]."""
    sharp = _templates()[:, 0, :, :, 0]
    at = np.arange(sharp.shape[1]) * _STEP - _REACH
    mass = sharp.sum((1, 2))
    return np.stack([(sharp.sum(1) @ at) / mass, (sharp.sum(2) @ at) / mass], 1)
