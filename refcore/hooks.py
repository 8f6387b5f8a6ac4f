"""The hooks of a plugin package: ten functions that register its classes and presets by name, without imports.

An eleventh, for counting memory, builds a plugin without weights.

The module of a package's entry point declares the version of the hooks it was written for: `api_version = 2`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import pluggy

PROJECT = "refcore"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

API_VERSION = 2
"""Version of the hooks and contracts; raised when plugins written for the version before no longer work."""
API_CHANGES: Mapping[int, str] = MappingProxyType(
    {
        1: "the first version",
        2: "the moment of the run, `at: refcore.Moment`, is the last argument of Canvas.decode and Augmentation.draw, "
        "and takes the place of `step` in Prior.gradient, Prior.update and functions with @refcore.prior",
    }
)
"""Version -> what changed for plugins; the error of an outdated plugin lists the later ones."""
UNDECLARED = 1
"""Version of an installed package that declares none.

A file of a folder or an object in Python that declares none is of this version; a method with the arguments of an older
one is refused when it is first called.
"""

Register = Callable[..., None]
"""register(name, "package.module:Class", summary="one line"); the module is imported once a config names it.

`conversions=("itg",)` lists those of the class, for `refcore convert --help`.
"""


class HookSpecs:
    """The signatures of the hooks.

    Each but the last receives `register(name, "package.module:Class", summary="one line")`.
    """

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
    def register_transforms(self, register: Register) -> None:
        """Registers `refcore.contracts.transform.Transform` classes."""

    @hookspec
    def register_parsers(self, register: Register) -> None:
        """Registers `refcore.contracts.parser.Parser` classes."""

    @hookspec
    def register_judges(self, register: Register) -> None:
        """Registers `refcore.contracts.judge.Judge` classes, each under the name of its world."""

    @hookspec
    def register_metrics(self, register: Register) -> None:
        """Registers `refcore.contracts.metric.Metric` classes."""

    @hookspec
    def register_trackers(self, register: Register) -> None:
        """Registers `refcore.contracts.tracker.Tracker` classes."""

    @hookspec
    def register_presets(self, register: Register) -> None:
        """Registers presets, YAML files: `register(name, Path(__file__).with_name("name.yaml"))`."""

    @hookspec(firstresult=True)
    def load_without_weights(self, plugin: Any, device: Any, dtype: Any, size: tuple[int, int] | None) -> Any:
        """Sets in a new plugin what its `load` sets, with networks of the right shapes and no weights.

        Called under torch's FakeTensorMode, so that making a network takes no memory, for `refcore doctor`.

        Args:
            plugin: made with its config, not loaded.
            device: torch device.
            dtype: torch dtype of the weights.
            size: (height, width) in pixels, for canvases; None: the canvas's default.

        Returns:
            A `refcore.Conditioning` of one prompt, as `read` gives it; None where the shapes are not known.
        """
