"""A config as lines of text, with those marked that differ from its preset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from refcore.config.settings import dump_yaml

MOST_LINES, LONGEST = 500, 240
"""Lines that are shown, and characters of each."""


@dataclass(frozen=True)
class Line:
    """A line of a config as YAML."""

    text: str
    changed: bool = False
    """True where it differs from the preset."""
    before: str = ""
    """The preset's value."""


def config_lines(settings: Mapping[str, Any], changed: Mapping[str, list[Any]]) -> list[Line]:
    """The settings as YAML, line by line.

    Args:
        settings: of a config.
        changed: dotted field -> a list of the preset's value, empty where it lacks the field. Elements of lists are
            found by label, name or place.
    """
    lines = list(_lines(settings, 0, [""], changed, False))
    # What the preset has and the run lacks stands nowhere in the config.
    met = {field for field in changed if _holds(settings, field.split("."))}
    lines += [Line(f"# {field}: left out", True, _shown(changed[field])) for field in changed if field not in met]
    if len(lines) > MOST_LINES:
        lines = [*lines[:MOST_LINES], Line(f"# ... and {len(lines) - MOST_LINES} more lines in config.yaml")]
    return [Line(_cut(line.text), line.changed, line.before) for line in lines]


def _lines(
    value: Any, depth: int, names: list[str], changed: Mapping[str, list[Any]], inside: bool, dash: str = ""
) -> Iterator[Line]:
    """The lines of a mapping or list whose dotted name is one of `names`."""
    indent = "  " * depth
    if isinstance(value, Mapping):
        entries = [(str(key), inner, [str(key)], f"{key}:") for key, inner in value.items()]
    else:
        entries = [(str(i), inner, _names(i, inner), "-") for i, inner in enumerate(value)]
    for number, (_, inner, own, head) in enumerate(entries):
        paths = [f"{name}.{each}" if name else each for name in names for each in own]
        before = [changed[path] for path in paths if path in changed]
        differs = inside or bool(before)
        start = (dash if number == 0 and dash else indent) + head
        note = _shown(before[0]) if before and not inside else ""
        if isinstance(inner, (Mapping, list)) and inner and not _is_plain(inner):
            if head == "-" and isinstance(inner, Mapping):
                yield from _lines(inner, depth + 1, paths, changed, differs, f"{start} ")
            else:
                yield Line(start, differs, note)
                yield from _lines(inner, depth + 1, paths, changed, differs)
        else:
            yield Line(f"{start} {one_line(inner)}", differs, note)


def _names(place: int, element: Any) -> list[str]:
    """What an element of a list may be called in a dotted field."""
    own = (element.get("label") or element.get("name")) if isinstance(element, Mapping) else None
    return [str(place), *([str(own)] if own else [])]


def _is_plain(value: Any) -> bool:
    """Whether a list or mapping is short enough for one line."""
    inner = list(value.values()) if isinstance(value, Mapping) else list(value)
    simple = all(not isinstance(each, Mapping) and not (isinstance(each, list) and each) for each in inner)
    return isinstance(value, list) and simple and len(one_line(value)) <= 80


def _holds(settings: Any, path: list[str]) -> bool:
    """Whether a config has a field; names may hold dots."""
    if not path:
        return True
    if isinstance(settings, Mapping):
        entries = [(str(key), inner) for key, inner in settings.items()]
    elif isinstance(settings, list):
        entries = [(name, inner) for i, inner in enumerate(settings) for name in _names(i, inner)]
    else:
        return False
    return any(
        name.split(".") == path[: name.count(".") + 1] and _holds(inner, path[name.count(".") + 1 :])
        for name, inner in entries
    )


def one_line(value: Any) -> str:
    """A value in one line of YAML."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, int):
        return str(value)
    (text, *_) = dump_yaml({"value": value}).split("value:", 1)[1:]
    flat = " ".join(text.split())
    if isinstance(value, list):
        return f"[{', '.join(one_line(each) for each in value)}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {one_line(each)}' for key, each in value.items())}}}"
    return flat


def _shown(before: list[Any]) -> str:
    return f"the preset has {_cut(one_line(before[0]), 80)}" if before else "not in the preset"


def _cut(text: str, most: int = LONGEST) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."
