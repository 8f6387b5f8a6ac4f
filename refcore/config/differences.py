"""The fields in which configs differ, with the value in each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Absent:
    """The value of a field that a config lacks."""

    def __repr__(self) -> str:
        return "absent"


ABSENT = Absent()


def differences(configs: Sequence[Any], path: str = "") -> list[tuple[str, list[Any]]]:
    """(dotted field, value in each config) of every field that is not the same in all, in their order.

    Elements of a list of terms are found by label or name where these are distinct, as by `--set`, else by place. Lists
    of plain values are one value. A section that some configs lack is one, too; differences among the others follow it.

    >>> differences([{"steps": 8, "referees": [{"name": "clip"}]}, {"steps": 9, "referees": []}])
    [('steps', [8, 9]), ('referees.clip', [{'name': 'clip'}, absent])]
    """
    if all(config == configs[0] for config in configs):
        return []
    present = [config for config in configs if config is not ABSENT]
    if len(present) < len(configs):
        among = differences(present, path) if isinstance(present[0], (dict, list)) else []
        places = [i for i, config in enumerate(configs) if config is not ABSENT]
        spread = [(field, dict(zip(places, values, strict=True))) for field, values in among if field != path]
        return [
            (path, list(configs)),
            *((field, [values.get(i, ABSENT) for i in range(len(configs))]) for field, values in spread),
        ]
    if all(isinstance(config, dict) for config in configs):
        parts = list(configs)
    elif all(isinstance(config, list) for config in configs) and any(_sections(config) for config in configs):
        by_name = all(_has_names(config) for config in configs)
        parts = [dict(_named(config) if by_name else enumerate(config)) for config in configs]
    else:
        return [(path, list(configs))]
    keys = dict.fromkeys(key for part in parts for key in part)
    return [
        found
        for key in keys
        for found in differences([part.get(key, ABSENT) for part in parts], f"{path}.{key}" if path else str(key))
    ]


def _sections(config: list[Any]) -> bool:
    """Whether a list has mappings and nothing else."""
    return bool(config) and all(isinstance(element, dict) for element in config)


def _has_names(config: list[Any]) -> bool:
    names = [name for name, _ in _named(config)] if not config or _sections(config) else [None]
    return None not in names and len(set(names)) == len(names)


def _named(config: list[Any]) -> list[tuple[Any, Any]]:
    return [(element.get("label") or element.get("name"), element) for element in config]
