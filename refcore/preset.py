"""Where a run's settings come from: YAML presets of refcore and of packages, the user's files, and dotted overrides.

Settings are plain nested dicts and lists here; `refcore.config` gives them their meaning.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import yaml

from refcore import registry
from refcore.config import RunConfig
from refcore.names import unknown
from refcore.plugin import RefcoreError

Settings = dict[str, Any]
DEFAULT = "playground"
"""The preset of a run that names none."""


@dataclass(frozen=True)
class Preset:
    """A preset: its name, what its YAML file holds, and the package that ships it."""

    name: str
    text: str
    distribution: str = "refcore"
    version: str = ""
    registered: str = ""
    """The summary that it was registered with, if any."""

    @property
    def summary(self) -> str:
        """What its package says of it, or the comment in the file's first line."""
        first = (self.text.splitlines() or [""])[0]
        return self.registered or (first.removeprefix("#").strip() if first.startswith("#") else "")

    @property
    def settings(self) -> Settings:
        return parse(self.text, f'preset "{self.name}"')


def compose(
    preset: str | None = None, file: str | Path | None = None, overrides: Iterable[str] = (), **fields: Any
) -> RunConfig:
    """The config of a run: a preset (the default one) or a file, then overrides, then whole fields such as `prompts`.

    Raises:
        RefcoreError: a preset and a file at once, an unknown preset, a file that cannot be read, or a config that is
            wrong (a ConfigError).
    """
    if preset is not None and file is not None:
        raise RefcoreError(f'both the preset "{preset}" and the config file "{file}" were given; expected one of them')
    settings = load(file) if file is not None else get(preset or DEFAULT).settings
    return RunConfig.parse({**override(settings, overrides), **fields})


def names() -> list[str]:
    """Names of the presets of refcore and of installed packages, sorted."""
    return sorted({*_shipped(), *registry.presets()})


def get(name: str) -> Preset:
    """A preset of refcore or of an installed package.

    Raises:
        RefcoreError: there is none of that name, two packages claim it, or its file cannot be read.
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
    text = _read(claim.target, f'preset "{name}" (from {claim.origin})')
    return Preset(name, text, claim.distribution, claim.version, claim.summary)


def load(path: str | Path) -> Settings:
    """The settings in a YAML file, a run's own `config.yaml` for example.

    Raises:
        RefcoreError: the file is missing, unreadable, or no YAML mapping.
    """
    return parse(_read(path, "the config file"), f'config file "{path}"')


def parse(text: str, source: str) -> Settings:
    """YAML text as settings; `source` names it in errors. A key that occurs twice is refused.

    Raises:
        RefcoreError: it is no YAML, or no mapping.
    """
    try:
        settings = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise RefcoreError(f"{source} is not valid YAML{where}: {getattr(error, 'problem', None) or error}") from error
    if not isinstance(settings, dict):
        raise RefcoreError(
            f"{source} holds {_kind(settings)}; expected a mapping of fields, as `refcore config show` prints"
        )
    return settings


def override(settings: Settings, assignments: Iterable[str]) -> Settings:
    """A copy of `settings` with `referees.0.weight=0.5` and the like applied in order.

    A part of the path is a key, or the index of a list's element; `+`, or the index one past the end, appends. The
    value is YAML: `3`, `true`, `null`, `[a, b]`, `{name: tv, weight: 0.1}`, or a bare string.

    Raises:
        RefcoreError: the assignment has no "=", its value is no YAML, or its path runs through something that has no
            such element. Whether a field exists is for `refcore.config` to say.

    >>> override({"referees": [{"weight": 1.0}]}, ["referees.0.weight=0.5"])
    {'referees': [{'weight': 0.5}]}
    >>> override({"priors": [{"name": "sds"}]}, ["priors.+={name: tv}"])
    {'priors': [{'name': 'sds'}, {'name': 'tv'}]}
    """
    settings = copy.deepcopy(settings)
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        path = path.strip()
        if not equals or not all(path.split(".")):
            raise RefcoreError(
                f'--set "{assignment}" is no assignment; expected FIELD=VALUE, as in referees.0.weight=0.5'
            )
        try:
            value = yaml.load(text, Loader=_Loader)
        except yaml.YAMLError as error:
            raise RefcoreError(f'--set "{assignment}": the value is not valid YAML; quote it') from error
        _assign(settings, path.split("."), value)
    return settings


def dump(settings: Settings) -> str:
    """Settings as YAML that `parse` reads back to the same values."""
    return yaml.dump(settings, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100, default_flow_style=False)


def _assign(settings: Settings, path: list[str], value: Any) -> None:
    node: Any = settings
    for depth, part in enumerate(path):
        last = depth == len(path) - 1
        here = ".".join(path[:depth]) or "the config"
        if isinstance(node, list):
            key: Any = _index(node, part, here)
            if key == len(node):
                node.append(None if last else {})
        elif isinstance(node, dict):
            key = part
            if not last and node.get(key) is None:
                node[key] = {}
        else:
            raise RefcoreError(f'--set {".".join(path)}: {here} is {_kind(node)}, and has no "{part}"')
        if last:
            node[key] = value
        else:
            node = node[key]


def _index(node: list[Any], part: str, here: str) -> int:
    if part == "+":
        return len(node)
    if part.isdecimal() and int(part) <= len(node):
        return int(part)
    have = f"0 to {len(node) - 1}" if node else "none"
    raise RefcoreError(f'{here} has no element "{part}"; it is a list with the elements {have} (+ appends one)')


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, dict):
        return "a mapping"
    return f"the value {value!r}"


def _read(path: Any, what: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise RefcoreError(f'cannot read {what} "{path}": {reason}') from error


def _folder() -> Any:
    return resources.files("refcore.presets")


def _shipped() -> list[str]:
    return [file.name.removesuffix(".yaml") for file in _folder().iterdir() if file.name.endswith(".yaml")]


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice and reads `1e-4` as a number, as YAML 1.2 does."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f'the key "{key}" occurs twice', key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """SafeDumper that indents the elements of a list and writes lists of plain numbers on one line."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        # Outside double quotes PyYAML writes these line breaks as they are, and reads them back as spaces.
        style = '"' if set(data) & set("\x85\u2028\u2029") else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style)

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:
        node = super().represent_sequence(tag, sequence, flow_style)
        plain = all(isinstance(item, yaml.ScalarNode) and item.tag != "tag:yaml.org,2002:str" for item in node.value)
        if node.value and plain:
            node.flow_style = True
        return node


_Dumper.add_representer(str, _Dumper.represent_str)
_EXPONENT = re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$")
for _side in (_Loader, _Dumper):  # both, so that the string "1e4" is quoted on its way out
    _side.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+0123456789."))
