"""What every plugin has: a pydantic config, a name under which it was registered, and errors that say how to go on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


class PluginConfig(BaseModel):
    """Base of a plugin's settings: unknown fields are refused, and every field wants a description."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class RefcoreError(Exception):
    """An error whose message is meant for the user: it names the thing, the value and the remedy."""


class CheckpointError(RefcoreError):
    """A checkpoint that is missing, corrupt, of another kind, or that cannot be downloaded."""


class Plugin:
    """Base of referees, priors, augmentations and canvases."""

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
