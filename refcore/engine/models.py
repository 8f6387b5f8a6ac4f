"""Loaded models kept between runs, so that a second run with the same ones loads nothing."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from refcore.contracts.prior import Prior
from refcore.plugin import Plugin

MOST_FILES = 10_000
"""Files of a folder that are looked at to see whether it has changed."""
Loaded = TypeVar("Loaded", bound=Plugin)


class Models:
    """Referees, canvases, priors and parsers, loaded once for all runs that are given this object.

    Equal uses are one: the same class, with equal fields of its own, on the same device in the same dtype, and, where a
    field names a local file or folder, with the same files in it (by name, size and time of change). Priors that keep
    state are loaded by each run for itself, and so is any plugin with `shareable = False`. Towers that only read text
    stay loaded, since a later run may have other prompts. For runs in one thread, one after another or in turn.

    Example:
        >>> import refcore
        >>> with refcore.Models() as models:                                  # doctest: +SKIP
        ...     for prompt in ("a red circle", "a blue square"):
        ...         refcore.invert(prompt, models=models)
    """

    def __init__(self) -> None:
        self._kept: dict[Hashable, Plugin] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.clear()

    def __len__(self) -> int:
        """The number of plugins that are loaded."""
        return len(self._kept)

    def clear(self) -> None:
        """Lets go of all models; runs that still use some keep them."""
        self._kept.clear()

    def holds(self, plugin: Plugin) -> bool:
        """Whether other runs may get this plugin, too."""
        return any(kept is plugin for kept in self._kept.values())

    def loaded(self, made: Loaded, load: Callable[[Loaded], None], *key: Hashable) -> Loaded:
        """The loaded plugin that equals `made`, or `made` itself after `load`.

        Args:
            made: new, not loaded.
            load: loads it.
            key: what it is loaded for, beyond its class and fields: device, dtype.
        """
        if not shareable(made):
            load(made)
            return made
        settings = made.config.model_dump(mode="json")
        whole = (type(made), made.config.model_dump_json(), tuple(identities(settings)), *key)
        if whole not in self._kept:
            load(made)
            self._kept[whole] = made
        kept: Any = self._kept[whole]
        return kept  # type: ignore[no-any-return]


def shareable(plugin: Plugin) -> bool:
    """Whether several runs can use one loaded plugin: nothing of a run stays in it."""
    return plugin.shareable and not (isinstance(plugin, Prior) and plugin.keeps_state)


def identities(settings: Any) -> Iterator[Hashable]:
    """What tells the local files and folders that settings name from others of the same name."""
    if isinstance(settings, Mapping):
        for value in settings.values():
            yield from identities(value)
    elif isinstance(settings, (list, tuple)):
        for value in settings:
            yield from identities(value)
    elif isinstance(settings, str):
        for text in (settings, settings.partition(":")[2]):
            yield from _identity(text)


def _identity(text: str) -> Iterator[Hashable]:
    try:
        path = Path(text)
        if not text or not path.exists():
            return
        found = sorted(islice(path.rglob("*"), MOST_FILES)) if path.is_dir() else [path]
        for file in found:
            facts = file.stat()
            yield str(file.absolute()), facts.st_ino, facts.st_size, facts.st_mtime_ns
    except (OSError, ValueError):  # too long for a path, or gone meanwhile
        return
