"""The memory that a run takes on its device, counted before anything is downloaded.

Published models are built without weights (hook `load_without_weights`), and a forward and backward pass runs on
tensors without data: so every weight and every activation counts, but not the workspace of kernels. What refcore
embeds is loaded. The rest is unknown, and said to be.
"""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import dataclass, replace

from refcore import registry
from refcore.config.run import RunConfig
from refcore.config.terms import BaseTerm
from refcore.contracts.canvas import Canvas
from refcore.contracts.prior import Prior
from refcore.contracts.referee import Referee
from refcore.diagnostics.without_data import WITHOUT_DATA, decoding, distilling, judging, loaded
from refcore.engine.int8 import store_in_int8
from refcore.engine.memory import held_storages, peak_storages
from refcore.engine.networks import networks
from refcore.engine.precision import dtype_of
from refcore.errors import CANVAS
from refcore.plugin import Plugin


@dataclass(frozen=True)
class Part:
    """Bytes of the canvas or a term; None is unknown."""

    label: str
    loading: int | None
    """Weights before the prompts are read, in the term's dtype."""
    weights: int | None
    """Weights in the steps."""
    peak: int | None = None
    """Activations at the highest point: of all images decoded and pulled back, or of one view judged."""
    held: int = 0
    """Activations of the canvas while the terms are evaluated."""
    device: str | None = None
    """Of the term, where it is not the run's."""
    same: str = ""
    """Label of an earlier term that is the same model."""


def parts(config: RunConfig) -> list[Part]:
    """The canvas, referees, priors and witnesses of a config, with one prompt for each seed if it has none.

    Raises:
        RefcoreError: the config names an unknown or broken plugin.
    """
    tracks = max(1, len(config.prompts)) * len(config.seeds) * config.candidates.count
    found = [_canvas(config, tracks)]
    known: dict[str, str] = {}
    kinds: dict[str, registry.Kind] = {"referees": "referees", "priors": "priors", "witnesses": "referees"}
    named = zip(
        (*config.referee_labels, *config.prior_labels, *config.witness_labels),
        [(field, i) for field in kinds for i in range(len(getattr(config, field)))],
        strict=True,
    )
    for label, (field, i) in named:
        term: BaseTerm = getattr(config, field)[i]
        plugin = registry.create(kinds[field], term.name, term.config, f"{field}.{i}")
        key = json.dumps([term.name, plugin.config.model_dump(mode="json"), term.dtype, term.weights, term.device])
        if field != "priors" and key in known:
            found.append(replace(_of(found, known[key]), label=label, loading=0, weights=0, same=known[key]))
            continue
        known[key] = label
        found.append(replace(_term(plugin, term, config, tracks), label=label, device=term.device))
    return found


def _of(found: list[Part], label: str) -> Part:
    return next(part for part in found if part.label == label)


def _canvas(config: RunConfig, tracks: int) -> Part:
    canvas: Canvas = registry.create("canvases", config.canvas.name, config.canvas.config, CANVAS)
    found = loaded(canvas, dtype_of(config.dtype), config.image_size)
    if found is None:
        return Part(CANVAS, None, None)
    loading = _bytes(canvas)
    canvas.finish_reading()
    decoded, step = decoding(canvas, config, *found, tracks)
    held = decoded.measured(held_storages)
    peak = None if held is None else step.measured(peak_storages)
    return Part(CANVAS, loading, _bytes(canvas), peak, held or 0)


def _term(plugin: Plugin, term: BaseTerm, config: RunConfig, tracks: int) -> Part:
    found = loaded(plugin, dtype_of(term.dtype or config.dtype), None)
    if found is None:
        return Part("", None, None)
    conditioning, fake = found
    loading = _bytes(plugin)
    stored = None if term.weights == "off" else term.weights or config.weights
    if stored == "int8" and not (isinstance(plugin, Prior) and plugin.learns):
        with WITHOUT_DATA if fake else nullcontext():
            store_in_int8(plugin)
    plugin.finish_reading()
    weights = _bytes(plugin)
    kind = dtype_of(config.autocast if term.autocast is None else term.autocast)
    if isinstance(plugin, Referee):
        return Part("", loading, weights, judging(plugin, conditioning, fake, kind).measured(peak_storages))
    if isinstance(plugin, Prior) and plugin.space == "latent":
        height, width = config.image_size or (512, 512)
        distilled = distilling(plugin, conditioning, fake, kind, (tracks, 4, height // 8, width // 8))
        return Part("", loading, weights, distilled.measured(peak_storages))
    return Part("", loading, weights, 0)


def _bytes(plugin: Plugin) -> int:
    """Of the parameters and buffers of all networks of a plugin, each once, those that it shares included."""
    found = {}
    for network in networks(plugin, shared=True):
        for tensor in (*network.parameters(), *network.buffers()):
            found[id(tensor)] = tensor.numel() * tensor.element_size()
    return sum(found.values())


@dataclass(frozen=True)
class Need:
    """The least bytes that a run needs on its device, with one view judged at a time."""

    steps: int
    """The highest point of a step."""
    loading: int
    """The highest point of loading."""
    unknown: tuple[str, ...]
    """Labels of which weights or activations are not counted."""

    @property
    def most(self) -> int:
        return max(self.steps, self.loading)


def need(found: list[Part], offload: bool) -> Need:
    """What the run's own device needs; terms on another device are left out."""
    canvas, *others = found
    terms = [part for part in others if part.device is None]
    weights, decoding = canvas.weights or 0, canvas.peak or 0
    held = canvas.held
    kept = [part.weights or 0 for part in terms]
    real = {part.label: part.weights or 0 for part in others}
    own = [real[part.same] if part.same else part.weights or 0 for part in terms]
    loading = [part.loading or 0 for part in terms]
    if offload:
        judging = max((w + (part.peak or 0) for w, part in zip(own, terms, strict=True)), default=0)
        steps = weights + max(decoding, held + judging)
        loaded = (canvas.loading or 0) + max(loading, default=0)
    else:
        steps = weights + sum(kept) + max(decoding, held + max((part.peak or 0 for part in terms), default=0))
        before = [sum(kept[:i]) + one for i, one in enumerate(loading)]
        loaded = (canvas.loading or 0) + max(before, default=0)
    unknown = tuple(part.label for part in found if part.weights is None or part.peak is None)
    return Need(steps, loaded, unknown)
