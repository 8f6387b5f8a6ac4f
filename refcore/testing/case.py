"""What a plugin is checked on: images, prompts, seeds and a device, and the measures that all checks share."""

from __future__ import annotations

import random
import unittest
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from refcore import registry
from refcore.contracts.canvas import Canvas, CanvasParams
from refcore.plugin import Plugin
from refcore.rng import Rng, keyed_generator

PROMPTS = ("a red circle", "a blue square left of a green star", "two dotted rings")
SEEDS: tuple[int, ...] = (11, 12, 13)
SIZE = (64, 64)
"""(height, width) of images for priors, and of views for augmentations, unless the author says otherwise."""
EXACT, ROUGH = 1e-7, 1e-3
"""Relative error that rounding may make between equal computations in another order, in float64 and in float32."""

STEPS = (1e-6, 1e-7, 1e-8)
"""Of central differences in float64, where colours are 0 to 1."""
SLOPE_ERROR = 1e-3
"""Of a gradient's norm, by which central differences in float64 may be off."""

Tensors = dict[str, Tensor]


class Failed(AssertionError):
    """A plugin breaks a rule of its contract; the message says which, where, and what would keep it."""


class NotApplicable(unittest.SkipTest):
    """A check that says nothing about this plugin; pytest reports it as skipped, with the reason."""


def require(holds: Any, told: str) -> None:
    """Raises `Failed` with `told` unless `holds`."""
    if not holds:
        raise Failed(told)


class Pixels(Canvas):
    """Pixels as they are: what priors are checked on where the author names no canvas."""

    name = "pixels"

    def load(self, device: torch.device, dtype: torch.dtype, size: tuple[int, int] | None = None) -> None:
        self.device, self.size = device, size or SIZE

    def init(self, rng: Rng) -> CanvasParams:
        return {"pixels": rng.uniform(0, 1, 3, *self.size).to(self.device)}

    def decode(self, params: CanvasParams) -> Tensor:
        return params["pixels"].clamp(0, 1)


@dataclass
class Case:
    """A plugin and what it is checked on. Loaded instances are kept, one a dtype."""

    plugin: Plugin
    """Not loaded; the checks make their own instances of its class and config, as a run does."""
    prompts: tuple[str, ...] = PROMPTS
    """At least two prompts that it can read."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    size: tuple[int, int] | None = None
    """(height, width) of a canvas, of a prior's images, of an augmentation's views; None for the usual one."""
    canvas: Canvas | None = None
    """For priors: what they act on. None is a canvas of pixels."""
    refused: Mapping[str, Any] = field(default_factory=dict)
    """Settings, one at a time, that must be refused with a useful error: a checkpoint that does not exist, say."""
    seconds: float | None = None
    """Longest time that a view may take, forward and backward."""
    megabytes: float | None = None
    """Most memory that a view may hold for its backward pass."""
    encode_error: float = 0.05
    """For canvases: the largest mean absolute error of an image that is encoded and decoded, colours being 0 to 1."""

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
        """A new instance, loaded where its kind has something to load."""
        plugin: Any = type(self.plugin)(self.plugin.config)
        if self.kind == "canvases":
            plugin.load(self.device, dtype, self.size)
        elif self.kind == "parsers":
            plugin.load()
        elif self.kind not in ("augmentations", "judges"):
            plugin.load(self.device, dtype)
        if self.kind == "priors":
            plugin.accept(self.on(dtype))
        return plugin

    def loaded(self, dtype: torch.dtype = torch.float32) -> Any:
        """The instance of a dtype, loaded once."""
        if dtype not in self._loaded:
            self._loaded[dtype] = self.fresh(dtype)
        return self._loaded[dtype]

    def on(self, dtype: torch.dtype = torch.float32) -> Canvas:
        """The loaded canvas that a prior acts on."""
        canvas = Pixels() if self.canvas is None else type(self.canvas)(self.canvas.config)
        canvas.load(self.device, dtype, self.size)
        return canvas

    def rng(self, count: int = 1, samples: slice = slice(None), step: int = 3) -> Rng:
        """The random numbers of three samples, or of some of them."""
        return Rng(SEEDS[samples], step, "testing", count, self.device)

    def images(self, size: tuple[int, int], n: int = len(SEEDS), dtype: torch.dtype = torch.float32) -> Tensor:
        """[n, 3, *size] in (0.05, 0.95): blotches with fine noise on them, always the same."""
        generator = keyed_generator(0, 0, "testing/images")
        blotches = torch.rand(n, 3, 4, 4, generator=generator, dtype=torch.float64)
        noise = torch.rand(n, 3, *size, generator=generator, dtype=torch.float64)
        smooth = nn.functional.interpolate(blotches, size, mode="bilinear", align_corners=False)
        return (0.05 + 0.9 * (0.75 * smooth + 0.25 * noise)).to(self.device, dtype)


def error(found: Tensor, wanted: Tensor) -> float:
    """|found - wanted| / |wanted|, in the Euclidean norm; infinite where the shapes differ."""
    if found.shape != wanted.shape:
        return float("inf")
    found, wanted = found.double(), wanted.double()
    scale = float(wanted.norm())
    return float((found - wanted).norm()) / (scale or 1.0)


def slope_error(
    function: Callable[[Tensors], Tensor], gradient: Tensors, x: Tensors, steps: Sequence[float], directions: int = 3
) -> float:
    """How far a gradient is from central differences along random directions: the median, relative to its norm.

    Of several steps the best counts. A step across the kinks of clamps and rectifiers sees another slope, and the
    shorter it is, the fewer it crosses; a wrong gradient is wrong at every step.

    Args:
        function: x -> losses; their sum is what `gradient` is the gradient of.
        gradient: by name, as x.
        x: where.
        steps: of the differences; directions have elements of variance 1.
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
            told = sum(float((gradient[name].double() * way[name].double()).sum()) for name in x)
            errors.append(abs(float(above - below) / (2 * step) - told) / (norm or 1.0))
        best = min(best, sorted(errors)[directions // 2])
        if best < SLOPE_ERROR:
            break
    return best


def precision(case: Case, answer: Callable[[torch.dtype], Tensor]) -> tuple[torch.dtype, tuple[float, ...], float]:
    """The dtype to take differences in, their steps, and the error to allow: float64 where it goes through.

    `answer` is what the plugin gives in a dtype. One that cannot be loaded in float64, or answers in float32, is
    measured with a coarse step.
    """
    try:
        if answer(torch.float64).dtype == torch.float64:
            return torch.float64, STEPS, SLOPE_ERROR
    except Failed:
        raise
    except Exception:  # a library without float64 says so in its own way; the check goes on in float32
        case._loaded.pop(torch.float64, None)
    return torch.float32, (1e-2,), 0.2


@contextmanager
def global_randomness_untouched(where: str) -> Iterator[None]:
    """Fails where Python's, numpy's or torch's own generator moved."""

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
        f"{where} drew from the global generator of {', '.join(moved)}; draw from the rng that is given, or from a "
        "generator of its own, so that a sample's path depends on its seed alone",
    )


def tensors_of(owner: Any) -> Tensors:
    """Every tensor that an object holds, by the path to it: in attributes, modules, lists and dicts."""
    return {path: value for path, value in _walk(owner) if isinstance(value, Tensor)}


def modules_of(owner: Any) -> dict[str, nn.Module]:
    """Every torch module that an object holds, those inside other modules left out."""
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
