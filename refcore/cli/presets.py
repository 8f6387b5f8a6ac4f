"""`refcore presets`: the presets of refcore and of installed packages."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.padding import Padding

from refcore import registry
from refcore.cli.output import cell_text, print_json, stdout
from refcore.config import presets
from refcore.errors import RefcoreError


def run(as_json: bool) -> None:
    found = [_preset(name) for name in presets.names()]
    if as_json:
        print_json(found)
        return
    working = [preset for preset in found if not preset["error"]]
    groups = {
        "Ready to run": [preset for preset in working if not preset["needs"]],
        "With models of their own": [preset for preset in working if preset["needs"]],
        "Broken": [preset for preset in found if preset["error"]],
    }
    for title, group in groups.items():
        if group:
            stdout.print(f"[bold]{title}[/]\n")
        for preset in group:
            _show(preset)


def _show(preset: dict[str, Any]) -> None:
    """Its name and paper, and below them what it is, what it needs, and how long it takes."""
    origin = "" if preset["distribution"] == "refcore" else f"{preset['distribution']} {preset['version']}".strip()
    of = [preset["paper"], "the default" if preset["default"] else "", f"of {origin}" if origin else ""]
    stdout.print("  ".join([f"[bold]{escape(preset['name'])}[/]", *(escape(each) for each in of if each)]))
    lines = [preset["summary"], preset["error"] or ""]
    lines += [f"{word}: {preset[word]}" for word in ("needs", "time") if preset[word]]
    for line in lines:
        if line:
            stdout.print(Padding(cell_text(line), (0, 0, 0, 2)))
    stdout.print()


def _preset(name: str) -> dict[str, Any]:
    row: dict[str, Any] = {"name": name, "summary": "", "distribution": "", "version": ""}
    row |= {"default": name == presets.DEFAULT, **presets.About().model_dump()}
    try:
        found = presets.get(name)
        about = found.about
    except RefcoreError as error:
        claims = registry.presets().get(name, [])
        origins = {"distribution": ", ".join(claim.distribution for claim in claims)}
        return {**row, **origins, "error": f"broken: {error}"}
    known = {"summary": found.summary, "distribution": found.distribution, "version": found.version}
    return {**row, **known, **about.model_dump(), "error": None}
