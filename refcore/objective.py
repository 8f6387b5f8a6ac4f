"""Objectives as values: weighted sums of referees and priors that add, scale, compare, and print as written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from refcore import registry
from refcore.config.run import RunConfig
from refcore.config.schedule import is_schedule, scaled
from refcore.config.terms import PROMPT, PriorTerm, RefereeTerm
from refcore.errors import RefcoreError, article
from refcore.explain import validated
from refcore.plugin import Plugin, PluginType
from refcore.registry import as_plugin_use

Term = RefereeTerm | PriorTerm
TERMS: dict[str, type[RefereeTerm] | type[PriorTerm]] = {"referees": RefereeTerm, "priors": PriorTerm}
"""The kinds of plugins that an objective is made of, and the class of their terms in a config."""


@dataclass(frozen=True, eq=False, repr=False)
class Objective:
    """A weighted sum of referees and priors, combined by +, - and *; equal objectives give equal configs.

    A plugin, or a plugin class, stands for an objective of one term wherever an objective is expected; `referee_term`
    and `prior_term` make one from a registered name. Subtracting a referee judges the negated question
    (`wanted: false`), whose loss is bounded below; it does not negate the loss. Subtracting twice restores the
    original. A factor is a number or a schedule.

    Example:
        >>> clip = referee_term("clip")
        >>> objective = 2 * referee_term("blip2", itm=1.0) + clip - 0.3 * referee_term("clip", prompt="blurry")
        >>> print(objective)
        2 blip2(itm=1.0) + 1 clip - 0.3 clip("blurry")
    """

    terms: tuple[Term, ...] = ()
    """In the order written."""

    @classmethod
    def of(cls, config: RunConfig) -> Objective:
        """The objective of a config: its referees, then its priors."""
        return cls((*config.referees, *config.priors))

    @classmethod
    def from_settings(cls, settings: Mapping[str, Sequence[Any]]) -> Objective:
        """The objective of `settings()`, or of the `referees` and `priors` of a YAML file.

        Raises:
            ConfigError: some fields are wrong; the message names each by its dotted path.
        """
        unknown = ", ".join(sorted(set(settings) - set(TERMS)))
        if unknown:
            raise RefcoreError(f"an objective has no {unknown}; expected {' and '.join(TERMS)}")
        return cls(
            tuple(
                validated(model, data, f"{kind}.{i}")
                for kind, model in TERMS.items()
                for i, data in enumerate(settings.get(kind, ()))
            )
        )

    @property
    def referees(self) -> tuple[RefereeTerm, ...]:
        return tuple(term for term in self.terms if isinstance(term, RefereeTerm))

    @property
    def priors(self) -> tuple[PriorTerm, ...]:
        return tuple(term for term in self.terms if isinstance(term, PriorTerm))

    def settings(self) -> dict[str, list[dict[str, Any]]]:
        """`{"referees": [...], "priors": [...]}` as plain dicts, which `from_settings` reads back."""
        return {
            "referees": [term.model_dump(mode="json") for term in self.referees],
            "priors": [term.model_dump(mode="json") for term in self.priors],
        }

    def fields(self) -> dict[str, list[dict[str, Any]]]:
        """The fields of a config that it replaces: the referees, and the priors if it has any."""
        own = self.settings()
        return own if self.priors else {"referees": own["referees"]}

    def into(self, config: RunConfig) -> RunConfig:
        """The config with these referees, and with these priors if there are any.

        Raises:
            ConfigError: the terms do not fit the rest of the config; for example, they name a view group that it lacks.
        """
        return RunConfig.from_settings(config.settings() | self.fields())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Objective):
            return NotImplemented
        return (self.referees, self.priors) == (other.referees, other.priors)

    def __add__(self, other: Any) -> Objective:
        if not _is_operand(other):
            return NotImplemented
        return Objective(self.terms + as_objective(other).terms)

    def __radd__(self, other: Any) -> Objective:
        """Handles a plugin on the left; and 0, where `sum(objectives)` starts."""
        if _is_number(other) and other == 0:
            return self
        return as_objective(other) + self if _is_operand(other) else NotImplemented

    def __sub__(self, other: Any) -> Objective:
        if not _is_operand(other):
            return NotImplemented
        return self + -as_objective(other)

    def __rsub__(self, other: Any) -> Objective:
        if _is_number(other) and other == 0:
            return -self
        return as_objective(other) - self if _is_operand(other) else NotImplemented

    def __neg__(self) -> Objective:
        if self.priors:
            raise RefcoreError(
                f"{self.priors[0].name} is a prior and cannot be subtracted: its negated loss has no minimum"
            )
        return Objective(tuple(term.model_copy(update={"wanted": not term.wanted}) for term in self.referees))

    def __mul__(self, factor: Any) -> Objective:
        if not is_schedule(factor):
            if not _is_number(factor):
                return NotImplemented
            if not math.isfinite(factor):
                raise RefcoreError(f"the factor of an objective is {factor}; expected a finite number")
            if factor < 0:
                pushed: Objective = -self * -factor
                return pushed
            factor = float(factor)
        return Objective(tuple(term.model_copy(update={"weight": scaled(term.weight, factor)}) for term in self.terms))

    __rmul__ = __mul__

    def __truediv__(self, divisor: Any) -> Objective:
        return self * (1 / divisor) if _is_number(divisor) else NotImplemented

    def __str__(self) -> str:
        text = ""
        for term in self.terms:
            minus = isinstance(term, RefereeTerm) and not term.wanted
            sign = (" - " if minus else " + ") if text else ("-" if minus else "")
            text += f"{sign}{_weight(term.weight)} {_called(term)}"
        return text or "0"

    __repr__ = __str__


def referee_term(
    plugin: str | Plugin | type[Plugin], *, term: Mapping[str, Any] | None = None, prompt: str = PROMPT, **fields: Any
) -> Objective:
    """An objective of one referee: `2 * referee_term("clip") + referee_term("blip2")`.

    Args:
        plugin: a registered name, an instance, or a class.
        term: further fields of its term in the config, such as `{"views": "close", "window": [0, 50]}`.
        prompt: template of the prompt; "{prompt}" stands for the sample's prompt.
        fields: the plugin's own config fields.

    Raises:
        ConfigError: an unknown field of the term, or a wrong value.
    """
    return _term("referees", plugin, {"prompt": prompt, **(term or {})}, fields)


def prior_term(
    plugin: str | Plugin | type[Plugin], *, term: Mapping[str, Any] | None = None, prompt: str = PROMPT, **fields: Any
) -> Objective:
    """An objective of one prior; arguments and errors as for `referee_term`."""
    return _term("priors", plugin, {"prompt": prompt, **(term or {})}, fields)


def as_objective(value: Any) -> Objective:
    """An objective unchanged; a referee, a prior, or a class of one, as an objective of one term.

    Raises:
        RefcoreError: the value is none of these.
    """
    if isinstance(value, Objective):
        return value
    if not _is_operand(value):
        raise RefcoreError(f"{value!r} is not an objective; expected referees and priors, as in 2 * Clip() + Blip2()")
    cls = value if isinstance(value, PluginType) else type(value)
    kind = registry.kind_of(cls)
    if kind not in TERMS:
        raise RefcoreError(
            f"{cls.__name__} is {article(registry.SINGULAR[kind])}; "
            "only referees and priors can be terms of an objective"
        )
    return _term(kind, value, {}, {})


def _term(kind: str, plugin: Any, settings: Mapping[str, Any], fields: dict[str, Any]) -> Objective:
    if isinstance(plugin, str):
        use = {"name": plugin, "config": fields}
    else:
        cls = plugin if isinstance(plugin, PluginType) else type(plugin)
        if (own := registry.kind_of(cls)) != kind:
            raise RefcoreError(
                f"{cls.__name__} is {article(registry.SINGULAR[own])}; expected {article(registry.SINGULAR[kind])} here"
            )
        use = as_plugin_use(plugin)
        if fields and plugin is not cls:
            raise TypeError(
                f"{use['name']} is an instance, with its fields set; remove {', '.join(fields)}, or pass the class"
            )
        use["config"] |= fields
    return Objective((validated(TERMS[kind], {**use, **settings}),))


def _is_operand(value: Any) -> bool:
    return isinstance(value, (Objective, Plugin, PluginType))


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _weight(weight: Any) -> str:
    if isinstance(weight, (int, float)):
        return f"{weight:g}"
    shown = ", ".join(f"{name}={_plain(value)}" for name, value in weight if name != "kind")
    return f"{weight.kind}({shown})"


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_plain, value))}]"
    return _weight(value) if is_schedule(value) else str(value)


def _called(term: Term) -> str:
    parts = [f"{name}={value}" for name, value in term.config.items()]
    if term.prompt != PROMPT:
        parts.append(f'"{term.prompt}"')
    text = term.name + (f"({', '.join(parts)})" if parts else "")
    shown = {"name", "config", "prompt", "weight", "wanted"}
    others = [
        f"{name}={value}" for name, value in term.model_dump(mode="json", exclude_defaults=True, exclude=shown).items()
    ]
    return text + (f"[{', '.join(others)}]" if others else "")
