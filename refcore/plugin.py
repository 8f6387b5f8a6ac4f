"""The base class of every plugin: its kind, registered name, pydantic config, and arithmetic as an objective."""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from os.path import exists, expanduser  # Path's own raise where a name is too long, or no user's
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, model_validator

from refcore.checkpoints import Download, hub_id, refuse_absent
from refcore.errors import CheckpointError
from refcore.nulls import without_nulls

Kind = Literal[
    "referees", "priors", "augmentations", "canvases", "transforms", "parsers", "judges", "metrics", "trackers"
]
KINDS: tuple[Kind, ...] = get_args(Kind)
SINGULAR: Mapping[str, str] = {
    "referees": "referee",
    "priors": "prior",
    "augmentations": "augmentation",
    "canvases": "canvas",
    "transforms": "transform",
    "parsers": "parser",
    "judges": "judge",
    "metrics": "metric",
    "trackers": "tracker",
}


class PluginConfig(BaseModel):
    """Base of a plugin's config: null is the default; unknown fields, NaN and infinity are refused.

    Every field needs a description.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)
    checkpoint_fields: ClassVar[tuple[str, ...]] = ("model",)
    """Fields that may name a checkpoint; fields that a class lacks are ignored."""
    local_fields: ClassVar[Mapping[str, str]] = {}
    """Field that names a file or folder of this machine -> how to come by one."""

    @model_validator(mode="before")
    @classmethod
    def _null_is_the_default(cls, data: Any) -> Any:
        return without_nulls(cls, data)

    def checkpoints(self) -> dict[str, str]:
        """Field -> the checkpoint it names: a hub id, a path, or WORLD:NAME for one that ships with a world."""
        named = {field: getattr(self, field, None) for field in self.checkpoint_fields}
        return {field: model for field, model in named.items() if isinstance(model, str)}


class _Arithmetic:
    """The operators of objectives (`refcore.objective`) on plugins and plugin classes: `2 * Clip() - Blip2`.

    Only referees and priors have them. A factor is a number or a schedule; subtracting judges the negated question.
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
    # Imported on use: refcore.objective needs the configs, which need this module.
    return import_module("refcore.objective").as_objective(value)


class PluginType(_Arithmetic, ABCMeta):
    """Metaclass of plugins: a class stands for its instance with default settings, as in `2 * Clip`."""


class Plugin(_Arithmetic, metaclass=PluginType):
    """Base of the contracts: referees, priors, augmentations, canvases, transforms, parsers, judges, metrics and
    trackers."""

    class Config(PluginConfig):
        pass

    kind: ClassVar[Kind | None] = None
    """Set by each contract; None on this base alone."""
    name: ClassVar[str] = ""
    """The registered name, which configs use."""
    facts: ClassVar[tuple[str, ...]] = ()
    """Class attributes that `refcore plugins show` prints; set by each contract."""
    shareable: ClassVar[bool] = True
    """Whether several runs can use one loaded plugin (`refcore.Models`); False where something of a run stays in it."""
    usage: ClassVar[str] = ""
    """How a config names a plugin of this kind, with NAME in the place of its name; set by each contract."""
    conversions: ClassVar[Mapping[str, Callable[[Path, Path], Path]]] = {}
    """Conversion -> a function (source, out) -> the path written, for `refcore convert NAME-CONVERSION SOURCE OUT`."""

    def __init__(self, config: Any = None, **fields: Any) -> None:
        """Takes a `Config` or its fields: `Clip(model="ViT-B-32")`."""
        if config is not None and fields:
            raise TypeError("give a config or its fields, not both")
        self.config: Any = config if config is not None else self.Config(**fields)

    shares: ClassVar[frozenset[str]] = frozenset()
    """Attributes whose networks another loaded plugin may use, too: no setting of a term changes or moves these."""
    requires: ClassVar[Mapping[str, str]] = {}
    """Module that `load` imports from an extra -> how to install it."""

    def check(self, prompts: Sequence[str] = ()) -> None:
        """Raises what `load` and `read` would raise, as far as it can be told at once, before any model is loaded.

        Here: a package of `requires` that is not installed, and a file or folder that the config names and that is not
        there. Called before every run, and by `refcore config validate` and `refcore doctor`.

        Args:
            prompts: that will be read, as far as they are known.

        Raises:
            RefcoreError: naming the field or the package, with what to do.
        """
        for module, remedy in self.requires.items():
            if find_spec(module) is None:
                kind = SINGULAR.get(self.kind or "", "plugin")
                raise CheckpointError(f'the {kind} "{self.name}" needs the package {module}: {remedy}')
        local = self.config.local_fields
        for name, remedy in local.items():
            given = getattr(self.config, name)
            if given is not None and not exists(expanduser(given)):
                raise CheckpointError(
                    f'{self.name}: {name} is "{given}", and there is no such file or folder; {remedy}'
                )
        for name, model in self.config.checkpoints().items():
            if name not in local:
                refuse_absent(model, f"{self.name}: {name}")

    def downloads(self) -> dict[str, Download]:
        """Checkpoint as the config names it -> what `load` reads of it; here, for each hub id."""
        local = self.config.local_fields
        named = [model for name, model in self.config.checkpoints().items() if name not in local]
        return {model: Download() for model in named if hub_id(model) is not None}

    def packaged(self) -> dict[str, Path]:
        """Name -> file of the weights that an installed package brings."""
        return {}

    def finish_reading(self) -> None:
        """Called once all prompts of a run are read; models that only encode text can be freed here.

        Not called for plugins that later runs may use (`refcore.Models`).
        """

    def __repr__(self) -> str:
        given = [f"{name}={value!r}" for name, value in self.config if name in self.config.model_fields_set]
        return f"{type(self).__name__}({', '.join(given)})"
