"""Labels that every table puts beside a variant's name: its config uses a parser that knows the prompts' grammar."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from refcore import registry

ORACLE = "oracle parser"


def labels(settings: Any) -> list[str]:
    """Labels of a config, or of anything that contains one; a field `parser`, at any depth, names a parser."""
    found = []
    for name in dict.fromkeys(_parsers(settings)):
        if name not in registry.names("parsers"):
            found.append(f'parser "{name}", not installed')
        elif registry.get("parsers", name).oracle:
            found.append(ORACLE)
    return list(dict.fromkeys(found))


def _parsers(settings: Any) -> Iterator[str]:
    if isinstance(settings, dict):
        for field, value in settings.items():
            if field == "parser" and value:
                yield value["name"] if isinstance(value, dict) else str(value)
            yield from _parsers(value)
    elif isinstance(settings, (list, tuple)):
        for value in settings:
            yield from _parsers(value)
