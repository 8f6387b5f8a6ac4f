"""`refcore presets`: the presets of refcore and of installed packages."""

from __future__ import annotations

from typing import Any

from refcore import registry
from refcore.cli.output import print_json, print_table
from refcore.config import presets
from refcore.errors import RefcoreError


def run(as_json: bool) -> None:
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
    known = {"summary": found.summary, "distribution": found.distribution, "version": found.version}
    return {**row, **known, "error": None}
