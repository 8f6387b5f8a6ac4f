"""Presets: YAML configs of refcore and of installed packages, and their composition with overrides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from refcore import registry
from refcore.config.run import RunConfig
from refcore.config.settings import Settings, load_yaml, override, parse_yaml, read_text
from refcore.errors import RefcoreError, unknown

DEFAULT = "playground"
"""The preset of runs that name none."""


@dataclass(frozen=True)
class Preset:
    """A preset: its name, the text of its YAML file, and the package that ships it."""

    name: str
    text: str
    distribution: str = "refcore"
    version: str = ""
    registered: str = ""
    """The summary given at registration, or ""."""

    @property
    def summary(self) -> str:
        """Its registered summary, or else the comment in the file's first line."""
        first = (self.text.splitlines() or [""])[0]
        return self.registered or (first.removeprefix("#").strip() if first.startswith("#") else "")

    @property
    def settings(self) -> Settings:
        return parse_yaml(self.text, f'preset "{self.name}"')


Source = RunConfig | Mapping[str, Any] | str | Path
"""A config that is not a preset: a RunConfig, its settings as a mapping, or the path of a YAML file."""


def compose(
    preset: str | None = None, config: Source | None = None, overrides: Iterable[str] = (), **fields: Any
) -> RunConfig:
    """The config of a run: a preset (DEFAULT if neither is given) or a config, then overrides, then `fields`.

    Args:
        preset: name of a preset.
        config: a config, its settings, or the path of a YAML file.
        overrides: assignments such as `referees.0.weight=0.5`, applied in order.
        fields: whole fields, such as `prompts`, that replace those of the config.

    Raises:
        RefcoreError: both a preset and a config were given, the preset is unknown, or the file cannot be read.
        ConfigError: the config is wrong.
    """
    if preset is not None and config is not None:
        given = f'the config file "{config}"' if isinstance(config, (str, Path)) else "a config"
        raise RefcoreError(f'both the preset "{preset}" and {given} were given; expected one of them')
    if config is None:
        settings = get(preset or DEFAULT).settings
    elif isinstance(config, (str, Path)):
        settings = load_yaml(config)
    else:
        settings = config.settings() if isinstance(config, RunConfig) else dict(config)
    return RunConfig.from_settings({**override(settings, overrides), **fields})


def name_of(preset: str | None, config: Source | None) -> str | None:
    """The name of the preset that `compose` uses; None if it uses a config."""
    return preset if config is not None else preset or DEFAULT


def names() -> list[str]:
    """The names of the presets of refcore and of installed packages, sorted."""
    return sorted({*_shipped(), *registry.presets()})


def get(name: str) -> Preset:
    """A preset of refcore or of an installed package.

    Raises:
        RefcoreError: the name is unknown or registered twice, or the file cannot be read.
    """
    shipped, claims = name in _shipped(), registry.presets().get(name, [])
    if not shipped and not claims:
        raise unknown("preset", name, names())
    if shipped + len(claims) > 1:
        origins = ["refcore"] * shipped + [claim.origin for claim in claims]
        raise RefcoreError(
            f'preset "{name}" is registered twice: by {" and by ".join(origins)}; '
            "uninstall one of them, or register it under another name"
        )
    if shipped:
        return Preset(name, (_folder() / f"{name}.yaml").read_text("utf-8"), version=metadata.version("refcore"))
    (claim,) = claims
    text = read_text(claim.target, f'preset "{name}" (from {claim.origin})')
    return Preset(name, text, claim.distribution, claim.version, claim.summary)


def _folder() -> Any:
    return resources.files("refcore.presets")


def _shipped() -> list[str]:
    return [file.name.removesuffix(".yaml") for file in _folder().iterdir() if file.name.endswith(".yaml")]
