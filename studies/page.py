"""Shared by the studies: committed results, and pages with generated parts between marks."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from refcore.runs import rundir
from refcore_bench.storing.results import Results

DOCS = Path(__file__).parents[1] / "docs"
ROWS = Path(__file__).parent / "rows"
"""Committed measurements."""
MARK = "<!-- {part}: by studies/{study} -->"
KEPT = ("*.parquet", "*.json", "variants/*.json")
"""Files of a benchmark's folder to commit; pictures, in parts/ and sheets/, are not committed."""


Pictures = Callable[[Results], None]
"""Draws a page's pictures from a benchmark's folder, which alone has the images."""


def from_command_line(description: str | None, sources: Mapping[str, tuple[Path, Pictures | None]]) -> None:
    """Parses a study's command line, imports the results given by its options, and draws their pictures.

    Args:
        description: description of the study, for its help.
        sources: option -> (folder where its results are committed, function that draws their pictures).
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in sources:
        parser.add_argument(f"--{option}", type=Path, metavar="DIR", help="import the results in this folder")
    given = vars(parser.parse_args())
    for option, (result, pictures) in sources.items():
        if given[option] is not None:
            found = Results.existing(given[option])
            import_results(found.path, result)
            if pictures is not None:
                pictures(found)


def import_results(source: Path, result: Path) -> None:
    """Replaces the results in `result` by those of `source`, without pictures."""
    shutil.rmtree(result, ignore_errors=True)
    for pattern in KEPT:
        for path in source.glob(pattern):
            target = result / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def fill(page: Path, study: str, parts: Mapping[str, str]) -> None:
    """Writes each part between its two marks in a page.

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
