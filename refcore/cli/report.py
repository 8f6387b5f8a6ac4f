"""`refcore report`: makes the report of a run again, from its folder."""

from __future__ import annotations

from pathlib import Path

from refcore.runs.report.page import write_report
from refcore.runs.stored import look_at


def run(folder: Path, open_page: bool) -> None:
    look_at(folder)
    path = write_report(folder)
    print(path)
    if open_page:
        open_in_browser(path)


def open_in_browser(path: Path) -> None:
    """Shows a page in the browser; where there is none, its address is on stdout anyway."""
    import webbrowser

    webbrowser.open(path.resolve().as_uri())
