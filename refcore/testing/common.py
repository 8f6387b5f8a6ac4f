"""Checks shared by all kinds of plugins; each kind supplies the calls that exercise it."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from refcore.config.schedule import takes_schedule
from refcore.config.settings import dump_yaml, parse_yaml
from refcore.engine.checks import fits
from refcore.errors import ConfigError, RefcoreError
from refcore.explain import validated
from refcore.moment import Moment
from refcore.plugin import PluginConfig
from refcore.testing.case import (
    ROUGH,
    Case,
    Failed,
    NotApplicable,
    Tensors,
    error,
    global_randomness_untouched,
    modules_of,
    require,
    tensors_of,
)
from refcore.testing.cost import Cost, measure

NOWHERE = "/nonexistent/refcore-testing"
"""A checkpoint that does not exist; a config's checkpoint fields must refuse it with a useful error."""
LONGEST = 600
"""Maximum length of an error message, in characters."""

Exercise = Callable[[Case, Any], Tensors]
"""(case, loaded instance) -> all of its results by name, for the case's images, prompts and seeds."""
Call = Callable[[Case, Any], tuple[Callable[[], Tensor], list[Tensor], int]]
"""(case, loaded instance) -> a differentiable call, its inputs, and its number of views."""


def config_round_trip(case: Case) -> None:
    """The config survives YAML without loss, and every field has a description."""
    config, model = case.plugin.config, type(case.plugin).Config
    require(
        isinstance(config, PluginConfig),
        f"the config is a {type(config).__name__}; expected a Config that extends refcore.PluginConfig",
    )
    dumped = config.model_dump(mode="json")
    try:
        again = validated(model, parse_yaml(dump_yaml(dumped), "the dumped config"))
    except Exception as cause:
        raise Failed(f"the config {dumped} cannot be read back from YAML: {cause}") from cause
    require(again == config, f"the config {config!r} reads back from YAML as {again!r}; expected the same")
    silent = [name for name, info in model.model_fields.items() if not info.description]
    require(not silent, f'no description of {", ".join(silent)}; expected Field(..., description="...") on every field')


def useful_errors(case: Case) -> None:
    """An unknown field is refused, and so is a missing checkpoint, with its name and the remedy."""
    model = type(case.plugin).Config
    try:
        validated(model, {**case.plugin.config.model_dump(mode="json"), "no_such_setting": 1})
    except ConfigError:
        pass
    else:
        raise Failed(
            'the config accepts an unknown field "no_such_setting"; expected extra="forbid", as in PluginConfig'
        )
    refused = {name: NOWHERE for name in getattr(model, "checkpoint_fields", ()) if name in model.model_fields} | dict(
        case.refused
    )
    for name, value in refused.items():
        settings = {**case.plugin.config.model_dump(mode="json"), name: value}

        def attempt(settings: dict[str, Any] = settings) -> None:
            Case(
                type(case.plugin)(validated(model, settings)), case.prompts, case.device, case.size, case.canvas
            ).fresh()

        expect_refusal(attempt, f"{name}={value!r}", str(value))


def expect_refusal(attempt: Callable[[], Any], what: str, value: str) -> None:
    """Fails unless `attempt` raises a RefcoreError of readable length that contains `value`."""
    try:
        attempt()
    except RefcoreError as refusal:
        text = str(refusal)
        require(value in text, f"the error of {what} does not show the value: {text!r}")
        require(len(text) <= LONGEST, f"the error of {what} has {len(text)} characters; expected at most {LONGEST}")
    except Exception as cause:
        raise Failed(
            f"{what} raises {type(cause).__name__} ({' '.join(str(cause).split())[:200]}); expected a RefcoreError or "
            "CheckpointError that names the value and the remedy"
        ) from cause
    else:
        raise Failed(f"{what} is accepted; expected a RefcoreError that names the value and the remedy")


def determinism(case: Case, exercise: Exercise) -> None:
    """The same inputs give the same results in a second call and in a second instance."""
    first = exercise(case, case.loaded())
    for who, other in (("a second call", case.loaded()), ("a second instance", case.fresh())):
        for name, value in exercise(case, other).items():
            gap = error(value, first[name])
            require(
                gap < 1e-5,
                f"{name} differs in {who} with the same inputs (by {gap:.2g} of its norm); "
                "expected no randomness beyond the given rng, no dropout (call eval()), and no state between calls",
            )


def scheduled_numbers(case: Case, exercise: Exercise) -> None:
    """A number that may be a schedule has in each step the value that the schedule has there."""
    fields = [name for name, info in type(case.plugin).Config.model_fields.items() if takes_schedule(info.annotation)]
    if not fields:
        raise NotApplicable("no number of its config may be a schedule")
    steps = case.at.steps
    first, last = moments(case)
    for name in fields:
        settings = case.plugin.config.model_dump(mode="json")
        start = _each(lambda number: first.of(number), getattr(case.plugin.config, name))
        end = _another(case, settings, name, start)
        moving = _from_to(start, end, steps // 2)
        for at, number in ((first, start), (last, end)):
            wanted, found = (
                exercise(other, other.loaded())
                for value in (number, moving)
                for other in [case.with_settings({**settings, name: value}, at)]
            )
            for what, value in found.items():
                require(
                    what in wanted and error(value, wanted[what]) < 1e-5,
                    f"{what} in {at} differs between {name}={number} and a schedule that has this value there; take "
                    f"the value of the moment, at.of(self.config.{name})",
                )


def _from_to(start: Any, end: Any, step: int) -> Any:
    """A schedule that is `start` before a step and `end` from it on; of lists, a list of them."""
    if isinstance(start, list):
        return [_from_to(a, b, step) for a, b in zip(start, end, strict=True)]
    return {"kind": "piecewise", "pieces": [{"until": step, "value": start}, {"value": end}]}


def _each(change: Callable[[Any], Any], value: Any) -> Any:
    """A change of a number, or of each number of a list."""
    return [change(part) for part in value] if isinstance(value, (list, tuple)) else change(value)


def _moved(factor: float, more: float, number: float) -> float:
    return factor * number + more


def _another(case: Case, settings: Mapping[str, Any], name: str, value: Any) -> Any:
    """Another value of a setting, which the plugin accepts; the same one if there is none near it."""
    for factor, more in ((0.9, 0), (1.1, 0), (1, 0.1), (1, -0.1), (1, 1), (1, -1)):
        other = _each(partial(_moved, factor, more), value)
        if other == value:
            continue
        try:
            case.with_settings({**settings, name: other}, case.at).loaded()
        except RefcoreError:
            continue
        return other
    return value


def moments(case: Case, end: bool = False) -> list[Moment]:
    """The first and the last step of the case's run; with `end` its end, too."""
    steps = case.at.steps
    return [Moment(0, steps), Moment(steps - 1, steps), *([Moment.end(steps)] if end else [])]


def takes(plugin: Any, method: str, *arguments: str) -> None:
    """Fails unless a method can be called with these arguments, by place."""
    found = getattr(plugin, method)
    require(
        fits(found, arguments),
        f"{method} takes {inspect.signature(found)}; expected ({', '.join(arguments)}), where `at` is a refcore.Moment "
        "(since api_version 2)",
    )


def frozen_weights(case: Case, exercise: Exercise) -> None:
    """No weight requires a gradient, receives one, or changes; networks are in eval mode."""
    plugin = case.loaded()
    state: dict[str, object] = getattr(plugin, "state_dict", dict)()
    learns = {t.untyped_storage().data_ptr() for t in tensors_of(state).values()}
    weights = {k: t for k, t in tensors_of(plugin).items() if t.untyped_storage().data_ptr() not in learns}
    before = {name: tensor.detach().clone() for name, tensor in weights.items()}
    trainable = [name for name, tensor in weights.items() if tensor.requires_grad]
    require(not trainable, f"{_few(trainable)} require gradients; call requires_grad_(False) after loading")
    training = [name for name, module in modules_of(plugin).items() if module.training]
    require(not training, f"{_few(training)} in training mode; call eval() after loading")
    exercise(case, plugin)
    changed = [name for name, tensor in weights.items() if not torch.equal(tensor.detach(), before[name])]
    require(not changed, f"{_few(changed)} changed in use; a plugin's weights are frozen")
    graded = [name for name, tensor in weights.items() if tensor.is_leaf and tensor.grad is not None]
    require(
        not graded,
        f"{_few(graded)} received gradients; differentiate with respect to the images only (torch.autograd.grad)",
    )


def no_global_randomness(case: Case, exercise: Exercise) -> None:
    """Nothing is drawn from Python's, numpy's or torch's global generators."""
    plugin = case.loaded()
    with global_randomness_untouched(f"{type(case.plugin).__name__}"):
        exercise(case, plugin)


def time_and_memory_per_view(case: Case, call: Call) -> Cost:
    """The cost per view is within the given limits, and no call leaves tensors behind."""
    forward, inputs, n = call(case, case.loaded())
    cost = measure(forward, inputs, n, tensors_of(case.loaded()).values())
    left = _left(lambda: torch.autograd.grad(forward().sum(), inputs, allow_unused=True), 3)
    require(
        left < 3,
        f"{left} tensors stay alive after 3 calls; keep no losses or features, which hold their whole graph",
    )
    for unit, found, limit in (("s", cost.seconds, case.seconds), ("MB", cost.megabytes, case.megabytes)):
        require(limit is None or found <= limit, f"a view takes {found:.3g} {unit}; the limit given is {limit} {unit}")
    print(f"{type(case.plugin).__name__}: {cost} per view")
    return cost


def gradient_of(losses: Tensor, inputs: Tensors, what: str) -> Tensors:
    """Name -> gradient of the losses' sum, zero for inputs that do not matter.

    Raises:
        Failed: there is no gradient at all, or it is not finite.
    """
    require(
        losses.requires_grad,
        f"{what} has no gradient; remove detach, no_grad, item, numpy, round and comparisons",
    )
    found = torch.autograd.grad(losses.sum(), list(inputs.values()), allow_unused=True)
    gradient = {k: torch.zeros_like(v) if g is None else g for (k, v), g in zip(inputs.items(), found, strict=True)}
    for name, part in gradient.items():
        require(part.isfinite().all(), f"the gradient of {what} in {name} is not finite (NaN or infinity)")
    return gradient


def same_alone(found: Tensor, alone: Tensor, what: str, limit: float = ROUGH) -> None:
    """Fails if a result differs between the batch and the sample alone."""
    gap = error(found, alone)
    require(
        gap < limit,
        f"{what} depends on the rest of the batch: {gap:.2g} of its norm between the batch and it alone; expected no "
        "statistics over the batch, no mean over dimension 0, and rows selected by index",
    )


def leaf(value: Tensor) -> Tensor:
    """A copy that is a leaf and requires a gradient."""
    return value.detach().clone().requires_grad_()


def _left(call: Callable[[], Any], calls: int) -> int:
    """Number of tensors that stay alive over some calls after a first one."""
    gc.freeze()  # existing objects, millions of the libraries', are not searched
    try:
        call()
        before = _alive()
        for _ in range(calls):
            call()
        return _alive() - before
    finally:
        gc.unfreeze()


def _alive() -> int:
    """Number of live tensors that are not frozen."""
    gc.collect()
    return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
