"""Checks of a prior against `refcore.contracts.prior.Prior`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from refcore.testing.case import (
    EXACT,
    ROUGH,
    SEEDS,
    Case,
    Failed,
    NotApplicable,
    Tensors,
    error,
    precision,
    require,
    shown,
    slope_error,
)
from refcore.testing.common import gradient_of, leaf, moments, same_alone, takes

B = len(SEEDS)


def shapes_dtype_and_device(case: Case) -> None:
    """`gradient` returns a gradient like x, detached, in float32 or float64, and a value [B] or None."""
    prior, x = case.loaded(), _x(case, case.loaded())
    gradient, value = _gradient(case, prior, x)
    require(set(gradient) == set(x), f"the gradient has {sorted(gradient)}; expected {sorted(x)}")
    for name, part in gradient.items():
        require(
            part.shape == x[name].shape,
            f"the gradient has the shape {list(part.shape)}; expected {list(x[name].shape)}, that of {name}",
        )
        require(part.dtype in (torch.float32, torch.float64), f"the gradient is {part.dtype}; expected float32")
        require(part.device.type == case.device.type, f"the gradient is on {part.device}, x on {case.device}")
        require(not part.requires_grad, "the gradient is not detached; it would hold its graph")
    if value is not None:
        require(
            isinstance(value, Tensor) and value.shape == (B,),
            f"the value is {shown(value)}; expected a tensor [{B}], one number per sample, or None",
        )
        require(not value.requires_grad, "the value is not detached; it would hold its graph")


def every_moment(case: Case) -> None:
    """`gradient`, and `update` of a prior that learns, take the moment; gradients are finite in every step."""
    prior = case.loaded()
    takes(prior, "gradient", "x", "conditioning", "at", "rng")
    if prior.learns:
        takes(prior, "update", "x", "conditioning", "at", "rng")
    for at in moments(case):
        for name, part in _gradient(replace(case, at=at), prior, _x(case, prior))[0].items():
            require(part.isfinite().all(), f"the gradient of {name} is not finite (NaN or infinity) in {at}")


def gradient_present_and_finite(case: Case) -> None:
    """Every sample has a gradient, and all values are finite."""
    prior = case.loaded()
    gradient, value = _gradient(case, prior, _x(case, prior))
    require(value is None or value.isfinite().all(), "the value is not finite")
    per_sample = torch.zeros(B, device=case.device)
    for name, part in gradient.items():
        require(part.isfinite().all(), f"the gradient of {name} is not finite (NaN or infinity)")
        per_sample += part.flatten(1).abs().amax(1)
    require((per_sample > 0).all(), f"the gradient of a sample is 0 ({per_sample.tolist()})")


def gradient_right(case: Case) -> None:
    """The gradient matches central differences of the value, if there is one, in float64 if supported."""
    prior = case.loaded()
    if _gradient(case, prior, _x(case, prior))[1] is None:
        raise NotApplicable("it gives no value, since its gradient is not that of a loss")

    def answer(dtype: torch.dtype) -> Tensor:
        value = _gradient(case, case.loaded(dtype), _x(case, case.loaded(dtype), dtype))[1]
        assert value is not None
        return value

    dtype, steps, limit = precision(case, answer)
    prior = case.loaded(dtype)
    x = _x(case, prior, dtype)
    gradient, _ = _gradient(case, prior, x)

    def function(moved: Tensors) -> Tensor:
        value = _gradient(case, prior, moved)[1]
        assert value is not None
        return value

    gap = slope_error(function, gradient, x, steps)
    require(
        gap < limit,
        f"the gradient is not that of the value: central differences in {dtype} differ from it by {gap:.2g} of its "
        f"norm, more than {limit:g}; return None as the value if the gradient is not that of a loss",
    )


def no_dependence_on_batch_mates(case: Case) -> None:
    """A sample's gradient does not depend on the rest of the batch, unless `couples_samples` is set."""
    prior = case.loaded()
    if prior.couples_samples:
        raise NotApplicable("couples_samples is true")
    x = _x(case, prior)
    together, value = _gradient(case, prior, x)
    one = slice(1, 2)
    alone, own = _gradient(case, prior, {name: part[one] for name, part in x.items()}, one)
    for name, part in together.items():
        same_alone(part[one], alone[name], f"the gradient of sample 1 in {name}", 10 * ROUGH)
    if value is not None and own is not None:
        same_alone(value[one], own, "the value of sample 1")


def randomness_by_key(case: Case) -> None:
    """All draws come from the given rng: the same key gives the same gradient."""
    prior = case.loaded()
    x = _x(case, prior)
    first, second = (_gradient(case, prior, x)[0] for _ in range(2))
    for name, part in second.items():
        require(
            error(part, first[name]) < 1e-5,
            f"the gradient in {name} differs between two calls with the same rng; draw from the rng alone",
        )


def state_round_trip(case: Case) -> None:
    """A new instance with the `state_dict` of another continues in the same way."""
    prior = case.loaded()
    x = _x(case, prior)
    _gradient(case, prior, x)
    state, other = prior.state_dict(), case.fresh()
    require(isinstance(state, dict), f"state_dict returns {type(state).__name__}; expected a dict")
    other.load_state_dict({name: v.clone() if isinstance(v, Tensor) else v for name, v in state.items()})
    mine, theirs = _gradient(case, prior, x)[0], _gradient(case, other, x)[0]
    for name, part in theirs.items():
        require(
            error(part, mine[name]) < ROUGH,
            f"the gradient in {name} differs after load_state_dict(state_dict()); a run could not be resumed",
        )


def encoder(case: Case) -> None:
    """A latent prior encodes images differentiably, for canvases without latents."""
    prior = case.loaded()
    if prior.space != "latent":
        raise NotApplicable(f"it works in the {prior.space} space")
    images = leaf(case.images(case.image_size))
    try:
        latents = prior.encode(images)
    except NotImplementedError as cause:
        raise NotApplicable("it has no encoder, and works only on canvases with latents") from cause
    require(latents.ndim == 4 and len(latents) == B, f"encode returns {list(latents.shape)}; expected [{B}, C, h, w]")
    gradient = gradient_of(latents.square(), {"the images": images}, "the latents")["the images"]
    require((gradient.flatten(1).abs().amax(1) > 0).all(), "the latents do not depend on the images")


def noising(case: Case) -> None:
    """A prior that can be sampled adds noise to latents: more at a higher strength, all of it from the given rng."""
    prior = case.loaded()
    if not prior.can_sample:
        raise NotApplicable("can_sample is false")
    latents = case.rng(step=4).normal(*_x(case, prior).popitem()[1].shape[1:]).to(case.device)

    def noised(strength: float) -> Tensor:
        try:
            found: Tensor = prior.noise_to(latents, case.rng(), 10, strength)
        except NotImplementedError as cause:
            raise Failed(
                "there is no noise_to; a prior with can_sample adds the noise of its model to latents"
            ) from cause
        return found

    little, much = noised(0.2), noised(0.8)
    require(much.shape == latents.shape, f"noise_to returns {list(much.shape)}; expected {list(latents.shape)}")
    require(error(noised(0.8), much) < 1e-5, "noise_to differs in a second call with the same rng; draw from it alone")
    gaps = [float((latents - found).norm()) for found in (little, much)]
    require(0 < gaps[0] < gaps[1], f"the latents move by {gaps[0]:.3g} at strength 0.2 and {gaps[1]:.3g} at 0.8")


def inputs_unchanged(case: Case) -> None:
    """`gradient` does not modify x."""
    prior = case.loaded()
    x = _x(case, prior)
    before = {name: part.clone() for name, part in x.items()}
    _gradient(case, prior, x)
    for name, part in x.items():
        require(error(part, before[name]) <= EXACT, f"{name} changed in place; work on a copy")


def exercise(case: Case, prior: Any) -> Tensors:
    """Gradient and value."""
    gradient, value = _gradient(case, prior, _x(case, prior))
    found = {f"the gradient in {name}": part for name, part in gradient.items()}
    return found if value is None else {**found, "the value": value}


def call(case: Case, prior: Any) -> tuple[Callable[[], Tensor], list[Tensor], int]:
    """The gradient of three samples; it is computed by the prior, so that all of the time counts as forward."""
    x = _x(case, prior)
    stand_in = torch.zeros(1, device=case.device, requires_grad=True)

    def forward() -> Tensor:
        gradient, _ = _gradient(case, prior, x)
        return stand_in * sum(float(part.sum()) for part in gradient.values())

    return forward, [stand_in], B


def _x(case: Case, prior: Any, dtype: torch.dtype = torch.float32) -> Tensors:
    """The input of `gradient` by name: the image, the latent, or the parameters."""
    if prior.space == "image":
        return {"the image": case.images(case.image_size, dtype=dtype)}
    canvas = case.on(dtype)
    with torch.no_grad():
        params = {name: value.to(dtype) for name, value in canvas.init(case.rng()).items()}
        if prior.space == "params":
            return params
        name = canvas.latent_name()
        return {"the latent": prior.encode(case.images(canvas.size, dtype=dtype)) if name is None else params[name]}


def _gradient(case: Case, prior: Any, x: Tensors, samples: slice = slice(None)) -> tuple[Tensors, Tensor | None]:
    """(gradient by name, value) of the samples."""
    prompts = [case.prompts[b % len(case.prompts)] for b in range(B)][samples]
    rng = case.rng(samples=samples)
    given: Any = x if prior.space == "params" else next(iter(x.values()))
    result = prior.gradient(given, prior.read(prompts).to(case.device), case.at, rng)
    require(
        isinstance(result, tuple) and len(result) == 2,
        f"gradient returns {shown(result)}; expected (gradient, value or None)",
    )
    gradient, value = result
    if prior.space != "params":
        require(isinstance(gradient, Tensor), f"gradient returns {shown(gradient)} first; expected a tensor like x")
        gradient = {next(iter(x)): gradient}
    return gradient, value
