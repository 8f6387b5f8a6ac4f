"""The case of a check: a plugin, images, prompts, seeds and a device; and the measurements that checks share."""

from __future__ import annotations

import random
import unittest
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from refcore import registry
from refcore.contracts.canvas import Canvas, CanvasParams
from refcore.contracts.metric import Metric
from refcore.contracts.parser import Parser
from refcore.contracts.prior import Prior
from refcore.contracts.referee import Referee
from refcore.explain import validated
from refcore.moment import Moment
from refcore.plugin import Plugin
from refcore.rng import Rng, keyed_generator

PROMPTS = ("a red circle", "a blue square left of a green star", "two dotted rings")
SEEDS: tuple[int, ...] = (11, 12, 13)
SIZE = (64, 64)
"""Default (height, width) of images for priors and of views for augmentations."""
EXACT, ROUGH = 1e-7, 1e-3
"""Relative rounding error allowed between equal computations in another order, in float64 and in float32."""

STEPS = (1e-6, 1e-7, 1e-8)
"""Steps of central differences in float64, for colours in [0, 1]."""
SLOPE_ERROR = 1e-3
"""Error allowed in central differences in float64, relative to the gradient's norm."""

Tensors = dict[str, Tensor]


class Failed(AssertionError):
    """A plugin breaks a rule of its contract; the message names the rule, the place and the remedy."""


class NotApplicable(unittest.SkipTest):
    """A check that does not apply to this plugin; pytest reports it as skipped, with the reason."""


def require(holds: Any, message: str) -> None:
    """Raises `Failed` with the message unless `holds`."""
    if not holds:
        raise Failed(message)


def shown(value: Any) -> str:
    """The shape of a tensor, or the type of anything else, for messages."""
    return f"a tensor {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


class Pixels(Canvas):
    """Plain pixels: the canvas on which priors are checked by default."""

    name = "pixels"

    def load(self, device: torch.device, dtype: torch.dtype, size: tuple[int, int] | None = None) -> None:
        self.device, self.size = device, size or SIZE

    def init(self, rng: Rng) -> CanvasParams:
        return {"pixels": rng.uniform(0, 1, 3, *self.size).to(self.device)}

    def decode(self, params: CanvasParams, at: Moment) -> Tensor:
        return params["pixels"].clamp(0, 1)


@dataclass
class Case:
    """A plugin, and the inputs to check it on. Loaded instances are cached, one per dtype."""

    plugin: Plugin
    """Not loaded; checks create their own instances from its class and config, as a run does."""
    prompts: tuple[str, ...] = PROMPTS
    """At least two different prompts that it can read."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    size: tuple[int, int] | None = None
    """(height, width) of a canvas, a prior's images or an augmentation's views; None for the default."""
    canvas: Canvas | None = None
    """Canvas for a prior; None for a canvas of pixels."""
    refused: Mapping[str, Any] = field(default_factory=dict)
    """Field -> a value that must be refused with a useful error, such as a checkpoint that does not exist."""
    seconds: float | None = None
    """Maximum time per view, forward and backward, in seconds."""
    megabytes: float | None = None
    """Maximum memory per view held for the backward pass, in megabytes."""
    at: Moment = Moment(3, 10)  # noqa: RUF009 - it is frozen
    """Step of the run in which the plugin is called, unless a check is about others."""
    encode_error: float = 0.05
    """Canvases: maximum mean absolute error of an image that is encoded and decoded, colours in [0, 1]."""
    category: str = ""
    """Metrics: category of the prompts."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Metrics: what the benchmark says of each prompt; see `refcore.BenchmarkPrompt`."""

    def __post_init__(self) -> None:
        self._loaded: dict[torch.dtype, Any] = {}
        if len(set(self.prompts)) < 2:
            raise ValueError(f"prompts are {self.prompts}; expected at least two different ones")

    @property
    def kind(self) -> registry.Kind:
        return registry.kind_of(type(self.plugin))

    @property
    def image_size(self) -> tuple[int, int]:
        return self.size or SIZE

    def fresh(self, dtype: torch.dtype = torch.float32) -> Any:
        """A new instance, loaded if its kind has a `load`."""
        plugin: Any = type(self.plugin)(self.plugin.config)
        if isinstance(plugin, Canvas):
            plugin.load(self.device, dtype, self.size)
        elif isinstance(plugin, Parser):
            plugin.load()
        elif isinstance(plugin, (Referee, Prior, Metric)):
            plugin.load(self.device, dtype)
        if isinstance(plugin, Prior):
            plugin.accept(self.on(dtype))
        return plugin

    def with_settings(self, settings: Mapping[str, Any], at: Moment) -> Case:
        """The same case for a plugin of other settings, at another moment.

        Raises:
            RefcoreError: the settings are refused.
        """
        plugin = type(self.plugin)(validated(type(self.plugin).Config, settings))
        return replace(self, plugin=plugin, at=at)

    def loaded(self, dtype: torch.dtype = torch.float32) -> Any:
        """The cached instance of a dtype."""
        if dtype not in self._loaded:
            self._loaded[dtype] = self.fresh(dtype)
        return self._loaded[dtype]

    def on(self, dtype: torch.dtype = torch.float32) -> Canvas:
        """A loaded canvas for a prior."""
        canvas = Pixels() if self.canvas is None else type(self.canvas)(self.canvas.config)
        canvas.load(self.device, dtype, self.size)
        return canvas

    def rng(self, count: int = 1, samples: slice = slice(None), step: int = 3) -> Rng:
        """The rng of the three samples, or of some of them."""
        return Rng(SEEDS[samples], step, "testing", count, self.device)

    def images(self, size: tuple[int, int], n: int = len(SEEDS), dtype: torch.dtype = torch.float32) -> Tensor:
        """[n, 3, *size] in (0.05, 0.95): the same blotches with fine noise at every call."""
        generator = keyed_generator(0, 0, "testing/images")
        blotches = torch.rand(n, 3, 4, 4, generator=generator, dtype=torch.float64)
        noise = torch.rand(n, 3, *size, generator=generator, dtype=torch.float64)
        smooth = nn.functional.interpolate(blotches, size, mode="bilinear", align_corners=False)
        return (0.05 + 0.9 * (0.75 * smooth + 0.25 * noise)).to(self.device, dtype)


def error(found: Tensor, wanted: Tensor) -> float:
    """|found - wanted| / |wanted| in the Euclidean norm; infinite if the shapes differ."""
    if found.shape != wanted.shape:
        return float("inf")
    found, wanted = found.double(), wanted.double()
    scale = float(wanted.norm())
    return float((found - wanted).norm()) / (scale or 1.0)


def slope_error(
    function: Callable[[Tensors], Tensor], gradient: Tensors, x: Tensors, steps: Sequence[float], directions: int = 3
) -> float:
    """Median difference of a gradient from central differences along random directions, relative to its norm.

    The step with the smallest error counts. Differences across the kinks of clamps and rectifiers are off, and shorter
    steps cross fewer; a wrong gradient is wrong at every step.

    Args:
        function: x -> losses, whose sum has the gradient `gradient`.
        gradient: by name, as x.
        x: the point.
        steps: step lengths of the differences, along directions with elements of variance 1.
        directions: number of random directions.
    """
    generator = torch.Generator().manual_seed(5)
    norm = float(torch.cat([g.double().flatten() for g in gradient.values()]).norm())
    ways = [
        {name: torch.randn(v.shape, generator=generator, dtype=v.dtype).to(v.device) for name, v in x.items()}
        for _ in range(directions)
    ]
    best = float("inf")
    for step in steps:
        errors = []
        for way in ways:
            with torch.no_grad():
                above = function({name: v + step * way[name] for name, v in x.items()}).double().sum()
                below = function({name: v - step * way[name] for name, v in x.items()}).double().sum()
            slope = sum(float((gradient[name].double() * way[name].double()).sum()) for name in x)
            errors.append(abs(float(above - below) / (2 * step) - slope) / (norm or 1.0))
        best = min(best, sorted(errors)[directions // 2])
        if best < SLOPE_ERROR:
            break
    return best


def precision(case: Case, answer: Callable[[torch.dtype], Tensor]) -> tuple[torch.dtype, tuple[float, ...], float]:
    """(dtype, steps, allowed error) for central differences: in float64 if the plugin supports it.

    `answer` returns the plugin's result in a dtype. A plugin that fails in float64, or returns float32, is measured in
    float32 with a coarse step.
    """
    try:
        if answer(torch.float64).dtype == torch.float64:
            return torch.float64, STEPS, SLOPE_ERROR
    except Failed:
        raise
    except Exception:  # libraries without float64 raise errors of any type; the check goes on in float32
        case._loaded.pop(torch.float64, None)
    return torch.float32, (1e-2,), 0.2


@contextmanager
def global_randomness_untouched(where: str) -> Iterator[None]:
    """Fails if Python's, numpy's or torch's global generator was used."""

    def states() -> dict[str, Any]:
        found: dict[str, Any] = {"random": random.getstate(), "numpy.random": repr(np.random.get_state())}
        found["torch"] = torch.get_rng_state().tolist()
        if torch.cuda.is_available():
            found["torch.cuda"] = [state.tolist() for state in torch.cuda.get_rng_state_all()]
        return found

    before = states()
    yield
    moved = [name for name, state in states().items() if state != before[name]]
    require(
        not moved,
        f"{where} drew from the global generator of {', '.join(moved)}; draw from the given rng, or from a "
        "generator of the plugin's own, so that a sample depends on its seed alone",
    )


def tensors_of(owner: Any) -> Tensors:
    """Path -> tensor, for all that an object holds in attributes, modules, lists and dicts."""
    return {path: value for path, value in _walk(owner) if isinstance(value, Tensor)}


def modules_of(owner: Any) -> dict[str, nn.Module]:
    """Path -> torch module, for all that an object holds, without submodules."""
    return {path: value for path, value in _walk(owner) if isinstance(value, nn.Module)}


def _walk(owner: Any, path: str = "", depth: int = 6, seen: set[int] | None = None) -> Iterator[tuple[str, Any]]:
    seen = set() if seen is None else seen
    if id(owner) in seen or depth < 0 or isinstance(owner, (str, bytes, int, float, type, type(random), np.ndarray)):
        return
    seen.add(id(owner))
    if isinstance(owner, Tensor):
        yield path, owner
        return
    if isinstance(owner, nn.Module):
        yield path, owner
        inner = [*owner.named_parameters(), *owner.named_buffers()]
        yield from ((f"{path}.{name}", value) for name, value in inner)
        return
    if isinstance(owner, Mapping):
        items = [(f"{path}[{key!r}]", value) for key, value in list(owner.items())]
    elif isinstance(owner, (list, tuple, set, frozenset)):
        items = [(f"{path}[{i}]", value) for i, value in enumerate(owner)]
    else:
        items = [(f"{path}.{name}".lstrip("."), value) for name, value in getattr(owner, "__dict__", {}).items()]
    for name, value in items:
        yield from _walk(value, name, depth - 1, seen)
