"""Smoothness and conditioning of the referees' loss along a run: Lipschitz constants and Hessian eigenvalues.

VLMInv (Prop. 3.1 and 3.2) claims that the loss averaged over random views is smoother and better conditioned than the
loss on the image itself. Each point is measured on fixed views, drawn once from the sample's seed and the step, so that
the loss is a deterministic function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor

from refcore.config.run import RunConfig
from refcore.config.views import CLEAN
from refcore.contracts.canvas import CanvasParams
from refcore.engine.build import build, resolve
from refcore.engine.inversion import Inversion
from refcore.engine.step import Engine
from refcore.errors import NonFiniteError, RefcoreError
from refcore.moment import Moment
from refcore.rng import keyed_generator

Vector = NDArray[np.float64]
Gradient = Callable[[Vector], Vector]
"""[D] -> [D]"""
At = Literal["params", "image"]
Precision = Literal["float64", "float32"]

DIFFERENCE: dict[str, float] = {"float64": 1e-4, "float32": 1e-3}
"""Root-mean-square change of a coordinate in the central differences for Hessian-vector products."""
SMALL = 20
"""Maximum dimension at which the full Hessian is computed; Lanczos needs more dimensions."""
RESTARTS = 20
"""Maximum number of Lanczos restarts."""
IMAGE = "image"
NOISE = "gaussian_noise"
"""The augmentation whose standard deviation `noise` sets."""


@dataclass(frozen=True)
class Point:
    """Measurements of one sample at one step of its run, for one number of views and one noise level."""

    prompt: str
    seed: int
    step: int
    """Number of steps done."""
    views: int | None
    """Views per sample; 0: the clean image; None: as in the config."""
    noise: float | None
    """Standard deviation of the views' Gaussian noise, for colours in [0, 1]; None: as in the config."""
    dimension: int
    """D: number of parameters, or of the image's values."""
    loss: float
    """Weighted sum of the referees' losses, each averaged over views."""
    gradient_norm: float
    lipschitz_random: float
    """Largest |g(x + d) - g(x)| / |d| over random directions."""
    lipschitz_step: float | None
    """The same along the step that the run takes here; None if it does not move."""
    largest: float | None
    """Largest eigenvalue of the Hessian; None if Lanczos did not converge."""
    smallest: float | None
    rms_eigenvalue: float
    """Root-mean-square eigenvalue, |H|_F / sqrt(D), estimated from products with random vectors."""
    products: int
    """Number of Hessian-vector products computed, two gradients each."""

    @property
    def condition(self) -> float | None:
        """Ratio of the largest eigenvalue magnitude to the root-mean-square one: 1 if all are equal, at most sqrt(D).

        Far from a minimum the Hessian is indefinite, and the ratio of its extreme eigenvalues says little.
        """
        if self.largest is None or self.smallest is None or not self.rms_eigenvalue:
            return None
        return max(abs(self.largest), abs(self.smallest)) / self.rms_eigenvalue

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "condition": self.condition}


@dataclass(frozen=True)
class SmoothnessReport:
    """All measured points, and the settings of the measurement."""

    at: At
    directions: int
    radius: float
    dtype: Precision
    config: dict[str, Any]
    """Config of the run, resolved."""
    points: tuple[Point, ...] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {**asdict(self), "points": [point.to_dict() for point in self.points]}

    def rows(self) -> list[dict[str, Any]]:
        """One row per (step, views, noise): medians over the samples, without those that have no value."""
        return rows([point.to_dict() for point in self.points])


MEASURES = ("loss", "gradient_norm", "lipschitz_random", "lipschitz_step", "largest", "smallest", "condition")


def rows(points: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of `SmoothnessReport.rows`, from points as `Point.to_dict` gives them."""
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for point in points:
        found.setdefault((point["step"], point["views"], point["noise"]), []).append(point)
    return [
        {
            "step": step,
            "views": views,
            "noise": noise,
            "samples": len(own),
            **{
                name: median(values) if (values := [p[name] for p in own if p[name] is not None]) else None
                for name in MEASURES
            },
        }
        for (step, views, noise), own in found.items()
    ]


def measure_smoothness(
    config: RunConfig,
    steps: Sequence[int] | None = None,
    views: Sequence[int | None] = (None,),
    noise: Sequence[float | None] = (None,),
    *,
    at: At = "params",
    directions: int = 4,
    radius: float = 0.01,
    tolerance: float = 0.01,
    dtype: Precision = "float64",
    on_point: Callable[[Point], None] | None = None,
) -> SmoothnessReport:
    """Runs a config, and measures the referees' loss at the points that the run reaches after the given steps.

    Priors move the run but are not part of the measured loss; nor are `satisfied_at` and `hardest`, which make it
    discontinuous. A run with candidates is followed along the first one. The same number of views gives the same views
    at every noise level, and scheduled weights are those of the step.

    Args:
        config: with prompts.
        steps: numbers of steps done at each point, 0 for the start; None for the start and the middle.
        views: views per sample in every view group; 0 for the clean image, None for the config's.
        noise: standard deviations of the augmentation `gaussian_noise`, which is added to groups without it; None for
            the config's. The clean image has no noise.
        at: variable of the loss: "params", the canvas's parameters, or "image", the decoded image.
        directions: number of random directions, for the Lipschitz constant and the root-mean-square eigenvalue.
        radius: root-mean-square change of a coordinate along a random direction.
        tolerance: relative tolerance of the eigenvalues.
        dtype: dtype of the measured models; float32 gives about two correct digits.
        on_point: called with each point once it is measured.

    Raises:
        RefcoreError: the config has no prompts or referees, a step is beyond the run's end, a number is out of range,
            or the config cannot be built or run.
    """
    steps = tuple(sorted(set(steps if steps is not None else (0, config.steps // 2))))
    _check(config, steps, views, noise, directions, radius, tolerance)
    config = resolve(config)
    path = _path(config, steps)
    points = []
    for count, std in dict.fromkeys((n, None if n == 0 else s) for n in views for s in noise):
        engine = build(measured(config, count, std, dtype))
        for step in steps:
            here, there = path[step]
            for sample, (prompt, seed) in enumerate(config.samples):
                loss = _Loss(engine, min(step, config.steps - 1), sample, at)
                x = loss.place(here)
                move = None if there is None else (loss.place(there) - x) * (1 if step < config.steps else -1)
                generator = keyed_generator(seed, step, "smoothness")
                found = measure(
                    loss.gradient, x, move, generator, directions, radius, tolerance, DIFFERENCE[dtype], loss.value
                )
                points.append(Point(prompt, seed, step, count, std, len(x), **found))
                if on_point is not None:
                    on_point(points[-1])
    return SmoothnessReport(at, directions, radius, dtype, config.settings(), tuple(points))


def measure(
    gradient: Gradient,
    x: Vector,
    move: Vector | None,
    generator: torch.Generator,
    directions: int,
    radius: float,
    tolerance: float,
    difference: float,
    value: Callable[[Vector], float],
) -> dict[str, Any]:
    """The measured fields of a Point, for any function with a deterministic gradient, at x [D].

    Args:
        gradient: the function's gradient.
        x: the point.
        move: [D] the step taken from x, or None.
        generator: source of the random directions.
        directions: number of random directions.
        radius: root-mean-square change of a coordinate along them.
        tolerance: relative tolerance of the eigenvalues.
        difference: root-mean-square change of a coordinate in the differences for Hessian-vector products.
        value: the function.
    """
    here, d = gradient(x), len(x)
    random = torch.randn(directions, d, generator=generator, dtype=torch.float64).numpy()
    calls = 0

    def product(v: Vector) -> Vector:
        nonlocal calls
        calls += 1
        v = np.ravel(v)
        norm = float(np.linalg.norm(v))
        if not norm:
            return np.zeros_like(v)
        shift = difference * np.sqrt(d) * v / norm
        change: Vector = gradient(x + shift) - gradient(x - shift)
        return change * (norm / (2 * difference * float(np.sqrt(d))))

    ways = [radius * np.sqrt(d) * way / np.linalg.norm(way) for way in random]
    moved = move is not None and bool(np.any(move))
    squares = [float(np.square(product(way)).sum()) / float(np.square(way).sum()) for way in random]
    smallest, largest = extreme_eigenvalues(product, d, tolerance, random[0])
    return {
        "loss": value(x),
        "gradient_norm": float(np.linalg.norm(here)),
        "lipschitz_random": max(_ratio(gradient, x, here, way) for way in ways),
        "lipschitz_step": _ratio(gradient, x, here, move) if moved and move is not None else None,
        "largest": largest,
        "smallest": smallest,
        "rms_eigenvalue": float(np.sqrt(np.mean(squares))),
        "products": calls,
    }


def extreme_eigenvalues(
    product: Gradient, dimension: int, tolerance: float = 0.01, start: Vector | None = None
) -> tuple[float | None, float | None]:
    """(smallest, largest) eigenvalue of a symmetric matrix given by its products, by Lanczos (ARPACK).

    Args:
        product: [D] -> [D], the matrix times a vector.
        dimension: D.
        tolerance: relative tolerance.
        start: [D] the first Lanczos vector.

    Returns:
        Both eigenvalues, or (None, None) if Lanczos did not converge.
    """
    if dimension <= SMALL:
        whole = np.stack([product(row) for row in np.eye(dimension)])
        values = np.linalg.eigvalsh((whole + whole.T) / 2)
        return float(values[0]), float(values[-1])
    operator = LinearOperator((dimension, dimension), matvec=product, dtype=np.float64)
    try:
        values = eigsh(
            operator, 2, which="BE", tol=tolerance, v0=start, maxiter=RESTARTS, return_eigenvectors=False, ncv=SMALL
        )
    except ArpackNoConvergence:
        return None, None
    return float(min(values)), float(max(values))


def measured(config: RunConfig, views: int | None, noise: float | None, dtype: Precision = "float64") -> RunConfig:
    """The config whose loss is measured: the referees alone, all in one dtype, on these views with this noise."""
    settings = config.settings()
    settings |= {
        "priors": [],
        "witnesses": [],
        "combine": {"name": "sum"},
        "candidates": {},
        "init": None,
        "ema": None,
        "output": "current",
        "best": {},
        "early_stop": None,
        "noise": 0.0,
        "autocast": None,
        "weights": None,
        "dtype": dtype,
    }
    settings["canvas"]["autocast"] = None
    for term in settings["referees"]:
        term |= {"satisfied_at": None, "dtype": None, "autocast": "off", "weights": "off"}
        if views == 0:
            term["views"] = CLEAN
    for group in settings["views"].values():
        group["hardest"] = None
        if views:
            group["count"] = views
        if noise is not None:
            others = [use for use in group["augment"] if use["name"] != NOISE]
            group["augment"] = [*others, {"name": NOISE, "config": {"std": [noise, noise]}}]
    return RunConfig.from_settings(settings)


class _Loss:
    """The referees' loss of one sample as a function of a vector."""

    def __init__(self, engine: Engine, step: int, sample: int, at: At) -> None:
        self.engine, self.step, self.sample, self.at = engine, step, sample, at
        self._moment = Moment(step, engine.config.steps)
        self._shapes: dict[str, torch.Size] = {}
        self._dtype = getattr(torch, engine.config.dtype)

    def place(self, params: CanvasParams) -> Vector:
        """[D] place of the sample among the parameters of all."""
        own = {k: v[self.sample : self.sample + 1].to(self.engine.device, self._dtype) for k, v in params.items()}
        if self.at == "image":
            with torch.no_grad():
                own = {IMAGE: self.engine.decode(own, self._moment, self.engine.first_tracks([self.sample])[:1])}
        self._shapes = {name: value.shape for name, value in own.items()}
        return torch.cat([value.flatten() for value in own.values()]).double().cpu().numpy()

    def gradient(self, x: Vector) -> Vector:
        return self._evaluate(x)[1]

    def value(self, x: Vector) -> float:
        return self._evaluate(x)[0]

    def _evaluate(self, x: Vector) -> tuple[float, Vector]:
        parts = torch.split(torch.from_numpy(np.array(x)), [shape.numel() for shape in self._shapes.values()])
        own: CanvasParams = {
            name: part.view(shape).to(self.engine.device, self._dtype)
            for (name, shape), part in zip(self._shapes.items(), parts, strict=True)
        }
        gradient, losses = self._at_image(own[IMAGE]) if self.at == "image" else self._at_params(own)
        flat = gradient.flatten().double().cpu().numpy()
        referees, steps = self.engine.panel.referees, self.engine.config.steps
        if not np.isfinite(flat).all():
            raise NonFiniteError(self.step, {judge.label: self.engine.dtype_name(judge.label) for judge in referees})
        weights = {judge.label: judge.term.weight_at(self.step, steps) for judge in referees}
        return sum(weights[label] * float(loss[0]) for label, loss in losses.items()), flat

    def _at_params(self, params: CanvasParams) -> tuple[Tensor, dict[str, Tensor]]:
        found = self.engine.gradients(params, [self.sample], self.step)
        return torch.cat([found.combined[name].flatten() for name in params]), found.losses

    def _at_image(self, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        key = self.engine.keys[self.sample]
        total, losses = torch.zeros_like(image), {}
        for judge, gradient, loss in self.engine.panel.gradients(
            image.requires_grad_(), [key], [self.sample], self._moment
        ):
            total = total + gradient
            losses[judge.label] = loss
        return total, losses


def _path(config: RunConfig, steps: Sequence[int]) -> dict[int, tuple[CanvasParams, CanvasParams | None]]:
    """Steps done -> the parameters there, and those one step later, or one step earlier at the end of the run."""
    settings = config.settings()
    if isinstance(settings["init"], dict) and "rounds" in settings["init"]:
        settings["init"] = {**settings["init"], "rounds": []}  # rounds compare candidates
    inversion = Inversion(RunConfig.from_settings({**settings, "candidates": {}}))
    last = min(steps[-1] + 1, config.steps)
    kept: dict[int, CanvasParams] = {0: _copy(inversion.params)}
    wanted = {step + shift for step in steps for shift in (-1, 0, 1)}
    for result in inversion:
        done = result.step + 1
        if done in wanted:
            kept[done] = _copy(inversion.params)
        if done == last:
            break
    ended = inversion.step  # early_stop may have ended it
    late = [step for step in steps if step > ended]
    if late:
        raise RefcoreError(f"step {late[0]} is never reached: every sample stopped after {ended} steps (early_stop)")
    return {step: (kept[step], kept.get(step + 1, kept.get(step - 1))) for step in steps}


def _copy(params: CanvasParams) -> CanvasParams:
    return {name: value.detach().clone() for name, value in params.items()}


def _ratio(gradient: Gradient, x: Vector, here: Vector, way: Vector) -> float:
    return float(np.linalg.norm(gradient(x + way) - here) / np.linalg.norm(way))


def _check(
    config: RunConfig,
    steps: Sequence[int],
    views: Sequence[int | None],
    noise: Sequence[float | None],
    directions: int,
    radius: float,
    tolerance: float,
) -> None:
    if not config.prompts:
        raise RefcoreError("prompts is empty; expected at least one prompt to make an image of")
    if not config.referees:
        raise RefcoreError("referees is empty; expected at least one, whose loss is measured")
    for step in steps:
        if not 0 <= step <= config.steps:
            raise RefcoreError(f"step {step} is outside the run; expected 0 to {config.steps} steps done")
        if not any(term.weight_at(min(step, config.steps - 1), config.steps) for term in config.referees):
            raise RefcoreError(f"no referee takes part in step {step}; choose another step")
    for count in views:
        if count is not None and count < 0:
            raise RefcoreError(f"views is {count}; expected 0 (the clean image) or more")
    for std in noise:
        if std is not None and std < 0:
            raise RefcoreError(f"noise is {std:g}; expected a standard deviation, 0 or more")
    if directions < 1 or radius <= 0 or tolerance <= 0:
        raise RefcoreError(
            f"directions is {directions}, radius {radius:g} and tolerance {tolerance:g}; expected numbers above 0"
        )
