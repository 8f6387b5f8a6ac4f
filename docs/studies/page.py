"""What the studies share: committed results, and pages of which a command writes some parts, between two marks."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from refcore import rundir
from refcore_playground.bench.results import Results

MARK = "<!-- {part}: by docs/studies/{study} -->"
KEPT = ("*.parquet", "*.json", "variants/*.json")
"""Of a benchmark's folder; pictures lie in parts/ and sheets/."""


def from_command_line(description: str | None, result: Path, pictures: Callable[[Results], None]) -> None:
    """Reads a study's command line: with `--from DIR` the results in DIR are taken over, and their pictures drawn."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="source", type=Path, metavar="DIR", help="a benchmark's folder to take over")
    source = parser.parse_args().source
    if source is not None:
        take_over(Results.existing(source).path, result)
        pictures(Results.existing(source))


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
