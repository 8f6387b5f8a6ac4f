"""Hashes of the checkpoints that a config names: results belong to weights, not to names."""

from __future__ import annotations

from collections.abc import Iterator
from os.path import expanduser
from pathlib import Path
from typing import Any, get_args

from refcore import checkpoints
from refcore_plugins.models.imagenet_networks import Network, weights_file


def hashes(settings: Any) -> dict[str, str]:
    """Name -> hash of every embedded or local checkpoint in a field `model` of the settings, and of every ImageNet
    classifier in a field `weights`.

    Hub ids have no hash; the settings hold their name.

    Raises:
        CheckpointError: there is no such embedded checkpoint, or the package of a classifier is missing.
    """
    paths = {model: Path(expanduser(checkpoints.resolve(model))) for model in set(_values("model", settings))}
    for weights in set(_values("weights", settings)) & set(get_args(Network)):
        paths[weights] = weights_file(weights)
    return {name: checkpoints.digest(path) for name, path in sorted(paths.items()) if path.exists()}


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
