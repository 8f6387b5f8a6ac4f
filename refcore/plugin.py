"""The base of every plugin: its kind, its registered name, its pydantic config, and its place in an objective."""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict

Kind = Literal["referees", "priors", "augmentations", "canvases", "parsers", "judges"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SINGULAR: Mapping[str, str] = {
    "referees": "referee",
    "priors": "prior",
    "augmentations": "augmentation",
    "canvases": "canvas",
    "parsers": "parser",
    "judges": "judge",
}


class PluginConfig(BaseModel):
    """Base of a plugin's settings: unknown fields are refused, and every field wants a description."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())
    checkpoint_fields: ClassVar[tuple[str, ...]] = ("model",)
    """Fields that may name a checkpoint; those that a class does not have are ignored."""

    def checkpoints(self) -> dict[str, str]:
        """Field -> the checkpoint that it names: a hub id, a path, or WORLD:NAME for one that comes with a world."""
        named = {field: getattr(self, field, None) for field in self.checkpoint_fields}
        return {field: model for field, model in named.items() if isinstance(model, str)}


class _Arithmetic:
    """+, - and * of objectives (`refcore.objective`), for plugins and plugin classes.

    Only referees and priors have one. A number or a schedule scales; subtracting asks the negated question.
    """

    def __add__(self, other: Any) -> Any:
        return _objective(self) + other

    def __radd__(self, other: Any) -> Any:
        return other + _objective(self)

    def __sub__(self, other: Any) -> Any:
        return _objective(self) - other

    def __rsub__(self, other: Any) -> Any:
        return other - _objective(self)

    def __mul__(self, factor: Any) -> Any:
        return _objective(self) * factor

    def __truediv__(self, divisor: Any) -> Any:
        return _objective(self) / divisor

    def __neg__(self) -> Any:
        return -_objective(self)

    __rmul__ = __mul__


def _objective(value: Any) -> Any:
    return import_module("refcore.objective").as_objective(value)


class PluginType(_Arithmetic, ABCMeta):
    """The type of plugin classes, so that a class stands for its instance with the default settings: `2 * Clip`."""


class Plugin(_Arithmetic, metaclass=PluginType):
    """Base of the six contracts: referees, priors, augmentations, canvases, parsers and judges."""

    class Config(PluginConfig):
        pass

    kind: ClassVar[Kind | None] = None
    """Set by each contract; None for what is not a contract yet."""
    name: ClassVar[str] = ""
    """The name that a config uses."""
    conversions: ClassVar[Mapping[str, Callable[[Path, Path], Path]]] = {}
    """What `refcore convert NAME-CONVERSION SOURCE OUT` offers: another project's file in, the written file out."""

    def __init__(self, config: Any = None, **fields: Any) -> None:
        """Takes a `Config`, or its fields: `Clip(model="ViT-B-32")`."""
        if config is not None and fields:
            raise TypeError("give a config or its fields, not both")
        self.config: Any = config if config is not None else self.Config(**fields)

    def finish_reading(self) -> None:
        """Called once all prompts of a run are read: a model that only reads text may be dropped here."""

    def __repr__(self) -> str:
        given = self.config.model_dump(exclude_unset=True)
        return f"{type(self).__name__}({', '.join(f'{field}={value!r}' for field, value in given.items())})"
