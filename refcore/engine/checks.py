"""Calls of plugins, checked: each error names the plugin, its method, the rule, and what came instead.

Types, shapes, dtypes, devices, gradients and changed inputs are checked at every call, without waiting for the device.
Values, and the global generators, are checked at the first call of a method that succeeds.
"""

from __future__ import annotations

import inspect
import random
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final

import torch
from torch import Tensor

from refcore import registry
from refcore.contracts.augmentation import Augmentation, Draws, Params
from refcore.contracts.canvas import Canvas, CanvasParams, PromptedCanvas
from refcore.contracts.conditioning import Conditioning
from refcore.contracts.parser import ParsedPrompt, Parser, Phrase, Relation
from refcore.contracts.prior import Prior
from refcore.contracts.referee import Referee
from refcore.contracts.transform import Transform
from refcore.engine.memory import is_out_of_memory
from refcore.errors import ContractError, RefcoreError, shortened
from refcore.images import BESIDE
from refcore.moment import Moment
from refcore.plugin import SINGULAR, Plugin
from refcore.rng import Deferred, Rng

OVERSHOOT: Final = 1e-3
"""Distance from [0, 1] that a decoded colour may have at most."""
_CHECKED: Final = "_methods_checked"
"""Attribute of a plugin: its methods whose values have been checked."""
CALL: Final = "call_of_a_plugin"
"""Attribute of an error that says that memory is short: the call that it came from."""
_working: dict[int, list[str]] = {}
"""Thread -> the calls of plugins that it is in, the innermost last."""


def working(thread: int) -> str | None:
    """The plugin's call that a thread is in, `referee "clip" (judge)`, or None."""
    calls = _working.get(thread)
    return calls[-1] if calls else None


class Call:
    """One call of a plugin's method, as a context in which an exception gets the names of both.

    What is meant for users, lack of memory and Ctrl-C pass as they are; SystemExit does not.
    """

    def __init__(
        self,
        plugin: Plugin,
        method: str,
        label: str = "",
        inputs: Mapping[str, Tensor] | None = None,
        draws: bool = False,
    ) -> None:
        """Nothing is called yet.

        Args:
            plugin: whose method it is.
            method: its name.
            label: of the term; "" where there is none.
            inputs: tensors that the method must leave as they are, by names for the message.
            draws: whether the global generators are looked at. Never outside the main thread, since that one may draw
                meanwhile.
        """
        self.plugin, self.method, self.inputs = plugin, method, dict(inputs or {})
        kind = SINGULAR[plugin.kind] if plugin.kind else "plugin"
        name = plugin.name or type(plugin).__name__
        self.subject = f'{kind} "{name}"' + (f' of "{label}"' if label not in ("", name) else "") + f" ({method})"
        self.first = method not in vars(plugin).get(_CHECKED, ())
        self._draws = draws and self.first and threading.current_thread() is threading.main_thread()

    def refuse(self, rule: str) -> ContractError:
        """An error about this call, to be raised."""
        return ContractError(f"{self.subject} {rule}")

    def __enter__(self) -> Call:
        _working.setdefault(threading.get_ident(), []).append(self.subject)
        self._versions = {name: _version(tensor) for name, tensor in self.inputs.items()}
        self._before = {name: tensor.detach().clone() for name, tensor in self.inputs.items()} if self.first else {}
        self._generators = _generators() if self._draws else []
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        thread = threading.get_ident()
        _working[thread].pop()
        if not _working[thread]:
            del _working[thread]
        if error is None:
            self._inputs_unchanged()
            if self.first:
                vars(self.plugin).setdefault(_CHECKED, set()).add(self.method)
            return
        if is_out_of_memory(error):
            error.__dict__.setdefault(CALL, self.subject)
            return
        if isinstance(error, RefcoreError) or not isinstance(error, (Exception, SystemExit)):
            return
        said = shortened(" ".join(str(error).split()), 300)
        what = f"{type(error).__name__}: {said}".removesuffix(": ")
        raise ContractError(f"{self.subject} failed with {what}") from error

    def _inputs_unchanged(self) -> None:
        for name, tensor in self.inputs.items():
            if _version(tensor) != self._versions[name] or (
                self.first and not _equal(tensor.detach(), self._before[name])
            ):
                raise self.refuse(f"changed its {name} in place; work on a copy (clone), and avoid `+=` and `mul_`")
        if self._draws:
            for (name, before), (_, after) in zip(self._generators, _generators(), strict=True):
                if before != after:
                    remedy = "use the rng that it is given" if "rng" in _arguments(self.method) else "call eval()"
                    raise self.refuse(
                        f"drew from the global generator of {name}, so that no run repeats; {remedy} instead"
                    )

    def takes(self, *arguments: Any) -> None:
        """Refuses a method that cannot be called with these arguments, as one of an older version of the contract."""
        if not self.first:
            return
        if not fits(getattr(self.plugin, self.method), arguments):
            kind = registry.kind_of(type(self.plugin))
            expected = list(inspect.signature(getattr(registry.contract(kind), self.method)).parameters)[1:]
            found = inspect.signature(getattr(self.plugin, self.method))
            raise self.refuse(f"takes {found}; expected ({', '.join(expected)}), where `at` is a refcore.Moment")

    def tensor(
        self, value: Any, shape: Sequence[int | None], what: str, like: Tensor | torch.device, dtype: bool = False
    ) -> Tensor:
        """The value, which must be a floating-point tensor of a shape (None: any length) on the device of `like`.

        Args:
            value: what the method returned.
            shape: expected.
            what: it holds, for the message: "one loss per view".
            like: a tensor or device; the value must be on that device.
            dtype: whether the dtype must be that of `like`, too.
        """
        expected = f"expected a tensor {_shape(shape)}, {what}"
        if not isinstance(value, Tensor):
            raise self.refuse(f"returned {_kind(value)}; {expected}")
        if value.dim() != len(shape) or any(n not in (None, m) for n, m in zip(shape, value.shape, strict=True)):
            raise self.refuse(f"returned a tensor {list(value.shape)}; {expected}")
        if not value.is_floating_point():
            raise self.refuse(f"returned {_dtype(value)}; expected a floating-point dtype such as float32")
        device = like.device if isinstance(like, Tensor) else like
        if value.device != device and value.device.type != device.type:
            raise self.refuse(f"returned a tensor on {value.device}; its inputs are on {device}")
        if dtype and isinstance(like, Tensor) and value.dtype != like.dtype:
            raise self.refuse(f"returned {_dtype(value)} for {_dtype(like)}; expected the same dtype")
        return value

    def differentiable(self, value: Tensor, inputs: Sequence[Tensor], what: str) -> None:
        """Refuses a value without a graph where one is recorded for its inputs."""
        if torch.is_grad_enabled() and not value.requires_grad and any(tensor.requires_grad for tensor in inputs):
            raise self.refuse(
                f"lost the gradient of its {what}; remove detach, no_grad, item, numpy, round and comparisons"
            )

    def detached(self, value: Tensor, what: str) -> None:
        """Refuses a value that holds on to its graph."""
        if value.requires_grad:
            raise self.refuse(f"returned {what} that requires a gradient; expected it detached: detach() it")

    def tensors(self, value: Any, rows: int, what: str) -> None:
        """Refuses what is not a mapping of names to floating-point tensors with a number of rows."""
        if not isinstance(value, Mapping) or not value:
            raise self.refuse(f"returned {_kind(value)}; expected a dict of tensors [{rows}, ...], {what}")
        for name, tensor in value.items():
            if not isinstance(name, str):
                raise self.refuse(f"returned a dict with the key {name!r}; expected names (str)")
            if not isinstance(tensor, Tensor):
                raise self.refuse(f'returned {_kind(tensor)} as "{name}"; expected a tensor [{rows}, ...], {what}')
            if tensor.shape[:1] != (rows,):
                raise self.refuse(f'returned "{name}" {list(tensor.shape)}; expected {rows} rows, {what}')
            if not tensor.is_floating_point():
                raise self.refuse(f'returned "{name}" in {_dtype(tensor)}; expected float32')


def fits(method: Callable[..., Any], arguments: Sequence[Any]) -> bool:
    """Whether a method can be called with these arguments by place, none of which it calls `step` as in version 1."""
    signature = inspect.signature(method)
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return "step" not in signature.parameters


@contextmanager
def backward(plugin: Plugin, method: str, label: str = "") -> Iterator[Call]:
    """The backward pass of what a method returned; errors name both."""
    with Call(plugin, f"backward of {method}", label) as call:
        yield call


def gradient_of(plugin: Plugin, method: str, value: Tensor, at: Tensor, label: str = "", **options: Any) -> Tensor:
    """The gradient of what a plugin's method gave, at a tensor; `options` of `torch.autograd.grad`."""
    with backward(plugin, method, label) as call:
        (gradient,) = torch.autograd.grad(value, at, allow_unused=True, **options)
        if gradient is None:
            raise call.refuse("found no gradient: the value does not depend on the images that it was given")
    return gradient


def created(create: Callable[[], Any], what: str) -> Any:
    """A new plugin; errors of its constructor name it."""
    try:
        return create()
    except RefcoreError:
        raise
    except (Exception, SystemExit) as error:
        said = shortened(" ".join(str(error).split()), 300)
        raise ContractError(f"{what} cannot be made: {type(error).__name__}: {said}".removesuffix(": ")) from error


def load_referee(referee: Referee, device: torch.device, dtype: torch.dtype, label: str = "") -> None:
    """Loads a referee, which must set `input_size` and `dtype`."""
    with Call(referee, "load", label) as call:
        referee.load(device, dtype)
        _side(call, "input_size")
        if not isinstance(getattr(referee, "dtype", None), torch.dtype):
            raise call.refuse(f"left dtype as {getattr(referee, 'dtype', None)!r}; expected a torch.dtype")


def load_canvas(canvas: Canvas, device: torch.device, dtype: torch.dtype, size: tuple[int, int] | None) -> None:
    """Loads a canvas, which must set `size`."""
    with Call(canvas, "load") as call:
        canvas.load(device, dtype, size)
        _side(call, "size")
        if size is not None and tuple(canvas.size) != tuple(size):
            raise call.refuse(f"set size to {canvas.size}; expected {size}, as asked for, or an error")


def read(reader: Referee | Prior | PromptedCanvas, prompts: Sequence[str], label: str = "") -> Conditioning:
    """The conditioning of P prompts, one row of every tensor for each."""
    with Call(reader, "read", label) as call:
        found: Any = reader.read(prompts)
        if not isinstance(found, Conditioning):
            raise call.refuse(f"returned {_kind(found)}; expected a refcore.Conditioning")
        if list(found.prompts) != list(prompts):
            raise call.refuse(f"returned the prompts {list(found.prompts)}; expected {list(prompts)}")
        for name, tensor in found.tensors.items():
            if not isinstance(tensor, Tensor):
                raise call.refuse(f'returned {_kind(tensor)} as "{name}"; expected a tensor [{len(prompts)}, ...]')
            if tensor.shape[:1] != (len(prompts),):
                raise call.refuse(
                    f'returned "{name}" {list(tensor.shape)}; expected {len(prompts)} rows, one per prompt'
                )
            if tensor.requires_grad:
                raise call.refuse(f'returned "{name}" that requires a gradient; read under torch.no_grad()')
        for name, texts in (("truncated", found.truncated), ("notes", found.notes)):
            if len(texts) not in (0, len(prompts)) or not all(isinstance(text, str) for text in texts):
                raise call.refuse(f"returned {name} {texts!r}; expected one string per prompt, or none at all")
    return found


def judge(
    referee: Referee,
    views: Tensor,
    conditioning: Conditioning,
    prompt_index: Tensor,
    wanted: bool,
    label: str = "",
    beside: Tensor | None = None,
) -> Tensor:
    """[N] losses of views [N, 3, H, W]; see `Referee.judge`, and `Referee.judge_beside` where a picture is beside."""
    inputs = {f'conditioning "{name}"': tensor for name, tensor in conditioning.tensors.items()}
    with Call(referee, "judge", label, {"views": views, **inputs}, draws=True) as call:
        found = (
            referee.judge(views, conditioning, prompt_index, wanted)
            if beside is None
            else referee.judge_beside(views, beside, conditioning, prompt_index, wanted)
        )
        loss = call.tensor(found, (len(views),), "one loss per view", views)
        call.differentiable(loss, [views], "views")
    return loss


def score(referee: Referee, images: Tensor, conditioning: Conditioning, label: str = "") -> Tensor:
    """[B] scores of images [B, 3, H, W]; see `Referee.score`."""
    with Call(referee, "score", label, {"images": images}) as call:
        found = referee.score(images, conditioning)
        return call.tensor(found, (len(images),), "one score per image", images).detach()


def gradient(
    prior: Prior, x: Any, conditioning: Conditioning, at: Moment, rng: Rng, label: str = ""
) -> tuple[Any, Tensor | None]:
    """The gradient and value of a prior; see `Prior.gradient`."""
    named: dict[str, Tensor] = x if isinstance(x, dict) else {"x": x}
    with Call(prior, "gradient", label, _parameters(named), draws=True) as call:
        call.takes(x, conditioning, at, rng)
        found: Any = prior.gradient(x, conditioning, at, rng)
        if not isinstance(found, tuple) or len(found) != 2:
            raise call.refuse(f"returned {_kind(found)}; expected a pair: the gradient, and the value [B] or None")
        slope, value = found
        if isinstance(x, dict):
            if not isinstance(slope, Mapping):
                raise call.refuse(f"returned {_kind(slope)} as the gradient; expected a dict by names of parameters")
            if others := sorted(set(slope) - set(x), key=str):
                raise call.refuse(f"returned a gradient of {others[0]!r}; known: {', '.join(sorted(x))}")
        for name, part in slope.items() if isinstance(x, dict) else [("x", slope)]:
            call.tensor(part, named[name].shape, f"the gradient of its {name}", named[name])
            call.detached(part, "a gradient")
        if value is not None:
            rows = len(next(iter(named.values())))
            call.detached(call.tensor(value, (rows,), "one value per sample", next(iter(named.values()))), "a value")
    return slope, value


def transform(plugin: Transform, x: CanvasParams, before: CanvasParams, at: Moment) -> CanvasParams:
    """`x` changed, with its names, shapes and dtypes; see `Transform.apply`."""
    inputs = {**_parameters(x), **{f'"{name}" before the update': value for name, value in before.items()}}
    with Call(plugin, "apply", "", inputs, draws=True) as call:
        call.takes(x, before, at)
        found: Any = plugin.apply(x, before, at)
        if not isinstance(found, Mapping) or set(found) != set(x):
            what = f"the keys {sorted(found, key=str)}" if isinstance(found, Mapping) else _kind(found)
            raise call.refuse(f"returned {what}; expected a dict with the keys {sorted(x)}")
        for name, value in found.items():
            call.detached(call.tensor(value, x[name].shape, f'"{name}" changed', x[name], dtype=True), f'"{name}"')
    return {name: found[name] for name in x}


def encode(prior: Prior, images: Tensor, label: str = "") -> Tensor:
    """Scaled latents [B, C, h, w] of images; see `Prior.encode`."""
    with Call(prior, "encode", label, {"images": images}) as call:
        found = prior.encode(images)
        latents = call.tensor(found, (len(images), None, None, None), "one latent per image", images)
        call.differentiable(latents, [images], "images")
    return latents


def sample(
    prior: Prior,
    shape: Sequence[int],
    conditioning: Conditioning,
    rng: Rng,
    settings: tuple[int, float, Tensor | None, float],
    label: str = "",
) -> Tensor:
    """[B, *shape] latents; `settings` are steps, guidance, around and strength of `Prior.sample`."""
    around = {} if settings[2] is None else {"around": settings[2]}
    with Call(prior, "sample", label, around, draws=True) as call:
        found = prior.sample(shape, conditioning, rng, *settings)
        return call.tensor(found, (rng.n, *shape), "one latent per sample", rng.device).detach()


def update(prior: Prior, x: Any, conditioning: Conditioning, at: Moment, rng: Rng, label: str = "") -> None:
    """One training step of a prior that learns; see `Prior.update`."""
    with Call(prior, "update", label, _parameters(x if isinstance(x, dict) else {"x": x}), draws=True) as call:
        call.takes(x, conditioning, at, rng)
        prior.update(x, conditioning, at, rng)


def init(canvas: Canvas, rng: Rng) -> CanvasParams:
    """New parameters, one row per sample of the rng; see `Canvas.init`."""
    with Call(canvas, "init", draws=True) as call:
        params = canvas.init(rng)
        _start(call, params, rng.n)
    return params


def encode_image(canvas: Canvas, images: Tensor) -> CanvasParams:
    """Parameters that decode to images; see `Canvas.encode`."""
    with Call(canvas, "encode", inputs={"images": images}) as call:
        params = canvas.encode(images)
        _start(call, params, len(images))
    return params


def open_document(canvas: Canvas, text: str) -> CanvasParams:
    """Parameters of one sample that show a document; see `Canvas.open`."""
    with Call(canvas, "open") as call:
        params = canvas.open(text)
        _start(call, params, 1)
    return params


def files(canvas: Canvas, params: CanvasParams) -> list[dict[str, str]]:
    """[B] what is written beside each picture, ending -> text; see `Canvas.files`."""
    with Call(canvas, "files", inputs=_parameters(params)) as call:
        found: Any = canvas.files(params)
        rows = len(next(iter(params.values())))
        if not isinstance(found, Sequence) or len(found) != rows or not all(isinstance(own, Mapping) for own in found):
            raise call.refuse(f"returned {_kind(found)}; expected a list of {rows} dicts, one per sample")
        for own in found:
            for ending, text in own.items():
                if ending not in BESIDE:
                    raise call.refuse(f"returned a file {ending!r}; expected one of {', '.join(BESIDE)}")
                if not isinstance(text, str):
                    raise call.refuse(f"returned {_kind(text)} as the file {ending!r}; expected a text")
    return [dict(own) for own in found]


def decode(
    canvas: Canvas,
    params: CanvasParams,
    at: Moment,
    conditioning: Conditioning | None = None,
    rng: Rng | None = None,
) -> Tensor:
    """[B, 3, H, W] in [0, 1]; see `Canvas.decode`, and for `conditioning` and `rng` `PromptedCanvas.decode`."""
    given = (params, at, conditioning, rng) if canvas.reads_prompts else (params, at)
    with Call(canvas, "decode", inputs=_parameters(params), draws=True) as call:
        call.takes(*given)
        some = next(iter(params.values()))
        shape = (len(some), 3, *canvas.size)
        image = call.tensor(canvas.decode(*given), shape, "colours in [0, 1]", some)
        call.differentiable(image, list(params.values()), "parameters")
        if call.first:
            low, high = (float(bound) for bound in image.detach().aminmax())
            if low < -OVERSHOOT or high > 1 + OVERSHOOT:
                raise call.refuse(f"returned colours from {low:.3g} to {high:.3g}; expected [0, 1]: clamp, or sigmoid")
    return image


def draw(augmentation: Augmentation, size: tuple[int, int], rng: Rng, at: Moment) -> Draws:
    """Parameters of all N views; see `Augmentation.draw`."""
    with Call(augmentation, "draw", draws=True) as call:
        call.takes(size, rng, at)
        draws: Any = augmentation.draw(size, rng, at)
        if not isinstance(draws, Mapping):
            raise call.refuse(f"returned {_kind(draws)}; expected a dict of tensors [{rng.n}, ...], one row per view")
        for name, value in draws.items():
            if not isinstance(value, (Tensor, Deferred)):
                raise call.refuse(f'returned {_kind(value)} as "{name}"; expected a tensor, or rng.deferred_normal')
            rows = value.shape[:1] if isinstance(value, Tensor) else (len(value),)
            if rows != (rng.n,):
                shape = list(value.shape) if isinstance(value, Tensor) else list(rows)
                raise call.refuse(f'returned "{name}" {shape}; expected {rng.n} rows, one per view')
            if value.device.type != rng.device.type:
                raise call.refuse(f'returned "{name}" on {value.device}; expected {rng.device}, the device of the rng')
    found: Draws = draws
    return found


def matrix(augmentation: Augmentation, params: Params, n: int, device: torch.device) -> Tensor:
    """[n, 3, 3] view -> source; see `Augmentation.matrix`."""
    with Call(augmentation, "matrix", inputs=_parameters(params), draws=True) as call:
        return call.tensor(augmentation.matrix(params), (n, 3, 3), "one matrix per view", device)


def apply(augmentation: Augmentation, views: Tensor, params: Params) -> Tensor:
    """Views of the same shape; see `Augmentation.apply`."""
    with Call(augmentation, "apply", inputs={"views": views, **_parameters(params)}, draws=True) as call:
        found = call.tensor(augmentation.apply(views, params), views.shape, "views as it was given", views, dtype=True)
        call.differentiable(found, [views], "views")
    return found


def parse(parser: Parser, prompt: str) -> ParsedPrompt:
    """The things and relations of a prompt; see `Parser.parse`."""
    with Call(parser, "parse") as call:
        found: Any = parser.parse(prompt)
        if not isinstance(found, ParsedPrompt):
            raise call.refuse(f"returned {_kind(found)}; expected a refcore.ParsedPrompt")
        if found.prompt != prompt:
            raise call.refuse(f'returned the parts of "{found.prompt}"; expected those of "{prompt}"')
        for name, parts, kind in (("things", found.things, Phrase), ("relations", found.relations, Relation)):
            wrong = [part for part in parts if not isinstance(part, kind)]
            if wrong:
                raise call.refuse(f"returned {_kind(wrong[0])} among its {name}; expected a refcore.{kind.__name__}")
        if silent := [thing for thing in found.things if not isinstance(thing.text, str) or not thing.text.strip()]:
            raise call.refuse(f"returned a thing with the text {silent[0].text!r}; expected a noun phrase")
    return found


def _start(call: Call, params: Any, rows: int) -> None:
    """Refuses parameters that a run cannot start from."""
    call.tensors(params, rows, "one row per sample")
    for name, value in params.items():
        if not bool(value.detach().isfinite().all()):
            raise call.refuse(f'returned NaN or infinity in "{name}"; expected finite numbers')
    canvas: Any = call.plugin
    latent = canvas.latent_name()
    if latent is not None and latent not in params:
        raise call.refuse(f'returned no "{latent}", which latent_name names; known: {", ".join(params)}')


def _side(call: Call, name: str) -> None:
    size = getattr(call.plugin, name, None)
    if (
        not isinstance(size, (tuple, list))
        or len(size) != 2
        or not all(isinstance(side, int) and side > 0 for side in size)
    ):
        raise call.refuse(f"left {name} as {size!r}; expected (height, width) in pixels")


def _parameters(params: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors under names that say what they are; others are left out."""
    return {
        name if name == "x" else f'tensor "{name}"': value
        for name, value in params.items()
        if isinstance(value, Tensor)
    }


def _version(tensor: Tensor) -> int:
    """Changes counted by torch; inference tensors, which cannot change, count none."""
    return -1 if tensor.is_inference() else tensor._version


def _equal(a: Tensor, b: Tensor) -> bool:
    return bool(((a == b) | ((a != a) & (b != b))).all())


def _generators() -> list[tuple[str, Any]]:
    """The states of the global generators, in values that compare."""
    states: list[tuple[str, Any]] = [("torch", torch.get_rng_state().tolist()), ("random", random.getstate())]
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        states.append(("torch.cuda", torch.cuda.get_rng_state().tolist()))
    if (numpy := sys.modules.get("numpy")) is not None:
        state = numpy.random.get_state()
        states.append(("numpy", (state[1].tobytes(), *state[2:])))
    return states


def _arguments(method: str) -> tuple[str, ...]:
    """`rng` for the methods that are given one."""
    return ("rng",) if method in ("gradient", "sample", "update", "init", "draw") else ()


def _kind(value: Any) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"


def _dtype(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _shape(shape: Sequence[int | None]) -> str:
    return "[" + ", ".join("any" if n is None else str(n) for n in shape) + "]"
