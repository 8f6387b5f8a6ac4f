"""Hashes of the checkpoints that a config names: results belong to weights, not to names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

from refcore import checkpoints
from refcore_plugins.models.efficientnet_lite import Weights, weights_file


def hashes(settings: Any) -> dict[str, str]:
    """Name -> hash of every embedded or local checkpoint in a field `model` of the settings, and of every ImageNet
    classifier in a field `weights`.

    Hub ids have no hash; the settings hold their name.

    Raises:
        CheckpointError: there is no such embedded checkpoint, or the package of a classifier is missing.
    """
    paths = {model: Path(checkpoints.resolve(model)).expanduser() for model in set(_values("model", settings))}
    for weights in set(_values("weights", settings)) & set(get_args(Weights)):
        paths[weights] = weights_file(weights)
    return {name: digest(path) for name, path in sorted(paths.items()) if path.exists()}


def digest(path: Path) -> str:
    """First 16 digits of the SHA-256 of a file, or of all files of a folder with their names."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return _digest(path, tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files))


@lru_cache(maxsize=64)
def _digest(path: Path, files: tuple[tuple[Path, int, int], ...]) -> str:
    """Cached by file, size and time of change."""
    state = hashlib.sha256()
    for file, size, _ in files:
        name = str(file.relative_to(path)) if file != path else file.name
        state.update(f"{name}\0{size}\0".encode())
        state.update(file.read_bytes())
    return state.hexdigest()[:16]


def _values(field: str, settings: Any) -> Iterator[str]:
    """The strings in fields of this name, at any depth."""
    if isinstance(settings, dict):
        for key, value in settings.items():
            if key == field and isinstance(value, str):
                yield value
            else:
                yield from _values(field, value)
    elif isinstance(settings, list):
        for value in settings:
            yield from _values(field, value)
