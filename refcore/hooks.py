"""The whole plugin surface: four hooks under which a package registers its classes by name, lazily."""

from __future__ import annotations

from collections.abc import Callable

import pluggy

PROJECT = "refcore"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

Register = Callable[..., None]
"""register(name, "package.module:Class", summary="one line"); the module is imported only when a config asks for it."""


class Specs:
    """Hook signatures. Each receives `register(name, "package.module:Class", summary="one line")`."""

    @hookspec
    def register_referees(self, register: Register) -> None:
        """Registers `refcore.referee.Referee` classes."""

    @hookspec
    def register_priors(self, register: Register) -> None:
        """Registers `refcore.prior.Prior` classes."""

    @hookspec
    def register_augmentations(self, register: Register) -> None:
        """Registers `refcore.augmentation.Augmentation` classes."""

    @hookspec
    def register_canvases(self, register: Register) -> None:
        """Registers `refcore.canvas.Canvas` classes."""
