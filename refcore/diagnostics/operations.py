"""Floating-point operations of a run, counted before anything is downloaded, as `footprint` counts its memory.

Time is not counted: it is operations divided by what a device makes of its peak rate, which only a measurement tells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from refcore import registry
from refcore.config.run import RunConfig
from refcore.config.terms import PriorTerm, RefereeTerm
from refcore.contracts.canvas import Canvas
from refcore.contracts.prior import Prior
from refcore.contracts.referee import Referee
from refcore.diagnostics.without_data import Evaluation, decoding, distilling, judging, loaded
from refcore.engine.precision import dtype_of
from refcore.errors import CANVAS, RefcoreError

Shape = tuple[int, ...]


def _attention(query: Shape, key: Shape, value: Shape, *others: Any, **named: Any) -> int:
    return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]


def _attention_backward(gradient: Shape, query: Shape, key: Shape, value: Shape, *others: Any, **named: Any) -> int:
    return int(sdpa_backward_flop_count(gradient, query, key, value))  # type: ignore[no-untyped-call]


ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
"""Attention on the CPU, where things are counted, which torch's counter does not know."""


@dataclass(frozen=True)
class Operations:
    """Floating-point operations; a multiplication with its addition is two."""

    convolutions: int = 0
    products: int = 0
    """Of matrix products, attention included."""

    @property
    def total(self) -> int:
        return self.convolutions + self.products

    def __add__(self, other: Operations) -> Operations:
        return Operations(self.convolutions + other.convolutions, self.products + other.products)

    def __mul__(self, times: int) -> Operations:
        return Operations(self.convolutions * times, self.products * times)

    __rmul__ = __mul__


def operations(work: Callable[[], Any]) -> Operations:
    """Operations of `work()`, on fake tensors, too.

    Matrix products, convolutions and attention count, as torch's `FlopCounterMode` has them. Normalisations,
    activations and resampling do not.

    >>> x = torch.ones(2, 3)
    >>> operations(lambda: x @ x.T)
    Operations(convolutions=0, products=24)
    """
    with FlopCounterMode(display=False, custom_mapping=ATTENTION) as counter:
        work()
    found = counter.get_flop_counts().get("Global", {})
    convolutions = sum(count for operation, count in found.items() if "conv" in str(operation))
    return Operations(convolutions, sum(found.values()) - convolutions)


@dataclass(frozen=True)
class Part:
    """What a run does again and again for an image."""

    label: str
    each: Operations | None
    """Of one evaluation; None: it cannot be counted."""
    times: int
    """Evaluations an image, in the whole run."""


def parts(config: RunConfig) -> list[Part]:
    """What the canvas decodes and pulls back, the views that referees judge, and the gradients of priors, for an image.

    What is done once for a prompt (text encoders), once for a run (the view by which memory is planned) or for
    measurement alone (witnesses, scores) does not count, nor what is between the networks (views, combiners). Text
    beside a view is as long as `load_without_weights` has it.

    Raises:
        RefcoreError: the config does what this does not count: candidates, a start from a sample or an image, the
            ranking of views, phrases, or looks at the finished picture in between.
    """
    for field, found in _uncounted(config):
        raise RefcoreError(f"{field} is {found}, which costs operations that are not counted; leave it out to count")
    canvas: Canvas = registry.create("canvases", config.canvas.name, config.canvas.config, CANVAS)
    own = loaded(canvas, dtype_of(config.dtype), config.image_size)
    decoded, step = (None, None) if own is None else decoding(canvas, config, *own, 1)
    params = {} if decoded is None else decoded.measured(lambda work: decoded.given()) or {}
    latents = params.get(canvas.latent_name() or "")
    judged = [i for i in range(config.steps) if any(term.weight_at(i, config.steps) for term in config.referees)]
    terms = [*_referees(config), *_priors(config, None if latents is None else tuple(latents.shape))]
    return [
        Part(CANVAS, _counted(step), len(judged)),
        *terms,
        Part("result", _counted(decoded, _without_graph), 1),
    ]


def _referees(config: RunConfig) -> Iterator[Part]:
    for label, term in zip(config.referee_labels, config.referees, strict=True):
        referee: Referee = registry.create("referees", term.name, term.config, label)
        own = loaded(referee, dtype_of(term.dtype or config.dtype), None)
        judged = None if own is None else judging(referee, *own, _autocast(term, config))
        views = config.views[term.views].count if term.views in config.views else 1
        yield Part(label, _counted(judged), views * _steps(term, config))


def _priors(config: RunConfig, latents: tuple[int, ...] | None) -> Iterator[Part]:
    for label, term in zip(config.prior_labels, config.priors, strict=True):
        prior: Prior = registry.create("priors", term.name, term.config, label)
        own = loaded(prior, dtype_of(term.dtype or config.dtype), None)
        distilled: Evaluation | None = None
        if own is not None and prior.space == "latent" and latents is not None:
            distilled = distilling(prior, *own, _autocast(term, config), latents)
        yield Part(label, _counted(distilled), _steps(term, config))


def _steps(term: RefereeTerm | PriorTerm, config: RunConfig) -> int:
    """Steps in which a term takes part."""
    return sum(term.weight_at(step, config.steps) != 0 for step in range(config.steps))


def _autocast(term: RefereeTerm | PriorTerm, config: RunConfig) -> torch.dtype | None:
    return dtype_of(config.autocast if term.autocast is None else term.autocast)


def _counted(
    evaluation: Evaluation | None, count: Callable[[Callable[[], Any]], Operations] = operations
) -> Operations | None:
    return None if evaluation is None else evaluation.measured(count)


def _without_graph(work: Callable[[], Any]) -> Operations:
    with torch.no_grad():
        return operations(work)


def _uncounted(config: RunConfig) -> Iterator[tuple[str, object]]:
    """(field, its value) of what costs operations that `parts` does not count."""
    if config.candidates.most > 1:
        yield "candidates", f"{config.candidates.most} a sample"
    if config.init is not None:
        yield "init", type(config.init).__name__
    if config.output == "best":
        yield "output", config.output
    if config.early_stop is not None:
        yield "early_stop", "on"
    for name, group in config.views.items():
        if group.hardest not in (None, group.count):
            yield f"views.{name}.hardest", f"{group.hardest} of {group.count}"
    for label, term in zip(config.referee_labels, config.referees, strict=True):
        if term.phrases is not None:
            yield f"phrases of {label}", "on"
