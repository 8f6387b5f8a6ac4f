"""A table of the licences in a CycloneDX SBOM, as Markdown: `python .ci/licences.py sbom.cdx.json`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

UNSTATED = "not stated"


def licence(component: dict[str, Any]) -> str:
    """The licences that a component's metadata state, a file's whole text left out."""
    named = []
    for each in component.get("licenses", []):
        own = each.get("license", {})
        named.append(each.get("expression") or own.get("id") or own.get("name") or "")
    plain = [" ".join(name.removeprefix("License :: ").removeprefix("OSI Approved :: ").split()) for name in named]
    names = [name for name in dict.fromkeys(plain) if name]
    return ", ".join(name if len(name) <= 60 else f"{name[:57]}..." for name in names) or UNSTATED


def table(sbom: dict[str, Any]) -> str:
    """Every component by name, with its version and licences."""
    components = sorted(sbom["components"], key=lambda component: component["name"].lower())
    rows = [f"| {each['name']} | {each.get('version', '')} | {licence(each)} |" for each in components]
    return "\n".join(["| package | version | licence |", "| --- | --- | --- |", *rows])


if __name__ == "__main__":
    print(table(json.loads(Path(sys.argv[1]).read_text("utf-8"))))
