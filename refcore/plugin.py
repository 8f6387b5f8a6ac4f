"""What every plugin has: a pydantic config, a name under which it was registered, and errors that say how to go on."""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


class PluginConfig(BaseModel):
    """Base of a plugin's settings: unknown fields are refused, and every field wants a description."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class RefcoreError(Exception):
    """An error whose message is meant for the user: it names the thing, the value and the remedy."""


class CheckpointError(RefcoreError):
    """A checkpoint that is missing, corrupt, of another kind, or that cannot be downloaded."""


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
    """Base of referees, priors, augmentations, canvases and parsers."""

    class Config(PluginConfig):
        pass

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


def as_use(value: Any) -> Any:
    """A plugin or plugin class as a config names it, `{"name": ..., "config": ...}`; anything else as it is.

    The config holds the fields that were set, and nothing else that an instance may have.

    Raises:
        RefcoreError: a class that extends none of the five contracts, or whose name another plugin has.
    """
    is_class = isinstance(value, PluginType)
    if not is_class and not isinstance(value, Plugin):
        return value
    _, name = import_module("refcore.registry").name_of(value if is_class else type(value))
    return {"name": name, "config": {} if is_class else value.config.model_dump(mode="json", exclude_unset=True)}


class CallableModule(ModuleType):
    """The type of the modules `refcore.referee` and `refcore.prior`: called, they decorate a function.

    Their contracts live in modules of the names that the decorators want to have, `@refcore.referee`.
    """

    def __call__(self, *args: Any, **options: Any) -> Any:
        """See `refcore.functions`."""
        return getattr(import_module("refcore.functions"), self.__name__.rpartition(".")[2])(*args, **options)
