"""Checks of a canvas against `refcore.contracts.canvas.Canvas`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from refcore.contracts.canvas import Canvas
from refcore.errors import RefcoreError
from refcore.images import BESIDE
from refcore.moment import Moment
from refcore.testing import common
from refcore.testing.case import (
    EXACT,
    ROUGH,
    SEEDS,
    Case,
    NotApplicable,
    Tensors,
    error,
    precision,
    require,
    shown,
    slope_error,
)
from refcore.testing.common import expect_refusal, gradient_of, leaf, moments, same_alone, takes

B = len(SEEDS)
DOCUMENT_ERROR = 1e-3
"""Difference that colours of a picture may have after they are written to a file and opened again."""


def useful_errors(case: Case) -> None:
    """As for all plugins; and an impossible size is refused, with a possible one."""
    common.useful_errors(case)
    attempt = type(case.plugin)(case.plugin.config)
    expect_refusal(lambda: attempt.load(case.device, torch.float32, (0, 0)), "the size (0, 0)", "0")  # type: ignore[attr-defined]


def loads(case: Case) -> None:
    """`load` sets size and device."""
    canvas = case.loaded()
    size = getattr(canvas, "size", None)
    require(
        isinstance(size, tuple) and len(size) == 2 and all(isinstance(s, int) and s > 0 for s in size),
        f"after load, size is {size!r}; expected (height, width) in pixels",
    )
    require(case.size in (None, size), f"after load, size is {size}; expected {case.size}, as requested")
    device = getattr(canvas, "device", None)
    require(isinstance(device, torch.device), f"after load, device is {device!r}; expected a torch.device")


def parameters(case: Case) -> None:
    """`init` returns float32 tensors with one row per sample, the same for the same key of the rng."""
    canvas = case.loaded()
    params = canvas.init(case.rng())
    require(isinstance(params, dict) and params, f"init returns {type(params).__name__}; expected a dict of tensors")
    again, alone = canvas.init(case.rng()), canvas.init(case.rng(samples=slice(1, 2)))
    for name, value in params.items():
        require(
            value.shape[:1] == (B,), f'"{name}" has the shape {list(value.shape)}; expected {B} rows, one per sample'
        )
        require(value.dtype == torch.float32, f'"{name}" is {value.dtype}; expected float32')
        require(value.device.type == case.device.type, f'"{name}" is on {value.device}; expected {case.device}')
        require(
            error(again[name], value) <= EXACT,
            f'"{name}" differs in a second init of the same key; draw from the rng alone',
        )
        require(
            error(alone[name], value[1:2]) <= EXACT,
            f'"{name}" of sample 1 differs when it is drawn without the rest of the batch; draw from the rng alone',
        )


def shapes_dtype_and_device(case: Case) -> None:
    """`decode` returns images [B, 3, H, W] of its size, float32, in [0, 1]."""
    canvas = case.loaded()
    image = _decoded(case, canvas, _params(case, canvas), case.at)
    wanted = (B, 3, *canvas.size)
    require(isinstance(image, Tensor), f"decode returns {type(image).__name__}; expected a tensor")
    require(image.shape == wanted, f"decode returns the shape {list(image.shape)}; expected {list(wanted)}")
    require(image.dtype == torch.float32, f"decode returns {image.dtype} for float32 parameters; expected float32")
    require(image.device.type == case.device.type, f"decode returns an image on {image.device}, not on {case.device}")
    for spread in (1.0, 20.0):
        moved = _decoded(case, canvas, {name: spread * value for name, value in _params(case, canvas).items()}, case.at)
        low, high = (float(bound) for bound in moved.detach().aminmax())
        require(
            low >= 0 and high <= 1,
            f"decode returns colours from {low:.3g} to {high:.3g}; expected [0, 1] for any parameters",
        )


def every_moment(case: Case) -> None:
    """`decode` takes the moment, and returns colours in [0, 1] in every step and at the end of the run."""
    canvas = case.loaded()
    takes(canvas, "decode", "params", "at")
    params = _params(case, canvas)
    for at in moments(case, end=True):
        image = _decoded(case, canvas, params, at).detach()
        require(
            image.shape == (B, 3, *canvas.size),
            f"decode returns the shape {list(image.shape)} in {at}; expected {[B, 3, *canvas.size]}",
        )
        low, high = (float(bound) for bound in image.aminmax())
        require(low >= 0 and high <= 1, f"decode returns colours from {low:.3g} to {high:.3g} in {at}; expected [0, 1]")


def gradient_present_and_finite(case: Case) -> None:
    """Gradients of the image reach every tensor of the parameters."""
    canvas = case.loaded()
    params = {name: leaf(value) for name, value in _params(case, canvas).items()}
    image = _decoded(case, canvas, params, case.at)
    weights = case.images(canvas.size)
    for name, gradient in gradient_of((image * weights).flatten(1).sum(1), params, "decode").items():
        require(
            (gradient.flatten(1).abs().amax(1) > 0).all(), f'the gradient of a sample in "{name}" is 0 through decode'
        )


def gradient_right(case: Case) -> None:
    """The gradient through `decode` matches central differences, in float64 if supported."""

    def function(canvas: Any, dtype: torch.dtype) -> Callable[[Tensors], Tensor]:
        weights = case.images(canvas.size, dtype=dtype)
        return lambda params: (_decoded(case, canvas, params, case.at).to(dtype) * weights).flatten(1).sum(1)

    def answer(dtype: torch.dtype) -> Tensor:
        canvas: Canvas = case.loaded(dtype)
        return _decoded(case, canvas, _params(case, canvas, dtype), case.at)

    dtype, steps, limit = precision(case, answer)
    canvas = case.loaded(dtype)
    losses = function(canvas, dtype)
    params = {name: leaf(value) for name, value in _params(case, canvas, dtype).items()}
    gradient = gradient_of(losses(params), params, "decode")
    gap = slope_error(losses, gradient, {name: value.detach() for name, value in params.items()}, steps)
    require(
        gap < limit,
        f"the gradient of decode differs from central differences in {dtype} by {gap:.2g} of its norm, more than "
        f"{limit:g}; skip this check, with the reason, if it is a deliberate substitute",
    )


def no_dependence_on_batch_mates(case: Case) -> None:
    """A sample's image and gradient do not depend on the rest of the batch."""
    canvas = case.loaded()
    params = {name: leaf(value) for name, value in _params(case, canvas).items()}
    image = _decoded(case, canvas, params, case.at)
    alone = _decoded(case, canvas, {name: value[1:2].detach() for name, value in params.items()}, case.at)
    same_alone(image[1:2].detach(), alone.detach(), "the image of sample 1")
    for name, part in gradient_of(image[1].square(), params, "decode").items():
        others = float(torch.cat([part[:1], part[2:]]).abs().amax())
        require(
            others <= ROUGH * float(part.abs().amax()),
            f'the image of sample 1 has a gradient ({others:.2g}) in "{name}" of other samples',
        )


def start_from_an_image(case: Case) -> None:
    """`encode` returns parameters that decode to the image at step 0, or raises a RefcoreError."""
    canvas = case.loaded()
    start = Moment(0, case.at.steps)
    with torch.no_grad():
        image = _decoded(case, canvas, _params(case, canvas), start).detach()
        try:
            params = canvas.encode(image)
        except RefcoreError as refusal:
            raise NotApplicable(f"it cannot start from an image: {refusal}") from refusal
        fresh = canvas.init(case.rng())
        shapes = {name: list(value.shape) for name, value in params.items()}
        wanted = {name: list(value.shape) for name, value in fresh.items()}
        require(shapes == wanted, f"encode returns parameters {shapes}; expected those of init, {wanted}")
        gap = float((_decoded(case, canvas, params, start) - image).abs().mean())
    require(
        gap <= case.encode_error,
        f"an image that is encoded and decoded is {gap:.3f} off (mean absolute error, colours in [0, 1]); expected at "
        f"most {case.encode_error}",
    )


def documents(case: Case) -> None:
    """`files` gives each sample its own texts, and `open` reads those it can back to the same picture."""
    canvas = case.loaded()
    params, end = _params(case, canvas), Moment.end(case.at.steps)
    found = canvas.files(params)
    require(
        isinstance(found, list) and len(found) == B and all(isinstance(files, dict) for files in found),
        f"files returns {found!r:.100}; expected a list of {B} dicts, ending -> text, one per sample",
    )
    for ending, text in ((ending, text) for files in found for ending, text in files.items()):
        require(ending in BESIDE, f"files returns the ending {ending!r}; expected one of {', '.join(BESIDE)}")
        require(isinstance(text, str), f"files returns {shown(text)} as {ending!r}; expected a text")
    if canvas.opens:
        expect_refusal(lambda: canvas.open("\x00"), "open of a text that is no document", "")
    back = [ending for ending in found[0] if ending in canvas.opens]
    if not back:
        raise NotApplicable("it opens no file that it writes")
    with torch.no_grad():
        image = canvas.decode(params, end)
        for b, files in enumerate(found):
            gap = float((canvas.decode(canvas.open(files[back[0]]), end)[0] - image[b]).abs().max())
            require(
                gap <= DOCUMENT_ERROR,
                f"sample {b}, written as {back[0]} and opened again, is up to {gap:.3g} off (colours in [0, 1]); "
                f"expected at most {DOCUMENT_ERROR}",
            )


def latents(case: Case) -> None:
    """`latent_name` and `latent_space` agree: both or neither, the name of a parameter with the space's channels."""
    canvas = case.loaded()
    params = _params(case, canvas)
    name, space = canvas.latent_name(), canvas.latent_space
    if name is space is None:
        raise NotApplicable("it has no latents")
    require(
        name is not None and space is not None,
        f"latent_name is {name!r}, latent_space {space!r}; expected both, or neither",
    )
    require(name in params, f'latent_name is "{name}"; expected one of the parameters: {", ".join(params)}')
    shape = params[name].shape
    require(
        len(shape) == 4 and shape[1] == space.channels,
        f'the latent "{name}" has the shape {list(shape)}; expected [B, {space.channels}, h, w], as latent_space says',
    )


def inputs_unchanged(case: Case) -> None:
    """`decode` does not modify the parameters."""
    canvas = case.loaded()
    params = _params(case, canvas)
    before = {name: value.clone() for name, value in params.items()}
    _decoded(case, canvas, params, case.at)
    for name, value in params.items():
        require(error(value, before[name]) <= EXACT, f'"{name}" changed in place in decode; work on a copy')


def exercise(case: Case, canvas: Any) -> Tensors:
    """Initial parameters, image and gradients."""
    params = {name: leaf(value) for name, value in _params(case, canvas).items()}
    image = _decoded(case, canvas, params, case.at)
    found = {f'"{name}" of init': value.detach() for name, value in params.items()}
    found["the image"] = image.detach()
    if image.requires_grad:
        gradients = torch.autograd.grad(image.square().sum(), list(params.values()), allow_unused=True)
        found |= {f'the gradient in "{n}"': g for n, g in zip(params, gradients, strict=True) if g is not None}
    return found


def call(case: Case, canvas: Any) -> tuple[Callable[[], Tensor], list[Tensor], int]:
    """`decode` of three samples."""
    params = {name: leaf(value) for name, value in _params(case, canvas).items()}
    return lambda: _decoded(case, canvas, params, case.at), list(params.values()), B


def _decoded(case: Case, canvas: Any, params: Tensors, at: Moment) -> Tensor:
    """`decode`, for a canvas that reads prompts with those of the case, one a row."""
    if not canvas.reads_prompts:
        image: Tensor = canvas.decode(params, at)
        return image
    rows = len(next(iter(params.values())))
    prompts = list(case.prompts[:B]) if rows == B else [case.prompts[1]]
    with torch.no_grad():
        conditioning = canvas.read(prompts)
    rng = case.rng(samples=slice(None) if rows == B else slice(1, 2))
    told: Tensor = canvas.decode(params, at, conditioning, rng)
    return told


def _params(case: Case, canvas: Any, dtype: torch.dtype = torch.float32) -> Tensors:
    """Initial parameters with noise added, since many canvases start at a flat grey."""
    generator = torch.Generator().manual_seed(7)
    return {
        name: (value + 0.3 * torch.randn(value.shape, generator=generator).to(value)).to(dtype)
        for name, value in canvas.init(case.rng()).items()
    }
