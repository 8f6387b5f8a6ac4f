"""`refcore plugins`, `refcore plugins show` and `refcore presets`."""

from __future__ import annotations

import inspect
import re
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from rich.markup import escape

from refcore import registry
from refcore.cli.output import print_json, print_table, stdout
from refcore.config import presets
from refcore.errors import RefcoreError, unknown

_FACTS: dict[str, tuple[str, ...]] = {
    "referees": ("score_unit", "bounded_above"),
    "priors": ("space", "couples_samples"),
    "augmentations": ("geometric",),
    "canvases": (),
    "parsers": ("oracle",),
    "judges": (),
}
"""The class attributes of each contract that a user wants to know."""
_BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "min_length": "length >=", "max_length": "length <="}


def list_plugins(check: bool, as_json: bool) -> None:
    rows = registry.rows(check)
    if as_json:
        print_json([row.to_dict() for row in rows])
        return
    columns = ["name", "kind", "version", "distribution", "summary"] + (["fields"] if check else [])
    lines = []
    for row in rows:
        kind = registry.SINGULAR.get(row.kind, row.kind)
        summary = f"broken: {row.error}" if row.error else row.summary
        line = [row.name, kind, row.version, row.distribution, summary]
        lines.append(line + ([", ".join(row.fields)] if check else []))
    print_table(columns, lines)


def show_plugin(name: str, as_json: bool) -> None:
    """The page of a plugin; of every kind that has one of this name.

    Raises:
        RefcoreError: no plugin has the name, or it is broken.
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
    """What there is to know of a plugin, ready for JSON. Imports it.

    Raises:
        RefcoreError: it is broken.
    """
    entry = registry.entry(kind, name)
    cls = registry.get(kind, name)
    facts = {fact: getattr(cls, fact) for fact in _FACTS[kind]}
    return {
        "name": name,
        "kind": kind,
        "distribution": entry.distribution,
        "version": entry.version,
        "summary": entry.summary,
        "class": f"{cls.__module__}:{cls.__qualname__}",
        "description": inspect.cleandoc(cls.__doc__ or ""),
        "facts": facts,
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
        "use": use(kind, name),
    }


def list_presets(as_json: bool) -> None:
    found = [_preset(name) for name in presets.names()]
    if as_json:
        print_json(found)
    else:
        rows = [(p["name"], p["version"], p["distribution"], p["error"] or p["summary"]) for p in found]
        print_table(["name", "version", "distribution", "summary"], rows)


def _preset(name: str) -> dict[str, Any]:
    row = {"name": name, "summary": "", "distribution": "", "version": "", "default": name == presets.DEFAULT}
    try:
        found = presets.get(name)
    except RefcoreError as error:
        claims = registry.presets().get(name, [])
        origins = {"distribution": ", ".join(claim.distribution for claim in claims)}
        return {**row, **origins, "error": f"broken: {error}"}
    told = {"summary": found.summary, "distribution": found.distribution, "version": found.version}
    return {**row, **told, "error": None}


def type_of(info: FieldInfo) -> str:
    """The type of a field as a person writes it, with its bounds: `float, >= 0`.

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
    if inspect.isclass(annotation) and not hasattr(annotation, "__origin__"):
        return annotation.__name__
    text = str(annotation).replace("typing.", "").replace("NoneType", "null").replace("None", "null")
    text = re.sub(r"Annotated\[(\w+), [^\]]*\]+", r"\1", text)
    text = re.sub(r"Literal\[([^\]]*)\]", lambda match: match[1].replace("'", "").replace(", ", " | "), text)
    return text.replace(" | ", " or ")


def _default(info: FieldInfo) -> Any:
    default = info.get_default(call_default_factory=True, validated_data={})
    if isinstance(default, BaseModel):
        return default.model_dump(mode="json")
    return default if isinstance(default, (bool, int, float, str, list, dict, type(None))) else _listed(default)


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, (tuple, set, frozenset)) else str(value)


def use(kind: registry.Kind, name: str) -> str:
    """How a config names it; how the command line names a judge, which no config does."""
    return {
        "referees": f"referees:\n  - name: {name}\n    weight: 1.0\n    config: {{}}",
        "priors": f"priors:\n  - name: {name}\n    weight: 1.0\n    config: {{}}",
        "augmentations": f"views:\n  main:\n    augment:\n      - name: {name}\n        config: {{}}",
        "canvases": f"canvas:\n  name: {name}\n  config: {{}}",
        "parsers": f"referees:\n  - name: clip\n    phrases: {{parser: {{name: {name}, config: {{}}}}}}",
        "judges": f"refcore judge IMAGE PROMPT --by {name}",
    }[kind]


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
    stdout.print(f"\n{found['use']}\n", markup=False)


def _value(value: Any) -> str:
    return {None: "null", True: "yes", False: "no"}.get(value, str(value)) if _plain(value) else str(value)


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, bool)
