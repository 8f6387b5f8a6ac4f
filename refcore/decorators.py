"""`@refcore.referee` and `@refcore.prior`: decorators that make a plugin class of a function of images."""

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
from refcore.moment import Moment
from refcore.plugin import PluginConfig
from refcore.rng import Rng

EPS = 1e-8
"""Added inside the logarithm of a probability."""
Function = Callable[..., Tensor]


class _Function:
    """The base of both: the function, the optional arguments that it takes, and checks of its values."""

    function: ClassVar[Function]
    takes: ClassVar[frozenset[str]]
    config: Any

    def _call(self, images: Tensor, **given: Any) -> Tensor:
        """The function's values [N] for images [N, ...], with this plugin's settings."""
        settings = {field: getattr(self.config, field) for field in type(self.config).model_fields}
        known = {name: value for name, value in given.items() if name in self.takes}
        value: Any = type(self).function(images, **known, **settings)
        where = f"the function {self.function.__qualname__} ({self.function.__module__})"
        if not isinstance(value, Tensor):
            raise RefcoreError(f"{where} returned {type(value).__name__}; expected a tensor [N], one number per image")
        if value.shape != (len(images),):
            raise RefcoreError(
                f"{where} returned a tensor {list(value.shape)} for images {list(images.shape)}; "
                f"expected [{len(images)}], one number per image: average over all other dimensions"
            )
        if not value.is_floating_point():
            raise RefcoreError(f"{where} returned {value.dtype}; expected a floating-point dtype")
        if value.device != images.device:
            raise RefcoreError(f"{where} returned a tensor on {value.device}; its images are on {images.device}")
        if torch.is_grad_enabled() and images.requires_grad and not value.requires_grad:
            raise RefcoreError(
                f"{where} lost the gradient of its images; remove detach, item, numpy, round and comparisons"
            )
        return value.to(torch.promote_types(value.dtype, torch.float32))


class FunctionReferee(_Function, Referee):
    """A referee made of one function by `referee`."""

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
                f'referee "{self.name}" has a loss without a negated question, so it cannot be subtracted or have '
                'wanted: false; let its function take `wanted`, or return a probability (returns="probability")'
            )
        return self._call(views, prompts=prompts, wanted=wanted)

    @torch.no_grad()
    def score(self, images: Tensor, conditioning: Conditioning) -> Tensor:
        """The probability, or the negated loss."""
        prompts = list(conditioning.prompts)
        if self.returns == "probability":
            return self._probability(images, prompts)
        return -self._call(images, prompts=prompts, wanted=True)

    def _probability(self, views: Tensor, prompts: list[str]) -> Tensor:
        p = self._call(views, prompts=prompts)
        if ((p < 0) | (p > 1)).any():
            low, high = p.detach().aminmax()
            raise RefcoreError(
                f'referee "{self.name}" returned values from {float(low):g} to {float(high):g} as probabilities; '
                'expected 0 to 1, or returns="loss"'
            )
        return p


class FunctionPrior(_Function, Prior):
    """A prior made of a loss of images or latents by `prior`."""

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """Nothing to load."""

    def accept(self, canvas: Canvas) -> None:
        """Raises RefcoreError if it needs latents and the canvas has none."""
        if self.space == "latent" and canvas.latent_space is None:
            raise RefcoreError(f'prior "{self.name}" works on latents, but canvas "{canvas.name}" has none')

    def gradient(self, x: Tensor, conditioning: Conditioning, at: Moment, rng: Rng) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = x.detach().to(torch.promote_types(x.dtype, torch.float32)).requires_grad_()
            value = self._call(x, prompts=list(conditioning.prompts), at=at, rng=rng)
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

    The function may also take `prompts`, a list of N strings, and, if it returns a loss, `wanted` (see
    `Referee.judge`). All other arguments need defaults; they become fields of the config.

    Args:
        function: differentiable in the views; each value depends on its own view alone.
        name: registered name; by default the function's name.
        input_size: (height, width) of the views in pixels, or the side of a square.
        returns: "loss", lower for a better match; or "probability" of a match, in [0, 1], whose loss is -log p, or
            -log(1 - p) with `wanted: false`.
        bounded_above: whether the loss has an upper bound, which permits a negative weight.

    Raises:
        RefcoreError: the function's signature does not fit; or, in a run, its values do not.

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
    """Makes a prior class of a loss `(x, ...) -> [B]`.

    The function may also take `prompts`, a list of B strings, `at`, a `refcore.Moment`, and `rng`, a `refcore.Rng`. All
    other arguments need defaults; they become fields of the config. One that is annotated as `refcore.Schedule` may be
    a number or a schedule, whose value is `at.of(argument)`.

    Args:
        function: differentiable in x; each value depends on its own sample alone.
        name: registered name; by default the function's name.
        space: "image", x is the decoded image [B, 3, H, W] in [0, 1]; or "latent", x is the canvas's scaled latent.

    Raises:
        RefcoreError: the function's signature does not fit; or, in a run, its values do not.

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
    return _plugin(FunctionPrior, function, name, {"prompts", "at", "rng"}, {"space": space})


def _plugin(
    base: type[Any], function: Function, name: str | None, given: set[str], attributes: Mapping[str, Any]
) -> type[Any]:
    if not callable(function) or inspect.isclass(function):
        raise RefcoreError(f"{function!r} is not a function; decorate a function, with options in parentheses")
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
    metaclass: Any = type(base)
    made: type[Any] = metaclass(function.__name__, (base,), body)
    return made


def _settings(function: Function, given: set[str]) -> tuple[dict[str, Any], set[str]]:
    """The function's settings as fields of a pydantic model, and the `given` arguments that it takes."""
    arguments = list(inspect.signature(function).parameters.values())
    images, others = (arguments[0] if arguments else None), arguments[1:]
    if images is None or images.kind not in (images.POSITIONAL_ONLY, images.POSITIONAL_OR_KEYWORD):
        raise RefcoreError(f"the function {function.__qualname__} takes no images; expected them as the first argument")
    try:
        hints = get_type_hints(function, include_extras=True)
    except NameError:  # an annotation that is local to another scope
        hints = {}
    fields: dict[str, Any] = {}
    for parameter in others:
        if parameter.name in given:
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or parameter.default is parameter.empty:
            raise RefcoreError(
                f'the argument "{parameter}" of the function {function.__qualname__} has no default; give it one '
                f"(it becomes a setting), or take one of {', '.join(sorted(given))}"
            )
        kind = hints.get(parameter.name, type(parameter.default) if parameter.default is not None else Any)
        fields[parameter.name] = (kind, parameter.default)
    return fields, {parameter.name for parameter in others} & given
