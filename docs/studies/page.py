"""What the studies share: pages of which some parts are written by a command, between two marks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from refcore import rundir

MARK = "<!-- {part}: by docs/studies/{study} -->"


def fill(page: Path, study: str, parts: Mapping[str, str]) -> None:
    """Puts each part between its two marks in a page, which must have them.

    Raises:
        ValueError: a mark is missing.
    """
    text = page.read_text("utf-8")
    for name, part in parts.items():
        mark = MARK.format(part=name, study=study)
        if text.count(mark) != 2:
            raise ValueError(f"{page}: {text.count(mark)} marks {mark!r}; expected 2")
        before, _, after = text.split(mark)
        text = f"{before}{mark}\n{part.strip()}\n{mark}{after}"
    rundir.write_text(page, text)
