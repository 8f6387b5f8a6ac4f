"""The whole plugin surface: seven hooks under which a package registers its classes and presets by name, lazily.

A package says in the module of its entry point which version of this surface it was built for: `api_version = 1`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import pluggy

PROJECT = "refcore"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

API_VERSION = 1
"""Version of the hooks and of the contracts; it grows when a plugin built before would no longer work."""
API_CHANGES: Mapping[int, str] = MappingProxyType({1: "the first version"})
"""Version -> what changed in it for plugins; an older plugin is told what came after its own."""
UNDECLARED = 1
"""The version of a plugin that declares none: the one that there was when declaring began."""

Register = Callable[..., None]
"""register(name, "package.module:Class", summary="one line"); the module is imported only when a config asks for it."""


class Specs:
    """Hook signatures. Each receives `register(name, "package.module:Class", summary="one line")`."""

    @hookspec
    def register_referees(self, register: Register) -> None:
        """Registers `refcore.contracts.referee.Referee` classes."""

    @hookspec
    def register_priors(self, register: Register) -> None:
        """Registers `refcore.contracts.prior.Prior` classes."""

    @hookspec
    def register_augmentations(self, register: Register) -> None:
        """Registers `refcore.contracts.augmentation.Augmentation` classes."""

    @hookspec
    def register_canvases(self, register: Register) -> None:
        """Registers `refcore.contracts.canvas.Canvas` classes."""

    @hookspec
    def register_parsers(self, register: Register) -> None:
        """Registers `refcore.contracts.parser.Parser` classes."""

    @hookspec
    def register_judges(self, register: Register) -> None:
        """Registers `refcore.contracts.judge.Judge` classes, each under the name of its world."""

    @hookspec
    def register_presets(self, register: Register) -> None:
        """Registers presets, YAML files: `register(name, Path(__file__).with_name("name.yaml"))`."""
