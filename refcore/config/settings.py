"""Settings as nested plain dicts and lists: read from YAML, overridden by dotted paths, and written."""

from __future__ import annotations

import copy
import re
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from refcore.config.labels import labels
from refcore.errors import RefcoreError
from refcore.registry import as_plugin_use

Settings = dict[str, Any]
TERMS = ("referees", "priors", "witnesses")
"""The lists whose labels are told apart together."""


def load_yaml(path: str | Path) -> Settings:
    """The settings in a YAML file, for example a run's `config.yaml`.

    Raises:
        RefcoreError: the file is missing, unreadable, or not a YAML mapping.
    """
    return parse_yaml(read_text(path, "the config file"), f'config file "{path}"')


def parse_yaml(text: str, source: str) -> Settings:
    """YAML text as settings; `source` names it in errors. Duplicate keys are refused.

    Raises:
        RefcoreError: the text is not YAML, or not a mapping.
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
    """A copy of `settings` with assignments such as `referees.0.weight=0.5` applied in order.

    Each part of a path is a key, or the element of a list: its index, its label or name, or `+` (also the index one
    past the end) to append. A list that is absent is made. The value is YAML: `3`, `true`, `null`, `[a, b]`,
    `{name: tv, weight: 0.1}`, or a bare string.

    Raises:
        RefcoreError: an assignment has no "=", a value is not YAML, or a path leads through a value without such an
            element. Whether the field exists is checked later, by `RunConfig`.

    >>> override({"referees": [{"weight": 1.0}]}, ["referees.0.weight=0.5"])
    {'referees': [{'weight': 0.5}]}
    >>> override({"priors": [{"name": "sds"}]}, ["priors.+={name: tv}", "priors.sds.weight=2"])
    {'priors': [{'name': 'sds', 'weight': 2}, {'name': 'tv'}]}
    >>> override({}, ["priors.+={name: tv}"])
    {'priors': [{'name': 'tv'}]}
    """
    settings = copy.deepcopy(settings)
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        path = path.strip()
        if not equals or not all(path.split(".")):
            raise RefcoreError(
                f'--set "{assignment}" is not an assignment; expected FIELD=VALUE, as in referees.0.weight=0.5'
            )
        try:
            value = yaml.load(text, Loader=_Loader)
        except yaml.YAMLError as error:
            raise RefcoreError(f'--set "{assignment}": the value is not valid YAML; quote it') from error
        _assign(settings, path.split("."), value)
    return settings


def dump_yaml(settings: Settings) -> str:
    """Settings as YAML text, which `parse_yaml` reads back to equal values."""
    return yaml.dump(settings, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100, default_flow_style=False)


def _assign(settings: Settings, path: list[str], value: Any) -> None:
    node: Any = settings
    for depth, part in enumerate(path):
        last = depth == len(path) - 1
        here = ".".join(path[:depth]) or "the config"
        if isinstance(node, list):
            key: Any = _index(node, part, here, _labels(settings, node))
            if key == len(node):
                node.append(None if last else {})
        elif isinstance(node, dict):
            key = part
            if not last and node.get(key) is None:
                node[key] = [] if path[depth + 1] == "+" else {}
        else:
            raise RefcoreError(f'--set {".".join(path)}: {here} is {_kind(node)} and has no "{part}"')
        if last:
            node[key] = value
        else:
            node = node[key]


def _index(node: list[Any], part: str, here: str, known: Sequence[str]) -> int:
    if part == "+":
        return len(node)
    if part.isdecimal() and int(part) <= len(node):
        return int(part)
    if part in known:
        return known.index(part)
    have = f"0 to {len(node) - 1}" if node else "none"
    named = f", a label ({', '.join(filter(None, known))})" if any(known) else ""
    raise RefcoreError(f'{here} has no element "{part}"; expected an index of the list ({have}){named}, or + to append')


def _labels(settings: Settings, node: list[Any]) -> list[str]:
    """The label of each element of a list, "" for one without a name; those of terms are told apart as in a run."""
    lists = [settings[kind] for kind in TERMS if isinstance(settings.get(kind), list)]
    terms = lists if any(own is node for own in lists) else [node]
    named = [_named(element) for own in terms for element in own]
    found = [label if name or given else "" for label, (name, given) in zip(labels(named), named, strict=True)]
    start = sum(len(own) for own in terms[: next(i for i, own in enumerate(terms) if own is node)])
    return found[start : start + len(node)]


def _named(element: Any) -> tuple[str, str | None]:
    """(name, label) of a list's element, as far as it has them."""
    element = as_plugin_use(element)
    if not isinstance(element, dict):
        return "", None
    name, label = element.get("name"), element.get("label")
    return str(name or ""), str(label) if label else None


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, dict):
        return "a mapping"
    return f"the value {value!r}"


def read_text(path: Any, what: str) -> str:
    """The text of a UTF-8 file; `what` names it in the error.

    Raises:
        RefcoreError: the file is missing, unreadable, or not UTF-8.
    """
    try:
        return Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise RefcoreError(f'cannot read {what} "{path}": {reason}') from error


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys and reads `1e-4` as a number, as YAML 1.2 does."""

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
