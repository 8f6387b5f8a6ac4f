"""What a run does once for an image, a view or a gradient, on tensors without data, so that it can be counted.

Published models are built without weights (hook `load_without_weights`). What refcore embeds is loaded. The rest is
unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from refcore import checkpoints, registry
from refcore.checkpoints import EMBEDDED
from refcore.config.run import RunConfig
from refcore.contracts.canvas import Canvas
from refcore.contracts.conditioning import Conditioning
from refcore.contracts.prior import Prior
from refcore.contracts.referee import Referee
from refcore.engine.precision import autocast, dtype_of
from refcore.moment import Moment
from refcore.plugin import Plugin
from refcore.rng import Rng

CPU = torch.device("cpu")
WITHOUT_DATA = FakeTensorMode(allow_non_fake_inputs=True)
END = Moment.end(1)
Count = TypeVar("Count")


@dataclass(frozen=True)
class Evaluation:
    """Something that a run does again and again."""

    given: Callable[[], Any]
    """Makes what it starts from, which does not count."""
    work: Callable[[Any], Any]
    ways: Sequence[bool]
    """Whether without data; the first way that works counts."""

    def measured(self, measure: Callable[[Callable[[], Any]], Count]) -> Count | None:
        """`measure` of the work, with or without data; None where it cannot be done."""
        for way in self.ways:
            try:
                with WITHOUT_DATA if way else nullcontext():
                    x = self.given()
                    return measure(partial(self.work, x))
            except Exception:  # of any library: each means that it cannot be counted in this way
                continue
        return None


def loaded(plugin: Plugin, dtype: torch.dtype, size: tuple[int, int] | None) -> tuple[Conditioning, bool] | None:
    """What a plugin reads of a prompt once it is loaded, and whether that was without weights; None: it cannot be."""
    with WITHOUT_DATA:
        found = registry.load_without_weights(plugin, CPU, dtype, size)
    if found is not None:
        return found, True
    named = plugin.config.checkpoints().values()
    if not all(model.startswith(EMBEDDED) for model in named):
        return None
    try:
        given: Any = (size,) if isinstance(plugin, Canvas) else ()
        with checkpoints.keeping_nothing():
            plugin.load(CPU, dtype, *given)  # type: ignore[attr-defined]
        reads = not isinstance(plugin, Canvas) or plugin.reads_prompts
        return (plugin.read(["a red circle"]) if reads else Conditioning(("",))), False  # type: ignore[attr-defined]
    except Exception:  # a plugin's own, or of what it needs: `problems` tells what is known of it
        return None


def decoding(
    canvas: Canvas, config: RunConfig, conditioning: Conditioning, fake: bool, tracks: int
) -> tuple[Evaluation, Evaluation]:
    """The decoding of some tracks, with its graph, and the same with its pull-back."""

    def params() -> dict[str, Tensor]:
        return {name: value.requires_grad_() for name, value in canvas.init(Rng([*range(tracks)], 0, "init")).items()}

    def decoded(given: dict[str, Tensor]) -> Tensor:
        read = (conditioning.take([0] * tracks),) if canvas.reads_prompts else ()
        with autocast(CPU, dtype_of(config.canvas.autocast)):
            return canvas.decode(given, END, *read)

    def step(given: dict[str, Tensor]) -> Any:
        return torch.autograd.grad(decoded(given).sum(), list(given.values()), allow_unused=True)

    ways = [fake] if canvas.config.checkpoints() else [True, False]
    return Evaluation(params, decoded, ways), Evaluation(params, step, ways)


def judging(referee: Referee, conditioning: Conditioning, fake: bool, kind: torch.dtype | None) -> Evaluation:
    """The judgement of one view, with its gradient, in the autocast `kind`."""

    def view() -> Tensor:
        return torch.zeros(1, 3, *referee.input_size, requires_grad=True)

    def judged(x: Tensor) -> Any:
        first = torch.zeros(1, dtype=torch.int64)
        with autocast(CPU, kind):
            if referee.beside is None:
                loss = referee.judge(x, conditioning, first)
            else:
                loss = referee.judge_beside(x, x.detach(), conditioning, first)
        return torch.autograd.grad(loss.float().sum(), x)

    return Evaluation(view, judged, [fake])


def distilling(
    prior: Prior, conditioning: Conditioning, fake: bool, kind: torch.dtype | None, shape: tuple[int, ...]
) -> Evaluation:
    """The gradient of a latent prior at latents of a shape [N, C, h, w], in the autocast `kind`."""

    def latents() -> Tensor:
        return torch.zeros(shape)

    def distilled(x: Tensor) -> Any:
        with autocast(CPU, kind):
            return prior.gradient(x, conditioning.take([0] * len(x)), END, Rng([*range(len(x))], 0, "count"))

    return Evaluation(latents, distilled, [fake])
