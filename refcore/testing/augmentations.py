"""Checks of an augmentation against `refcore.contracts.augmentation.Augmentation`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from refcore.contracts.augmentation import Augmentation, Draws, Params, select
from refcore.moment import Moment
from refcore.rng import Deferred
from refcore.testing.case import (
    EXACT,
    ROUGH,
    SEEDS,
    SLOPE_ERROR,
    STEPS,
    Case,
    Failed,
    NotApplicable,
    Tensors,
    error,
    require,
    shown,
    slope_error,
)
from refcore.testing.common import gradient_of, leaf, moments, same_alone, takes

COUNT = 2
"""Views per sample."""
N = len(SEEDS) * COUNT
MANY = 64
"""Views per sample in the search for the largest magnification."""


def draws(case: Case) -> None:
    """`draw` returns tensors with one row per view, on the device, or the rng's deferred draws."""
    draws = _draws(case, case.loaded())
    require(isinstance(draws, dict), f"draw returns {type(draws).__name__}; expected a dict of tensors")
    for name, drawn in draws.items():
        value = drawn.take(range(len(drawn))) if isinstance(drawn, Deferred) else drawn
        require(isinstance(value, Tensor), f'"{name}" of the draw is {type(value).__name__}; expected a tensor')
        require(
            value.shape[:1] == (N,),
            f'"{name}" of the draw has the shape {list(value.shape)}; expected {N} rows (rng.n), one per view',
        )
        require(value.device.type == case.device.type, f'"{name}" of the draw is on {value.device}, not {case.device}')
        require(not value.requires_grad, f'"{name}" of the draw requires a gradient')


def every_moment(case: Case) -> None:
    """`draw` takes the moment, and draws for every view in every step and at the end of the run."""
    augmentation = case.loaded()
    takes(augmentation, "draw", "size", "rng", "at")
    for at in moments(case, end=True):
        draws = augmentation.draw(case.image_size, case.rng(COUNT), at)
        for name, value in select(draws, range(N)).items():
            require(len(value) == N, f'"{name}" of the draw has {len(value)} rows in {at}; expected {N}, one per view')
            finite = not value.is_floating_point() or value.isfinite().all()
            require(finite, f'"{name}" of the draw is not finite (NaN or infinity) in {at}')


def draws_by_key(case: Case) -> None:
    """The draws of a sample depend on its seed and step alone, not on the batch or on global generators."""
    augmentation = case.loaded()
    first, again, alone = (_draw(case, augmentation, samples) for samples in (slice(None), slice(None), slice(1, 2)))
    for name, value in first.items():
        require(
            error(again[name], value) <= EXACT,
            f'"{name}" differs in a second draw with the same key; draw from the rng alone',
        )
        require(
            error(alone[name], value[COUNT : 2 * COUNT]) <= EXACT,
            f'"{name}" of sample 1 differs when it is drawn without the rest of the batch; draw '
            "every number from the rng, which has one generator per sample",
        )


def shapes_dtype_and_device(case: Case) -> None:
    """`matrix` returns [n, 3, 3], or `apply` views like its input, depending on `geometric`."""
    augmentation = case.loaded()
    params = _draw(case, augmentation)
    if augmentation.geometric:
        matrix = _call(augmentation, "matrix", params)
        require(
            isinstance(matrix, Tensor) and matrix.shape == (N, 3, 3),
            f"matrix returns {shown(matrix)}; expected [{N}, 3, 3], from view to source coordinates",
        )
        require(matrix.device.type == case.device.type, f"the matrices are on {matrix.device}, not on {case.device}")
        require(matrix.is_floating_point(), f"the matrices are {matrix.dtype}; expected float32")
        return
    for dtype in (torch.float32, torch.float64):
        views = _views(case, dtype)
        out = _call(augmentation, "apply", views, params)
        require(
            isinstance(out, Tensor) and out.shape == views.shape,
            f"apply returns {shown(out)}; expected {list(views.shape)}, as its input",
        )
        require(out.dtype == dtype, f"apply returns {out.dtype} for views in {dtype}; expected the same")
        require(out.device.type == case.device.type, f"apply returns views on {out.device}, not on {case.device}")


def geometry(case: Case) -> None:
    """Matrices are finite and invertible, and magnify at most by `zoom`, in every step and at the end of the run."""
    augmentation = case.loaded()
    if not augmentation.geometric:
        raise NotApplicable("it is not geometric")
    for at in moments(case, end=True):
        _geometry(case, augmentation, at)


def _geometry(case: Case, augmentation: Augmentation, at: Moment) -> None:
    draws = augmentation.draw(_square(case), case.rng(MANY), at)
    matrix = augmentation.matrix(select(draws, range(len(SEEDS) * MANY))).double()
    require(matrix.isfinite().all(), "a matrix is not finite (NaN or infinity)")
    determinant = torch.linalg.det(matrix).abs()
    require((determinant > 1e-8).all(), f"a matrix cannot be inverted (determinant {float(determinant.min()):.2g})")
    # At the view's centre; a homogeneous map's Jacobian there is (A - t w) / w0, with A its upper left, w its last row.
    corner, last = matrix[:, 2, 2], matrix[:, 2, :2]
    centre = matrix[:, :2, 2] / corner[:, None]
    jacobian = (matrix[:, :2, :2] - centre[:, :, None] * last[:, None, :]) / corner[:, None, None]
    largest = float(torch.linalg.det(jacobian).abs().rsqrt().max())
    require(
        largest <= 1.02 * augmentation.zoom,
        f"a view is magnified {largest:.2f} times, but zoom says at most {augmentation.zoom:.2f}; the source would be "
        "downscaled too far and the view blurred",
    )


def gradient_present_and_finite(case: Case) -> None:
    """Gradients reach the views through `apply`."""
    augmentation = _photometric(case)
    params = _draw(case, augmentation)
    views = leaf(_views(case))
    out = augmentation.apply(views, params)
    gradient = gradient_of(out.square(), {"the views": views}, "apply")["the views"]
    require(gradient.abs().amax() > 0, "the gradient of every view is 0 through apply")


def gradient_right(case: Case) -> None:
    """The gradient through `apply` matches central differences in float64."""
    augmentation = _photometric(case)
    params = {name: v.double() if v.is_floating_point() else v for name, v in _draw(case, augmentation).items()}
    weights = case.images(case.image_size, N, torch.float64)

    def function(x: Tensors) -> Tensor:
        return (augmentation.apply(x["views"], params) * weights).flatten(1).sum(1)

    views = {"views": leaf(_views(case, torch.float64))}
    gradient = gradient_of(function(views), views, "apply")
    gap = slope_error(function, gradient, {"views": views["views"].detach()}, STEPS)
    require(
        gap < SLOPE_ERROR,
        f"the gradient of apply differs from central differences by {gap:.2g} of its norm; skip this check, with the "
        "reason, if it is a deliberate substitute",
    )


def no_dependence_on_batch_mates(case: Case) -> None:
    """A view is the same in any selection of views, as chunks and hardest views require."""
    augmentation = case.loaded()
    draws = _draws(case, augmentation)
    chosen = [4, 1]
    params, part_params = select(draws, range(N)), select(draws, chosen)
    some = torch.tensor(chosen, device=case.device)
    if augmentation.geometric:
        whole, part = augmentation.matrix(params), augmentation.matrix(part_params)
    else:
        views = _views(case)
        whole = augmentation.apply(views, params)
        part = augmentation.apply(views.index_select(0, some), part_params)
    same_alone(whole.index_select(0, some), part, "a view", ROUGH)


def inputs_unchanged(case: Case) -> None:
    """Views and parameters are not modified; they are applied again."""
    augmentation = case.loaded()
    params, views = _draw(case, augmentation), _views(case)
    before = {"the views": views.clone(), **{name: value.clone() for name, value in params.items()}}
    _ = augmentation.matrix(params) if augmentation.geometric else augmentation.apply(views, params)
    for name, value in {"the views": views, **params}.items():
        require(error(value, before[name]) <= EXACT, f"{name} changed in place; work on a copy")


def exercise(case: Case, augmentation: Any) -> Tensors:
    """A draw, and its matrix or the views that it gives."""
    params = _draw(case, augmentation)
    found = {f'"{name}" of the draw': value for name, value in params.items()}
    if augmentation.geometric:
        return {**found, "the matrix": augmentation.matrix(params)}
    return {**found, "the view": augmentation.apply(_views(case), params)}


def call(case: Case, augmentation: Augmentation) -> tuple[Callable[[], Tensor], list[Tensor], int]:
    """A draw and its application."""
    views = leaf(_views(case))

    def forward() -> Tensor:
        params = _draw(case, augmentation)
        if augmentation.geometric:
            return augmentation.matrix(params).sum() + 0 * views.sum()
        return augmentation.apply(views, params)

    return forward, [views], N


def _photometric(case: Case) -> Augmentation:
    augmentation: Augmentation = case.loaded()
    if augmentation.geometric:
        raise NotApplicable("it is geometric; its matrices are applied by the engine")
    return augmentation


def _draws(case: Case, augmentation: Augmentation, samples: slice = slice(None)) -> Draws:
    return augmentation.draw(case.image_size, case.rng(COUNT, samples), case.at)


def _draw(case: Case, augmentation: Augmentation, samples: slice = slice(None)) -> Params:
    rng = case.rng(COUNT, samples)
    return select(augmentation.draw(case.image_size, rng, case.at), range(rng.n))


def _views(case: Case, dtype: torch.dtype = torch.float32) -> Tensor:
    return case.images(case.image_size, N, dtype)


def _square(case: Case) -> tuple[int, int]:
    return (max(case.image_size),) * 2


def _call(augmentation: Any, method: str, *arguments: Any) -> Any:
    try:
        return getattr(augmentation, method)(*arguments)
    except NotImplementedError as cause:
        raise Failed(
            f"geometric is {augmentation.geometric}, but there is no `{method}`; geometric augmentations implement "
            "`matrix`, the others `apply`"
        ) from cause
