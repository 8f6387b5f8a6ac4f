"""Settings as nested plain dicts and lists: read from YAML, overridden by dotted paths, and written."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from refcore.config.labels import labels
from refcore.config.yaml_text import CHARACTERS, DEPTH, read_yaml, write_yaml
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
        settings = read_yaml(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise RefcoreError(f"{source} is not valid YAML{where}: {_problem(error)}") from error
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
                f'--set "{_short(assignment)}" is not an assignment; expected FIELD=VALUE, as in referees.0.weight=0.5'
            )
        if path.count(".") >= DEPTH:
            raise RefcoreError(
                f'--set "{_short(assignment)}" goes {path.count(".") + 1} deep; expected at most {DEPTH}'
            )
        try:
            value = read_yaml(text)
        except yaml.YAMLError as error:
            raise RefcoreError(
                f'--set "{_short(assignment)}": the value is not valid YAML ({_problem(error)}); quote it'
            ) from error
        _assign(settings, path.split("."), value)
    return settings


def dump_yaml(settings: Settings) -> str:
    """Settings as YAML text, which `parse_yaml` reads back to equal values."""
    return write_yaml(settings)


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
            raise RefcoreError(
                f'--set {_short(".".join(path))}: {_short(here)} is {_kind(node)} and has no "{_short(part)}"'
            )
        if last:
            node[key] = value
        else:
            node = node[key]


def _index(node: list[Any], part: str, here: str, known: Sequence[str]) -> int:
    if part == "+":
        return len(node)
    if part.isdecimal() and len(part) < 10 and int(part) <= len(node):
        return int(part)
    if part in known:
        return known.index(part)
    have = f"0 to {len(node) - 1}" if node else "none"
    named = f", a label ({_short(', '.join(filter(None, known)))})" if any(known) else ""
    raise RefcoreError(
        f'{_short(here)} has no element "{_short(part)}"; expected an index of the list ({have}){named}, or + to append'
    )


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
    return f"the value {_short(repr(value))}"


def _short(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:97]}..."


def _problem(error: yaml.YAMLError) -> str:
    return str(getattr(error, "problem", None) or error)


def read_text(path: Any, what: str) -> str:
    """The text of a UTF-8 file; `what` names it in the error.

    Raises:
        RefcoreError: the file is missing, unreadable, or not UTF-8.
    """
    try:
        with Path(path).open(encoding="utf-8") as file:
            text = file.read(CHARACTERS + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        if "\0" in str(path):
            reason = "its name holds a null character"
        raise RefcoreError(f'cannot read {what} "{_short(str(path))}": {reason}') from error
    if len(text) > CHARACTERS:
        raise RefcoreError(f'{what} "{_short(str(path))}" has more than {CHARACTERS:,} characters; expected fewer')
    return text
