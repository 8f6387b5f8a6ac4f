"""Presets: YAML configs of refcore and of installed packages, and their composition with overrides."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata, resources
from os.path import expanduser
from pathlib import Path
from typing import Any

from pydantic import Field

from refcore import checkpoints, registry
from refcore.config.run import RunConfig
from refcore.config.section import Section
from refcore.config.settings import Settings, load_yaml, override, parse_yaml, read_text
from refcore.errors import ParseError, RefcoreError, shortened, unknown
from refcore.explain import validated
from refcore.text_files import special

DEFAULT = "playground"
"""The preset of runs that name none."""
EXTENDS = ("extends", "preset")
"""Keys of a config file that name the preset or file that it is laid over; the second is another word for the first."""
ABOUT = "about"
"""Key of a config file for what it says of itself."""


class About(Section):
    """What a preset says of itself; it is no part of the run's config."""

    prompts: str = Field("", description="Which prompts it is for, and where to go with others.")
    paper: str = Field("", description="The system that it repeats: title or name, venue, arXiv number.")
    year: int | None = Field(None, ge=1900, le=2100, description="Year of the system.")
    needs: str = Field(
        "", description="What a run needs beyond the installed package: models, where from, how large. Empty: nothing."
    )
    time: str = Field("", description="How long an image takes, and on what.")


@dataclass(frozen=True)
class Preset:
    """A preset: its name, the text of its YAML file, and the package that ships it."""

    name: str
    text: str
    distribution: str = "refcore"
    version: str = ""
    registered: str = ""
    """The summary given at registration, or ""."""
    folder: Path | None = None
    """Where its file lies; None for refcore's own."""

    @property
    def summary(self) -> str:
        """Its registered summary, or else the comment in the file's first line."""
        first = (self.text.splitlines() or [""])[0]
        return self.registered or (first.removeprefix("#").strip() if first.startswith("#") else "")

    @property
    def about(self) -> About:
        """What its file says of itself, but not what it extends.

        Raises:
            ConfigError: the section `about` of the file is wrong.
        """
        return _about(self._layer())

    @property
    def settings(self) -> Settings:
        """Those of its file, laid over what it extends."""
        return _laid(_layers(self._layer()))

    def _layer(self) -> _Layer:
        return _Layer(self.name, parse_yaml(self.text, f'preset "{self.name}"'), self.folder, self.name)


Source = RunConfig | Mapping[str, Any] | str | Path
"""A config that is not a preset: a RunConfig, its settings as a mapping, or the path of a YAML file."""


def compose(
    preset: str | None = None, config: Source | None = None, overrides: Iterable[str] = (), **fields: Any
) -> RunConfig:
    """The config of a run: a preset (DEFAULT if neither is given), a config, then overrides, then `fields`.

    Args:
        preset: name of a preset.
        config: a config, its settings, or the path of a YAML file; with a preset, it is laid over that.
        overrides: assignments such as `referees.0.weight=0.5`, applied in order.
        fields: whole fields, such as `prompts`, that replace those of the config.

    Raises:
        RefcoreError: the preset is unknown, the file cannot be read, or files extend each other in a circle.
        ConfigError: the config is wrong.
    """
    settings = _laid(_given(preset, config))
    return RunConfig.from_settings({**override(settings, overrides), **fields})


def load(path: str | Path) -> Settings:
    """The settings of a YAML file, laid over what it `extends`.

    Raises:
        RefcoreError: as for `compose`.
    """
    return _laid(_given(None, path))


def name_of(preset: str | None, config: Source | None) -> str | None:
    """The name of the preset that `compose` begins with; None if it begins with a config."""
    return _given(preset, config)[0].preset


@contextmanager
def needed_by(preset: str | None) -> Iterator[None]:
    """Names the preset in the errors of missing checkpoints, and says what it is for where a prompt cannot be read."""
    try:
        with checkpoints.needed_by(preset):
            yield
    except ParseError as error:
        meant = get(preset).about.prompts if preset is not None else ""
        if not meant:
            raise
        raise ParseError(f"{meant} ({error.reason})", error.reason) from error


@dataclass(frozen=True)
class _Layer:
    """The settings of one preset, file or mapping, before what they extend is laid under them."""

    name: str
    """For messages."""
    settings: Settings
    folder: Path | None = None
    """Whose files it names; None: the working directory."""
    preset: str | None = None
    """Its name, where it is one."""
    file: Path | None = None


def _given(preset: str | None, config: Source | None) -> list[_Layer]:
    """What a run is given, the lowest layer first."""
    lower = _layers(get(preset or DEFAULT)._layer()) if preset is not None or config is None else []
    if config is None:
        return lower
    if isinstance(config, (str, Path)):
        top = _file(Path(config))
    else:
        top = _Layer("the config", config.settings() if isinstance(config, RunConfig) else dict(config))
    return [*lower, *_layers(top)]


def _layers(top: _Layer) -> list[_Layer]:
    """A layer and all that it extends, the lowest first.

    Raises:
        RefcoreError: a circle, or a name that is neither a preset nor a file.
    """
    found = [top]
    while (base := _extended(found[-1])) is not None:
        if any((layer.preset, layer.file) == (base.preset, base.file) for layer in found):
            circle = " extends ".join(layer.name for layer in (*found, base))
            raise RefcoreError(f"{circle}: a circle; remove one `extends`")
        found.append(base)
    return found[::-1]


def _extended(layer: _Layer) -> _Layer | None:
    """What a layer is laid over; None for nothing."""
    given = {key: layer.settings[key] for key in EXTENDS if layer.settings.get(key) is not None}
    if not given:
        return None
    if len(given) > 1:
        raise RefcoreError(f"{layer.name}: both {' and '.join(given)} are given; expected one of them")
    (key, base), *_ = given.items()
    if not isinstance(base, (str, Path)):
        raise RefcoreError(
            f"{layer.name}: {key} is {shortened(repr(base))}; expected the name of a preset, or a YAML file"
        )
    if str(base) in names():
        return get(str(base))._layer()
    path = (layer.folder or Path()) / Path(expanduser(base))
    if not os.path.exists(path) and path.suffix not in (".yaml", ".yml"):
        raise RefcoreError(f"{layer.name}: {key}: {unknown('preset', str(base), names())}; and there is no such file")
    try:
        kind = special(path)  # a config of other people may name a pipe, which waits, or a device, which has no end
    except OSError:
        kind = None
    if kind is not None:
        raise RefcoreError(
            f'{layer.name}: {key} is "{shortened(str(path))}", and {kind}; expected the name of a preset, '
            "or a YAML file"
        )
    return _file(path)


def _file(path: Path) -> _Layer:
    settings = load_yaml(path)
    return _Layer(f'"{shortened(str(path))}"', settings, path.parent, None, path.resolve())


def _laid(layers: list[_Layer]) -> Settings:
    """The settings of layers, each over those before it."""
    settings: Settings = {}
    for layer in layers:
        _about(layer)
        own = {key: value for key, value in layer.settings.items() if key not in (*EXTENDS, ABOUT)}
        settings = _over(settings, own)
    return settings


def _about(layer: _Layer) -> About:
    """What a layer says of itself.

    Raises:
        ConfigError: its section `about` is wrong.
    """
    return validated(About, layer.settings.get(ABOUT) or {}, ABOUT)


def _over(base: Settings, top: Mapping[str, Any]) -> Settings:
    """`top` laid over `base`: mappings field by field, all else replaced.

    A mapping that names another plugin, combiner or kind of schedule replaces the one below it, whose fields it lacks.
    """
    laid = dict(base)
    for key, value in top.items():
        below = base.get(key)
        mappings = isinstance(value, Mapping) and isinstance(below, Mapping)
        laid[key] = _over(dict(below or {}), value) if mappings and not _another(below, value) else value
    return laid


def _another(below: Any, value: Any) -> bool:
    """Whether a mapping is of another plugin or kind than the one below it."""
    return any(tag in value and value[tag] != below.get(tag) for tag in ("name", "kind"))


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
    folder = Path(claim.target).parent if isinstance(claim.target, (str, Path)) else None
    return Preset(name, text, claim.distribution, claim.version, claim.summary, folder)


def _folder() -> Any:
    return resources.files("refcore.presets")


def _shipped() -> list[str]:
    return [file.name.removesuffix(".yaml") for file in _folder().iterdir() if file.name.endswith(".yaml")]
