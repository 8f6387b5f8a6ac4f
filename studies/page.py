"""What the studies share: committed results, and pages of which a command writes some parts, between two marks."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from refcore.runs import rundir
from refcore_bench.results import Results

DOCS = Path(__file__).parents[1] / "docs"
ROWS = Path(__file__).parent / "rows"
"""Committed measurements."""
MARK = "<!-- {part}: by studies/{study} -->"
KEPT = ("*.parquet", "*.json", "variants/*.json")
"""Of a benchmark's folder; pictures lie in parts/ and sheets/."""


Pictures = Callable[[Results], None]
"""Draws what a page shows of a benchmark's folder, which alone has the images."""


def from_command_line(description: str | None, sources: Mapping[str, tuple[Path, Pictures | None]]) -> None:
    """Reads a study's command line: what is given with an option is taken over, and its pictures are drawn.

    Args:
        description: of the study, for its help.
        sources: option -> where the results in its DIR are committed, and what draws their pictures.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in sources:
        parser.add_argument(f"--{option}", type=Path, metavar="DIR", help="a benchmark's folder to take over")
    given = vars(parser.parse_args())
    for option, (result, pictures) in sources.items():
        if given[option] is not None:
            found = Results.existing(given[option])
            take_over(found.path, result)
            if pictures is not None:
                pictures(found)


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
