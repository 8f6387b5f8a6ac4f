"""refcore: making images by inverting referees, frozen models that judge whether an image matches a prompt.

Names are imported when they are first used, so that `import refcore` loads neither torch nor a plugin.
`refcore.referee` and `refcore.prior` are modules, the contracts, which decorate a function when they are called.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from refcore.api import Result, Sample, invert
    from refcore.augmentation import Augmentation
    from refcore.build import resolve
    from refcore.canvas import Canvas, LatentSpace
    from refcore.config import RunConfig
    from refcore.engine import Engine, NonFiniteError
    from refcore.fields import ConfigError
    from refcore.functions import prior, referee
    from refcore.hooks import hookimpl
    from refcore.inversion import Inversion, StepResult
    from refcore.objective import Objective
    from refcore.parser import Parser, Part, Parts, Relation
    from refcore.plugin import CheckpointError, Plugin, PluginConfig, RefcoreError
    from refcore.prior import Prior
    from refcore.randomness import Rng
    from refcore.referee import Reading, Referee

_HOME = {
    "Augmentation": "augmentation",
    "Canvas": "canvas",
    "CheckpointError": "plugin",
    "ConfigError": "fields",
    "Engine": "engine",
    "Inversion": "inversion",
    "LatentSpace": "canvas",
    "NonFiniteError": "engine",
    "Objective": "objective",
    "Parser": "parser",
    "Part": "parser",
    "Parts": "parser",
    "Plugin": "plugin",
    "PluginConfig": "plugin",
    "Prior": "prior",
    "Reading": "referee",
    "RefcoreError": "plugin",
    "Referee": "referee",
    "Relation": "parser",
    "Result": "api",
    "Rng": "randomness",
    "RunConfig": "config",
    "Sample": "api",
    "StepResult": "inversion",
    "hookimpl": "hooks",
    "invert": "api",
    "resolve": "build",
}
"""Public name -> the module that it lives in."""
_DECORATORS = ("prior", "referee")
"""Modules that are called: see `refcore.plugin.CallableModule`."""

__all__ = [
    "Augmentation",
    "Canvas",
    "CheckpointError",
    "ConfigError",
    "Engine",
    "Inversion",
    "LatentSpace",
    "NonFiniteError",
    "Objective",
    "Parser",
    "Part",
    "Parts",
    "Plugin",
    "PluginConfig",
    "Prior",
    "Reading",
    "RefcoreError",
    "Referee",
    "Relation",
    "Result",
    "Rng",
    "RunConfig",
    "Sample",
    "StepResult",
    "hookimpl",
    "invert",
    "prior",
    "referee",
    "resolve",
]


def __getattr__(name: str) -> Any:
    if name in _DECORATORS:
        return import_module(f"refcore.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'refcore' has no attribute {name!r}")
    value = getattr(import_module(f"refcore.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
