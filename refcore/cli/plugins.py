"""`refcore plugins` and `refcore plugins show`."""

from __future__ import annotations

import inspect
import types
import typing
from typing import Any

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from rich.markup import escape

from refcore import registry
from refcore.cli.output import print_json, print_table, stdout
from refcore.config.schedule import number_of
from refcore.errors import RefcoreError, unknown

_BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "min_length": "length >=", "max_length": "length <="}


def list_plugins(check: bool, as_json: bool) -> None:
    """Prints a line for each plugin.

    Raises:
        typer.Exit: with status 1, if `check` finds a broken one; they are all printed before.
    """
    rows = registry.rows(check)
    if as_json:
        print_json([row.to_dict() for row in rows])
    else:
        _print_list(rows, check)
    if check and any(row.error for row in rows):
        raise typer.Exit(1)


def _print_list(rows: list[registry.Row], check: bool) -> None:
    columns = ["name", "kind", "version", "distribution", "summary"] + (["fields"] if check else [])
    lines = []
    for row in rows:
        kind = registry.SINGULAR.get(row.kind, row.kind)
        summary = f"broken: {row.error}" if row.error else row.summary
        line = [row.name, kind, row.version, row.distribution, summary]
        lines.append(line + ([", ".join(row.fields)] if check else []))
    print_table(columns, lines)


def show_plugin(name: str, as_json: bool) -> None:
    """Prints the page of each plugin with this name, of any kind.

    Raises:
        RefcoreError: the name is unknown, or the plugin is broken.
    """
    kinds = [kind for kind in registry.KINDS if name in registry.names(kind)]
    if not kinds:
        known = {known for kind in registry.KINDS for known in registry.names(kind)}
        failed = [row.error for row in registry.rows() if row.error and row.name == name]
        raise RefcoreError(failed[0] or "") if failed else unknown("plugin", name, known)
    pages = [page(kind, name) for kind in kinds]
    if as_json:
        print_json(pages if len(pages) > 1 else pages[0])
        return
    for found in pages:
        _print_page(found)


def page(kind: registry.Kind, name: str) -> dict[str, Any]:
    """The description of a plugin, ready for JSON. Imports the plugin.

    Raises:
        RefcoreError: the plugin is broken.
    """
    entry = registry.entry(kind, name)
    cls = registry.get(kind, name)
    return {
        "name": name,
        "kind": kind,
        "distribution": entry.distribution,
        "version": entry.version,
        "summary": entry.summary,
        "class": f"{cls.__module__}:{cls.__qualname__}",
        "description": inspect.cleandoc(cls.__doc__ or ""),
        "facts": {fact: getattr(cls, fact) for fact in cls.facts},
        "conversions": [f"{name}-{conversion}" for conversion in cls.conversions],
        "fields": [
            {
                "name": field,
                "type": type_of(info),
                "default": "required" if info.is_required() else _default(info),
                "description": info.description or "",
            }
            for field, info in cls.Config.model_fields.items()
        ],
        "usage": cls.usage.replace("NAME", name),
    }


def type_of(info: FieldInfo) -> str:
    """The type of a field in readable form, with its bounds: `float, >= 0`.

    >>> from pydantic import Field, create_model
    >>> type_of(create_model("C", n=(int | None, Field(3, ge=1))).model_fields["n"])
    'int or null, >= 1'
    """
    shown = _shown(info.annotation)
    bounds = [
        f"{sign} {getattr(limit, name):g}"
        for limit in info.metadata
        for name, sign in _BOUNDS.items()
        if getattr(limit, name, None) is not None
    ]
    return ", ".join([shown, *bounds])


def _shown(annotation: Any) -> str:
    if annotation is type(None):
        return "null"
    if number := number_of(annotation):
        return f"{number} or schedule"
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _shown(arguments[0])
    if origin is typing.Literal:
        return " or ".join(map(str, arguments))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_shown, arguments))
    if arguments:
        return f"{origin.__name__}[{', '.join(map(_shown, arguments))}]"
    return annotation.__name__ if inspect.isclass(annotation) else str(annotation).replace("typing.", "")


def _default(info: FieldInfo) -> Any:
    default = info.get_default(call_default_factory=True, validated_data={})
    if isinstance(default, BaseModel):
        return default.model_dump(mode="json")
    return default if isinstance(default, (bool, int, float, str, list, dict, type(None))) else _listed(default)


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, (tuple, set, frozenset)) else str(value)


def _print_page(found: dict[str, Any]) -> None:
    origin = f"{found['distribution']} {found['version']}".strip()
    stdout.print(f"[bold]{escape(found['name'])}[/]  {registry.SINGULAR[found['kind']]}, from {escape(origin)}")
    for text in (found["summary"], found["description"]):
        if text:
            stdout.print(f"\n{text}", markup=False)
    stdout.print()
    facts = {"class": found["class"], **found["facts"], "conversions": ", ".join(found["conversions"])}
    print_table(["", ""], [(key.replace("_", " "), _value(value)) for key, value in facts.items() if value != ""])
    if found["fields"]:
        stdout.print()
        rows = [(f["name"], f["type"], _value(f["default"]), f["description"]) for f in found["fields"]]
        print_table(["setting", "type", "default", "meaning"], rows)
    stdout.print(f"\n{found['usage']}\n", markup=False)


def _value(value: Any) -> str:
    return {None: "null", True: "yes", False: "no"}.get(value, str(value)) if _plain(value) else str(value)


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, bool)
