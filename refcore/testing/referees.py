"""Checks of a referee against `refcore.contracts.referee.Referee`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from refcore.contracts.conditioning import Conditioning
from refcore.contracts.referee import Referee
from refcore.errors import RefcoreError
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
    slope_error,
)
from refcore.testing.common import gradient_of, leaf, same_alone

N = len(SEEDS)


def loads(case: Case) -> None:
    """`load` sets input_size, device and dtype."""
    referee = case.loaded()
    for name, kind in (("input_size", tuple), ("device", torch.device), ("dtype", torch.dtype)):
        found = getattr(referee, name, None)
        require(isinstance(found, kind), f"after load, {name} is {found!r}; expected a {kind.__name__}")
    size = referee.input_size
    require(
        len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size),
        f"input_size is {size!r}; expected (height, width) in pixels",
    )
    require(referee.device.type == case.device.type, f"device is {referee.device}, but it was loaded on {case.device}")


def conditioning(case: Case) -> None:
    """`read` returns one row per prompt, in order and without gradients."""
    prompts = list(case.prompts)
    read = case.loaded().read(prompts)
    require(isinstance(read, Conditioning), f"read returns {type(read).__name__}; expected a refcore.Conditioning")
    require(read.prompts == case.prompts, f"the conditioning's prompts are {read.prompts}; expected {case.prompts}")
    for name, tensor in read.tensors.items():
        require(
            tensor.shape[:1] == (len(prompts),),
            f'tensor "{name}" of the conditioning has the shape {list(tensor.shape)}; expected {len(prompts)} rows',
        )
        require(
            not tensor.requires_grad, f'tensor "{name}" of the conditioning requires a gradient; read under no_grad'
        )
    for name, texts in (("truncated", read.truncated), ("notes", read.notes)):
        require(
            len(texts) in (0, len(prompts)) and all(isinstance(text, str) for text in texts),
            f"{name} of the conditioning is {texts!r}; expected one string per prompt, or none at all",
        )
    read.to(case.device).take([1, 0, 1])


def shapes_dtype_and_device(case: Case) -> None:
    """`judge` returns losses [N] and `score` scores [B], in float32 or float64, on the images' device."""
    referee = case.loaded()
    for n in (1, N):
        for wanted in _questions(case):
            losses = _judge(case, referee, _views(case, referee, n), torch.arange(n) % len(case.prompts), wanted)
            _vector(losses, n, f"judge (wanted={wanted})", case)
    scores = referee.score(_views(case, referee, len(case.prompts)), referee.read(list(case.prompts)).to(case.device))
    _vector(scores, len(case.prompts), "score", case)
    require(not scores.requires_grad, "score has a gradient; decorate it with torch.no_grad()")


def gradient_present_and_finite(case: Case) -> None:
    """Every view has a gradient, which is finite for dark, bright, flat and noisy images too."""
    referee = case.loaded()
    shape = (1, 3, *referee.input_size)
    plain = _views(case, referee)
    beyond = (plain - 0.5) * 1.6 + 0.5
    extremes = [torch.full(shape, level, device=case.device) for level in (0.0, 0.5, 1.0)]
    for wanted in _questions(case):
        for where, images in {
            "images": plain,
            "noise beyond [0, 1]": beyond,
            "flat greys": torch.cat(extremes),
        }.items():
            views = leaf(images)
            losses = _judge(case, referee, views, torch.arange(len(views)) % len(case.prompts), wanted)
            require(losses.isfinite().all(), f"the loss of {where} is {losses.tolist()} (wanted={wanted})")
            gradient = gradient_of(losses, {"the views": views}, f"the loss of {where} (wanted={wanted})")["the views"]
            if wanted and images is plain:
                per_view = gradient.flatten(1).abs().amax(1)
                require(
                    (per_view > 0).all(),
                    f"the gradient of a view is 0 ({per_view.tolist()}); the loss does not depend on the image",
                )


def gradient_right(case: Case) -> None:
    """The gradient of the loss matches central differences, in float64 if supported."""
    prompt_index = torch.arange(N) % len(case.prompts)

    def losses(dtype: torch.dtype) -> Tensor:
        referee = case.loaded(dtype)
        return _judge(case, referee, _views(case, referee, dtype=dtype), prompt_index)

    dtype, steps, limit = precision(case, losses)
    referee = case.loaded(dtype)
    for wanted in _questions(case):
        views = {"views": leaf(_views(case, referee, dtype=dtype))}

        def function(x: Tensors, wanted: bool = wanted) -> Tensor:
            return _judge(case, referee, x["views"], prompt_index, wanted)

        gradient = gradient_of(function(views), views, f"the loss (wanted={wanted})")
        gap = slope_error(function, gradient, {"views": views["views"].detach()}, steps)
        require(
            gap < limit,
            f"the gradient is not that of the loss (wanted={wanted}): central differences in {dtype} differ from it by "
            f"{gap:.2g} of its norm, more than {limit:g}",
        )


def no_dependence_on_batch_mates(case: Case) -> None:
    """A view's loss and gradient depend on its own pixels and prompt alone."""
    referee = case.loaded()
    prompt_index = torch.tensor([1, 0, 1])
    views = leaf(_views(case, referee))
    losses = _judge(case, referee, views, prompt_index)
    (first,) = torch.autograd.grad(losses[0], views, retain_graph=True)
    leak = float(first[1:].abs().amax())
    require(leak <= ROUGH * float(first.abs().amax()), f"the loss of a view has a gradient ({leak:.2g}) in other views")
    together = gradient_of(losses, {"v": views}, "the loss")["v"]
    for i, row in enumerate(prompt_index.tolist()):
        own = leaf(views[i : i + 1])
        single = referee.read([case.prompts[row]]).to(case.device)
        loss = referee.judge(own, single, torch.zeros(1, dtype=torch.int64, device=case.device))
        same_alone(losses[i : i + 1].detach(), loss.detach(), f"the loss of view {i}")
        same_alone(
            together[i : i + 1], gradient_of(loss, {"v": own}, "the loss")["v"], f"the gradient of view {i}", 0.01
        )
    images, read = _views(case, referee, 2), referee.read(list(case.prompts[:2])).to(case.device)
    scores = referee.score(images, read)
    same_alone(scores[1:], referee.score(images[1:], read.take([1])), "the score of image 1")


def negated_question(case: Case) -> None:
    """The gradients with `wanted=True` and `wanted=False` do not agree."""
    if len(_questions(case)) < 2:
        raise NotApplicable("it refuses wanted=False, with a RefcoreError")
    referee = case.loaded()
    views = leaf(_views(case, referee))
    prompt_index = torch.arange(N) % len(case.prompts)
    yes, no = (
        gradient_of(_judge(case, referee, views, prompt_index, wanted), {"v": views}, "the loss")["v"].flatten()
        for wanted in (True, False)
    )
    cosine = float(torch.nn.functional.cosine_similarity(yes.double(), no.double(), dim=0))
    require(
        cosine < 0.5,
        f"the gradients with wanted=True and wanted=False agree (cosine {cosine:.2f}); expected -log(1 - p) or "
        "similar for the negated question, or a RefcoreError",
    )


def inputs_unchanged(case: Case) -> None:
    """`judge` and `score` do not modify views or conditioning, which others use as well."""
    referee = case.loaded()
    views, read = _views(case, referee), referee.read(list(case.prompts)).to(case.device)
    before = {"the views": views.clone(), **{name: t.clone() for name, t in read.tensors.items()}}
    prompt_index = torch.arange(N, device=case.device) % len(case.prompts)
    referee.judge(views, read, prompt_index)
    referee.score(views, read.take(prompt_index.tolist()))
    for name, tensor in {"the views": views, **read.tensors}.items():
        require(error(tensor, before[name]) <= EXACT, f"{name} changed in place; work on a copy")


def exercise(case: Case, referee: Any) -> Tensors:
    """Losses, gradients and scores."""
    prompt_index = torch.arange(N) % len(case.prompts)
    found: Tensors = {}
    for wanted in _questions(case):
        views = leaf(_views(case, referee))
        losses = _judge(case, referee, views, prompt_index, wanted)
        found[f"the loss (wanted={wanted})"] = losses.detach()
        if losses.requires_grad:
            (gradient,) = torch.autograd.grad(losses.sum(), views)
            found[f"the gradient (wanted={wanted})"] = gradient
    read = referee.read(list(case.prompts)).to(case.device)
    found["the score"] = referee.score(_views(case, referee, len(case.prompts)), read)
    return found


def call(case: Case, referee: Any) -> tuple[Callable[[], Tensor], list[Tensor], int]:
    """`judge` on three views."""
    views = leaf(_views(case, referee))
    read = referee.read(list(case.prompts)).to(case.device)
    prompt_index = torch.arange(N, device=case.device) % len(case.prompts)
    return lambda: referee.judge(views, read, prompt_index), [views], N


def _views(case: Case, referee: Any, n: int = N, dtype: torch.dtype = torch.float32) -> Tensor:
    return case.images(referee.input_size, n, dtype)


def _judge(case: Case, referee: Referee, views: Tensor, prompt_index: Tensor, wanted: bool = True) -> Tensor:
    read = referee.read(list(case.prompts)).to(case.device)
    return referee.judge(views, read, prompt_index.to(case.device), wanted)


def _questions(case: Case) -> tuple[bool, ...]:
    """The values of `wanted` that the referee supports."""
    referee = case.loaded()
    try:
        with torch.no_grad():
            _judge(case, referee, _views(case, referee, 1), torch.zeros(1, dtype=torch.int64), False)
    except RefcoreError:
        return (True,)
    return (True, False)


def _vector(value: Any, n: int, what: str, case: Case) -> None:
    require(isinstance(value, Tensor), f"{what} returns {type(value).__name__}; expected a tensor [{n}]")
    require(value.shape == (n,), f"{what} returns the shape {list(value.shape)}; expected [{n}], one number per image")
    require(
        value.dtype in (torch.float32, torch.float64),
        f"{what} returns {value.dtype}; expected float32 (compare features in float32 whatever the weights' dtype)",
    )
    require(
        value.device.type == case.device.type,
        f"{what} returns a tensor on {value.device}, but images are on {case.device}",
    )
