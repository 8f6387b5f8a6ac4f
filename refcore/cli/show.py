"""`refcore show`: a run in the terminal, with its pictures as far as the terminal can show them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refcore.cli.output import print_table
from refcore.cli.report import open_in_browser
from refcore.images import Levels
from refcore.runs.report.curves import Chart, brief, called, curves
from refcore.runs.report.page import REPORT, cut, ended, image_of, write_report
from refcore.runs.report.recording import Recording
from refcore.runs.stored import StoredRun, look_at

if TYPE_CHECKING:
    from rich.console import RenderableType

MOST_PICTURES, MOST_CURVES, MOST_ROWS = 6, 4, 50
"""Samples whose pictures, and whose curves, are shown; and rows of the table."""
CELLS = 36
"""Characters across a picture."""
BARS = "▁▂▃▄▅▆▇█"
WORDS = {True: "yes", False: "no", None: ""}
"""A verdict for people."""
SPARK = 32
"""Characters of a curve."""


def run(folder: Path, open_page: bool) -> None:
    found = look_at(folder)
    history = found.history
    print(ended(found, len(history)))
    _print_samples(found)
    if sys.stdout.isatty():
        _print_pictures(found)
    _print_curves(found, history)
    page = found.path / REPORT
    if open_page and not page.is_file():
        write_report(found.path, history)
    print(f"report: {page}" if page.is_file() else f"no report yet: refcore report {found.path}")
    if open_page:
        open_in_browser(page)


def _print_samples(found: StoredRun) -> None:
    samples = found.samples
    labels = list(dict.fromkeys(label for own in samples for label in _scores(own)))
    judged = any("verdict" in own for own in samples)
    rows = [
        [
            str(number),
            cut(own["prompt"], 60),
            str(own["seed"]),
            *("" if _scores(own).get(label) is None else f"{_scores(own)[label]:.3f}" for label in labels),
            *([WORDS[own.get("verdict")]] if judged else []),
        ]
        for number, own in enumerate(samples[:MOST_ROWS], 1)
    ]
    print_table(["", "prompt", "seed", *labels, *(["verdict"] if judged else [])], rows)
    if len(samples) > MOST_ROWS:
        print(f"... and {len(samples) - MOST_ROWS} more")


def _scores(sample: dict[str, Any]) -> dict[str, Any]:
    return {**(sample.get("scores") or {}), **(sample.get("witnesses") or {})}


def _print_pictures(found: StoredRun) -> None:
    from rich.columns import Columns
    from rich.console import Group
    from rich.text import Text

    from refcore.cli.output import stdout

    blocks: list[RenderableType] = []
    for b, own in enumerate(found.samples[:MOST_PICTURES]):
        levels = picture_of(found, b)
        if levels is None:
            continue
        shown, caption = terminal_picture(levels), Text(f"{b + 1}: {cut(own['prompt'], CELLS - 4)}")
        if isinstance(shown, HalfBlocks):
            blocks.append(Group(shown, caption))
        else:  # graphics that are not text do not stand side by side
            stdout.print(shown)
            stdout.print(caption)
    if blocks:
        stdout.print(Columns(blocks, padding=(1, 2)))
    if len(found.samples) > MOST_PICTURES:
        print(f"pictures of the first {MOST_PICTURES} of {len(found.samples)} samples")


def picture_of(found: StoredRun, b: int) -> Levels | None:
    """The image of a sample; of an unfinished run the last that was recorded. None where there is neither."""
    if (final := image_of(found, b)) is not None:
        return final
    recording = Recording.read(found.path)
    for frame in reversed(recording.frames):
        tiles = recording.pictures(found.path, frame.file, len(recording.samples))
        if tiles is not None and b < len(tiles[0]):
            return tiles[0][b]
    return None


def terminal_picture(levels: Levels) -> RenderableType:
    """A picture by the terminal's own graphics (kitty, sixel) if textual-image finds them, else in half blocks."""
    from PIL import Image

    image = Image.fromarray(levels)
    try:
        from textual_image import renderable
    except ImportError:
        return HalfBlocks(image)
    if renderable.Image in (renderable.SixelImage, renderable.TGPImage):
        own: RenderableType = renderable.Image(image, width=CELLS, height="auto")
        return own
    return HalfBlocks(image)


class HalfBlocks:
    """A picture as characters of two pixels each, in as many colours as the terminal has."""

    def __init__(self, image: Any, cells: int = CELLS) -> None:
        self.image, self.cells = image, cells

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        from PIL import Image
        from rich.segment import Segment
        from rich.style import Style

        width = max(1, min(self.cells, options.max_width))
        height = max(2, round(width * self.image.height / self.image.width / 2) * 2)
        pixels = self.image.resize((width, height), Image.Resampling.BOX).load()
        for y in range(0, height, 2):
            for x in range(width):
                top, bottom = ("#{:02x}{:02x}{:02x}".format(*pixels[x, y + i][:3]) for i in (0, 1))
                yield Segment("▀", Style(color=top, bgcolor=bottom))
            yield Segment.line()

    def __rich_measure__(self, console: Any, options: Any) -> Any:
        from rich.measure import Measurement

        width = max(1, min(self.cells, options.max_width))
        return Measurement(width, width)


def _print_curves(found: StoredRun, history: Sequence[dict[str, Any]]) -> None:
    samples = list(range(min(MOST_CURVES, len(found.samples))))
    drawn = curves(history, samples, [found.samples[b].get("candidate") for b in samples])
    if not drawn.steps:
        return
    rows = [row for chart in drawn.losses for row in _curve_rows("loss", chart)]
    print_table(["curve", "sample", "first", "", "last"], rows)
    words = [
        [f"{called(pair.first)}, {called(pair.second)}", *(_angle(pair.thirds[i], pair.words[i]) for i in range(3))]
        for pair in drawn.pairs
    ]
    if words:
        print_table(["gradients", "first third", "second third", "last third"], words)


def _curve_rows(kind: str, chart: Chart) -> Iterator[list[str]]:
    for b, line in enumerate(chart.lines):
        known = [value for value in line if value is not None]
        if known:
            yield [f"{kind} {chart.title}", str(b + 1), brief(known[0]), sparkline(known), brief(known[-1])]


def _angle(mean: float | None, word: str) -> str:
    return "" if mean is None else f"{word} ({mean:.0f} deg)"


def sparkline(values: Sequence[float], width: int = SPARK) -> str:
    """Numbers as bars, one character each; "" where the output cannot encode them.

    >>> sparkline([0.0, 1.0, 3.0, 7.0])
    '▁▂▄█'
    """
    try:
        BARS.encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except UnicodeEncodeError:
        return ""
    count = min(width, len(values))
    shown = [values[round(i * (len(values) - 1) / max(1, count - 1))] for i in range(count)]
    low, high = min(shown), max(shown)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((value - low) * scale)] for value in shown)
