"""`refcore plugins` and `refcore presets`."""

from __future__ import annotations

from refcore import preset, registry
from refcore.cli.output import print_json, print_table


def list_plugins(check: bool, as_json: bool) -> None:
    rows = registry.rows(check)
    if as_json:
        print_json([row.to_dict() for row in rows])
        return
    columns = ["kind", "name", "from", "summary"] + (["fields"] if check else [])
    lines = []
    for row in rows:
        kind = registry.SINGULAR.get(row.kind, row.kind)
        summary = f"broken: {row.error}" if row.error else row.summary
        line = [kind, row.name, f"{row.distribution} {row.version}".strip(), summary]
        lines.append(line + ([", ".join(row.fields)] if check else []))
    print_table(columns, lines)


def list_presets(as_json: bool) -> None:
    found = [preset.get(name) for name in preset.names()]
    if as_json:
        print_json([{"name": p.name, "summary": p.summary, "default": p.name == preset.DEFAULT} for p in found])
    else:
        print_table(["name", "summary"], [(p.name, p.summary) for p in found])
