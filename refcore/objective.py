"""Objectives as values: terms that add, subtract, scale, and print as what they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from refcore.config import PROMPT, PriorTerm, RefereeTerm, RunConfig
from refcore.fields import parse
from refcore.plugin import Plugin, RefcoreError
from refcore.schedule import scaled


@dataclass(frozen=True)
class Objective:
    """A weighted sum of referees and priors; made by `referee` and `prior`, combined by +, - and *.

    Subtracting a referee asks the negated question (`wanted: false`), which is bounded below; it does not negate the
    loss. Subtracting twice gives the original back.

    Example:
        >>> objective = 2 * referee("blip2", itm=1.0) + referee("clip") - 0.3 * referee("clip", prompt="blurry")
        >>> print(objective)
        2 blip2(itm=1.0) + 1 clip - 0.3 clip("blurry")
    """

    referees: tuple[RefereeTerm, ...] = ()
    priors: tuple[PriorTerm, ...] = ()

    def __add__(self, other: Objective) -> Objective:
        if not isinstance(other, Objective):
            return NotImplemented
        return Objective(self.referees + other.referees, self.priors + other.priors)

    def __radd__(self, other: Any) -> Objective:
        """So that `sum(objectives)` works, which starts at 0."""
        return self if other == 0 else NotImplemented

    def __sub__(self, other: Objective) -> Objective:
        if not isinstance(other, Objective):
            return NotImplemented
        return self + -other

    def __neg__(self) -> Objective:
        if self.priors:
            raise RefcoreError(
                f"{self.priors[0].name} is a prior; pushed away it has no minimum, so it cannot be subtracted"
            )
        return Objective(tuple(term.model_copy(update={"wanted": not term.wanted}) for term in self.referees))

    def __mul__(self, factor: float) -> Objective:
        if isinstance(factor, bool) or not isinstance(factor, (int, float)):
            return NotImplemented
        if factor < 0:
            return -self * -factor
        return Objective(
            tuple(term.model_copy(update={"weight": scaled(term.weight, factor)}) for term in self.referees),
            tuple(term.model_copy(update={"weight": scaled(term.weight, factor)}) for term in self.priors),
        )

    __rmul__ = __mul__

    def __str__(self) -> str:
        told = ""
        for term in (*self.referees, *self.priors):
            minus = isinstance(term, RefereeTerm) and not term.wanted
            sign = (" - " if minus else " + ") if told else ("-" if minus else "")
            told += f"{sign}{_weight(term.weight)} {_called(term)}"
        return told or "0"

    def into(self, config: RunConfig) -> RunConfig:
        """The config with these referees, and with these priors where there are any.

        Raises:
            ConfigError: the terms do not fit the rest of the config, a view group that it lacks for example.
        """
        settings = config.settings() | {"referees": [term.model_dump(mode="json") for term in self.referees]}
        if self.priors:
            settings["priors"] = [term.model_dump(mode="json") for term in self.priors]
        return RunConfig.parse(settings)


def referee(
    plugin: str | Plugin, *, term: Mapping[str, Any] | None = None, prompt: str = PROMPT, **fields: Any
) -> Objective:
    """The objective of one referee.

    Args:
        plugin: a registered name, or an instance.
        term: other fields of its term in the config, such as `{"views": "close", "window": [0, 50]}`.
        prompt: what is asked; "{prompt}" stands for the sample's prompt.
        fields: the plugin's own.

    Raises:
        ConfigError: a term that has no such fields.
    """
    name, own = _named(plugin, fields)
    return Objective((parse(RefereeTerm, {"name": name, "config": own, "prompt": prompt, **(term or {})}),))


def prior(
    plugin: str | Plugin, *, term: Mapping[str, Any] | None = None, prompt: str = PROMPT, **fields: Any
) -> Objective:
    """The objective of one prior; arguments and errors as for `referee`."""
    name, own = _named(plugin, fields)
    return Objective(priors=(parse(PriorTerm, {"name": name, "config": own, "prompt": prompt, **(term or {})}),))


def _named(plugin: str | Plugin, fields: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    if isinstance(plugin, str):
        return plugin, fields
    if fields:
        raise TypeError(f"{plugin.name} is an instance, which has its fields already: {', '.join(fields)} is too much")
    return plugin.name, plugin.config.model_dump(mode="json", exclude_unset=True)


def _weight(weight: Any) -> str:
    if isinstance(weight, (int, float)):
        return f"{weight:g}"
    shown = ", ".join(f"{name}={value}" for name, value in weight.model_dump().items() if name != "kind")
    return f"{weight.kind}({shown})"


def _called(term: Any) -> str:
    parts = [f"{name}={value}" for name, value in term.config.items()]
    if term.prompt != PROMPT:
        parts.append(f'"{term.prompt}"')
    return term.name + (f"({', '.join(parts)})" if parts else "")
