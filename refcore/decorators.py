"""`@refcore.referee` and `@refcore.prior`: a function of images, checked, as a plugin class."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, get_type_hints

import torch
from pydantic import create_model
from torch import Tensor

from refcore.contracts.canvas import Canvas
from refcore.contracts.conditioning import Conditioning
from refcore.contracts.prior import Prior
from refcore.contracts.referee import Referee
from refcore.errors import RefcoreError
from refcore.plugin import PluginConfig
from refcore.rng import Rng

EPS = 1e-8
"""Added inside the logarithm of a probability."""
Function = Callable[..., Tensor]


class _Function:
    """What both have: the function, which of the given arguments it takes, and the check of what it returns."""

    function: ClassVar[Function]
    takes: ClassVar[frozenset[str]]
    config: Any

    def _ask(self, images: Tensor, **given: Any) -> Tensor:
        """[N] of images [N, ...], by the function with this plugin's settings."""
        settings = {field: getattr(self.config, field) for field in type(self.config).model_fields}
        known = {name: value for name, value in given.items() if name in self.takes}
        value: Any = type(self).function(images, **known, **settings)
        where = f"the function {self.function.__qualname__} ({self.function.__module__})"
        if not isinstance(value, Tensor):
            raise RefcoreError(f"{where} returned {type(value).__name__}; expected a tensor [N], one number an image")
        if value.shape != (len(images),):
            raise RefcoreError(
                f"{where} returned the shape {list(value.shape)} for images {list(images.shape)}; "
                f"expected [{len(images)}], one number an image: take the mean over all other dimensions"
            )
        if not value.is_floating_point():
            raise RefcoreError(f"{where} returned {value.dtype}; expected floats, which have a gradient")
        if value.device != images.device:
            raise RefcoreError(f"{where} returned a tensor on {value.device}; its images are on {images.device}")
        if torch.is_grad_enabled() and images.requires_grad and not value.requires_grad:
            raise RefcoreError(
                f"{where} lost the gradient of its images; no detach, item, numpy, round or comparison on the way"
            )
        return value.to(torch.promote_types(value.dtype, torch.float32))


class FunctionReferee(_Function, Referee):
    """A referee that is one function of views and prompts; made by `referee`."""

    returns: ClassVar[Literal["loss", "probability"]]
    side: ClassVar[tuple[int, int]]

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype, self.input_size = device, dtype, self.side

    def read(self, prompts: Sequence[str]) -> Conditioning:
        return Conditioning(tuple(prompts))

    def judge(self, views: Tensor, conditioning: Conditioning, prompt_index: Tensor, wanted: bool = True) -> Tensor:
        prompts = [conditioning.prompts[row] for row in prompt_index.tolist()]
        if self.returns == "probability":
            p = self._probability(views, prompts)
            return -torch.log((p if wanted else 1 - p) + EPS)
        if not wanted and "wanted" not in self.takes:
            raise RefcoreError(
                f'referee "{self.name}" has a loss without a negated question, so wanted: false and subtracting it are '
                'not possible; let its function take `wanted`, or return a probability (returns="probability")'
            )
        return self._ask(views, prompts=prompts, wanted=wanted)

    @torch.no_grad()
    def score(self, images: Tensor, conditioning: Conditioning) -> Tensor:
        """The probability, or the negated loss."""
        prompts = list(conditioning.prompts)
        if self.returns == "probability":
            return self._probability(images, prompts)
        return -self._ask(images, prompts=prompts, wanted=True)

    def _probability(self, views: Tensor, prompts: list[str]) -> Tensor:
        p = self._ask(views, prompts=prompts)
        if ((p < 0) | (p > 1)).any():
            low, high = p.detach().aminmax()
            raise RefcoreError(
                f'referee "{self.name}" returns probabilities, but gave {float(low):g} to {float(high):g}; '
                'expected 0 to 1, or returns="loss"'
            )
        return p


class FunctionPrior(_Function, Prior):
    """A prior that is the loss of images or latents; made by `prior`."""

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """Nothing to load."""

    def accept(self, canvas: Canvas) -> None:
        """Raises RefcoreError where it needs latents and the canvas has none."""
        if self.space == "latent" and canvas.latent_space is None:
            raise RefcoreError(f'prior "{self.name}" works on latents, and canvas "{canvas.name}" has none')

    def gradient(self, x: Tensor, conditioning: Conditioning, step: int, rng: Rng) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = x.detach().to(torch.promote_types(x.dtype, torch.float32)).requires_grad_()
            value = self._ask(x, prompts=list(conditioning.prompts), step=step, rng=rng)
            (gradient,) = torch.autograd.grad(value.sum(), x)
        return gradient, value.detach()


def referee(
    function: Function | None = None,
    /,
    *,
    name: str | None = None,
    input_size: int | tuple[int, int] = 224,
    returns: Literal["loss", "probability"] = "loss",
    bounded_above: bool = False,
) -> Any:
    """Makes a referee class of a function `(views, ...) -> [N]`; views are [N, 3, H, W] in [0, 1].

    The function may also take `prompts`, a list of N strings, and `wanted` (see `Referee.judge`). Its other arguments
    need defaults: they are the settings, the fields of the config.

    Args:
        function: differentiable in the views; each number depends on its own view alone.
        name: what configs call it; by default the function's name.
        input_size: (height, width) in pixels of the views, or the side of a square.
        returns: loss: lower is a better match. probability: of a match, in [0, 1]; the loss is -log p, and
            -log(1 - p) with `wanted: false`.
        bounded_above: whether the loss has an upper bound, so that a negative weight makes sense.

    Raises:
        RefcoreError: the function's signature does not fit; and, when it is called, what it returned.

    Example:
        >>> import refcore
        >>> @refcore.referee(input_size=64)
        ... def redness(views, *, target: float = 0.8):
        ...     return (views[:, 0].mean((1, 2)) - target).square()
        >>> print(2 * redness(target=0.5) + redness)
        2 redness(target=0.5) + 1 redness
    """
    if function is None:
        options: Any = {"name": name, "input_size": input_size, "returns": returns, "bounded_above": bounded_above}
        return lambda f: referee(f, **options)
    side = (input_size, input_size) if isinstance(input_size, int) else tuple(input_size)
    unit = "probability" if returns == "probability" else "negative loss"
    attributes = {"returns": returns, "side": side, "bounded_above": bounded_above, "score_unit": unit}
    given = {"prompts", "wanted"} if returns == "loss" else {"prompts"}
    return _plugin(FunctionReferee, function, name, given, attributes)


def prior(
    function: Function | None = None,
    /,
    *,
    name: str | None = None,
    space: Literal["image", "latent"] = "image",
) -> Any:
    """Makes a prior class of a function `(x, ...) -> [B]`, a loss whose gradient is taken.

    The function may also take `prompts`, a list of B strings, `step`, counted from 0, and `rng`, a `refcore.Rng`. Its
    other arguments need defaults: they are the settings, the fields of the config.

    Args:
        function: differentiable in x; each number depends on its own sample alone.
        name: what configs call it; by default the function's name.
        space: image: x is the decoded image [B, 3, H, W] in [0, 1]. latent: x is the canvas's scaled latent.

    Raises:
        RefcoreError: the function's signature does not fit; and, when it is called, what it returned.

    Example:
        >>> import refcore
        >>> @refcore.prior
        ... def dimness(images, *, target: float = 0.5):
        ...     return (images.mean((1, 2, 3)) - target).square()
        >>> dimness(target=0.4)
        dimness(target=0.4)
    """
    if function is None:
        options: Any = {"name": name, "space": space}
        return lambda f: prior(f, **options)
    return _plugin(FunctionPrior, function, name, {"prompts", "step", "rng"}, {"space": space})


def _plugin(
    base: type[Any], function: Function, name: str | None, given: set[str], attributes: Mapping[str, Any]
) -> type[Any]:
    if not callable(function) or inspect.isclass(function):
        raise RefcoreError(f"{function!r} is no function; the decorator goes on one, its options in brackets")
    fields, takes = _settings(function, given)
    config = create_model(
        "Config", __base__=PluginConfig, __module__=function.__module__, __doc__="The function's settings.", **fields
    )
    body = {
        "function": staticmethod(function),
        "takes": frozenset(takes),
        "Config": config,
        "name": name or function.__name__,
        "__module__": function.__module__,
        "__qualname__": function.__qualname__,
        "__doc__": function.__doc__,
        **attributes,
    }
    made: Any = type(base)
    return made(function.__name__, (base,), body)


def _settings(function: Function, given: set[str]) -> tuple[dict[str, Any], set[str]]:
    """The function's own settings as fields of a pydantic model, and which of the `given` arguments it takes."""
    arguments = list(inspect.signature(function).parameters.values())
    images, others = (arguments[0] if arguments else None), arguments[1:]
    if images is None or images.kind not in (images.POSITIONAL_ONLY, images.POSITIONAL_OR_KEYWORD):
        raise RefcoreError(f"the function {function.__qualname__} takes no images; expected them as its first argument")
    try:
        hints = get_type_hints(function, include_extras=True)
    except NameError:  # a type that only its author's scope knows
        hints = {}
    fields: dict[str, Any] = {}
    for parameter in others:
        if parameter.name in given:
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or parameter.default is parameter.empty:
            raise RefcoreError(
                f'the argument "{parameter}" of the function {function.__qualname__} has no default; expected one '
                f"(it is a setting then), or one of {', '.join(sorted(given))}"
            )
        kind = hints.get(parameter.name, type(parameter.default) if parameter.default is not None else Any)
        fields[parameter.name] = (kind, parameter.default)
    return fields, {parameter.name for parameter in others} & given
