"""What the studies share: committed results, and pages of which a command writes some parts, between two marks."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from refcore import rundir

MARK = "<!-- {part}: by docs/studies/{study} -->"
KEPT = ("*.parquet", "*.json", "variants/*.json")
"""Of a benchmark's folder; pictures lie in parts/ and sheets/."""


def take_over(source: Path, result: Path) -> None:
    """Puts a benchmark's results in the place of those of `result`, without their pictures."""
    shutil.rmtree(result, ignore_errors=True)
    for pattern in KEPT:
        for path in source.glob(pattern):
            target = result / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


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
