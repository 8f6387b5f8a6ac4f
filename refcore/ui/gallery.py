"""The runs so far, as the page lists them: pictures, states, links to reports, and comparisons."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from refcore.errors import RefcoreError
from refcore.runs import rundir
from refcore.runs.folders import RunFolder, runs_under
from refcore.runs.report.comparison import free_path, runs_in, write_comparison

MOST = 60
"""Runs that are listed, the newest first."""


def runs(folder: Path) -> list[RunFolder]:
    """The runs in a folder, the newest first."""
    return (runs_under(folder) if folder.is_dir() else [])[:MOST]


def name_of(run: RunFolder, folder: Path) -> str:
    """A run's place in the folder of all runs."""
    return str(run.path.relative_to(folder))


def html(found: Sequence[RunFolder], folder: Path) -> str:
    """The runs as pictures with links."""
    if not found:
        return '<p class="soft">There are no runs yet.</p>'
    return f'<div class="runs">{"".join(_figure(run, folder) for run in found)}</div>'


def compared(folder: Path, names: Sequence[str]) -> str:
    """Writes the comparison of some runs into the folder, and returns a link to it.

    Raises:
        RefcoreError: fewer than two or too many are chosen, or one is no run of the folder.
    """
    known = {name_of(run, folder): run.path for run in runs(folder)}
    if others := [name for name in names if name not in known]:
        raise RefcoreError(f'there is no run "{others[0]}"; press Refresh')
    page = free_path(folder)
    write_comparison(runs_in([known[name] for name in names]), page)
    return f"<p>{_anchor(folder, page, f'Comparison of {len(names)} runs')}</p>"


def link(folder: Path, run: Path) -> str:
    """A link to a run's report; "" where it has none."""
    return _anchor(folder, run / rundir.REPORT, "report") if (run / rundir.REPORT).is_file() else ""


def _figure(run: RunFolder, folder: Path) -> str:
    picture, prompt = run.path / rundir.image_name(0), ", ".join(run.prompts) or "no prompt"
    image = ""
    if picture.is_file():
        data = base64.b64encode(picture.read_bytes()).decode()
        image = f'<img src="data:image/png;base64,{data}" alt="{escape(prompt, quote=True)}">'
    caption = f"{escape(prompt)}<br>{escape(name_of(run, folder))}, {run.state} {link(folder, run.path)}"
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def _anchor(folder: Path, file: Path, text: str) -> str:
    place = quote(f"/runs/{file.relative_to(folder)}")
    return f'<a href="{place}" target="_blank" rel="noopener">{escape(text)}</a>'
