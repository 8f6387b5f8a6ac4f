"""The runs so far, as the page lists them: pictures, links to reports, and comparisons."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import quote

from refcore.errors import RefcoreError
from refcore.runs import rundir
from refcore.runs.stored import read_run

MOST = 60
"""Runs that are listed, the newest first."""
REPORT = "report.html"


@dataclass(frozen=True)
class Listed:
    """A run in the runs folder."""

    name: str
    path: Path
    prompt: str
    """Of its first sample, or what its folder lacks."""
    picture: Path | None


def runs(folder: Path) -> list[Listed]:
    """The runs in a folder, the newest first; a folder that holds none, or cannot be read, is left out."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name.startswith(".") or path.is_symlink() or not (path / rundir.CONFIG).is_file():
            continue
        try:
            prompt = str(read_run(path).samples[0]["prompt"])
        except RefcoreError:
            prompt = "not finished"
        picture = path / rundir.image_name(0)
        found.append((path.stat().st_mtime, Listed(path.name, path, prompt, picture if picture.is_file() else None)))
    return [one for _, one in sorted(found, key=lambda each: -each[0])[:MOST]]


def html(found: Sequence[Listed]) -> str:
    """The runs as pictures with links."""
    if not found:
        return '<p class="soft">There are no runs yet.</p>'
    figures = []
    for run in found:
        image = ""
        if run.picture is not None:
            data = base64.b64encode(run.picture.read_bytes()).decode()
            image = f'<img src="data:image/png;base64,{data}" alt="{escape(run.prompt, quote=True)}">'
        figures.append(
            f"<figure>{image}<figcaption>{escape(run.prompt)}<br>{escape(run.name)} {link(run.path.parent, run.path)}"
            "</figcaption></figure>"
        )
    return f'<div class="runs">{"".join(figures)}</div>'


def link(folder: Path, run: Path) -> str:
    """A link to a run's report; "" where it has none."""
    if not (run / REPORT).is_file():
        return ""
    place = quote(f"/runs/{run.relative_to(folder)}/{REPORT}")
    return f'<a href="{place}" target="_blank" rel="noopener">report</a>'
