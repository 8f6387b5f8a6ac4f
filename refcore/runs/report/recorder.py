"""The observer that records a run for its report, and writes the report at the end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from refcore import images
from refcore.config import presets
from refcore.config.differences import ABSENT, differences
from refcore.config.run import RunConfig
from refcore.engine.inversion import Inversion, StepResult
from refcore.engine.views import coarsen
from refcore.images import Levels
from refcore.objective import Objective
from refcore.runs.observers import Observer, Record
from refcore.runs.report.recording import FOLDER, VIEW_SAMPLES, Frame, Recording, Seen, finite, write_sheet
from refcore.runs.result import Result
from refcore.runs.rundir import FLUSH_SECONDS

MOST_SAMPLES = 8
"""Samples that are recorded: the first ones."""
MOST_FRAMES = 24
"""Moments with pictures; the result comes besides."""
TILE = 192
"""Longer side in pixels of a recorded picture; larger ones are shrunk."""
MOST_VIEWS, VIEW_TILE = 4, 96
"""Views of a sample that are recorded, and the longer side of one in pixels."""
VIEW_MOMENTS = 3
"""Start, middle and end."""
DENSER = 1.5
"""Exponent of the moments' spacing: a picture changes fastest at the start."""
log = logging.getLogger("refcore")


class Recorder(Observer):
    """Records a run into its folder. A failure of it ends the recording, not the run."""

    def __init__(self, folder: Path, written: RunConfig, preset: str | None) -> None:
        """
        Args:
            folder: of the run.
            written: the config before the plugins' defaults are filled in.
            preset: name of the preset that it began with; None where there is none.
        """
        self.folder, self.written, self.preset = folder, written, preset
        self.problem = ""
        """The reason where there is no report, or an incomplete recording."""
        self.page: Path | None = None
        """The report, once it is written."""
        self._recording = Recording()
        self._inversion: Inversion | None = None
        self._waiting: list[tuple[Frame, list[Levels]]] = []
        """Pictures that are not on the disk yet."""
        self._last: tuple[dict[int, Levels], dict[int, int]] | None = None
        """Picture and candidate of each sample in the last frame, for samples that no longer take part."""
        self._flushed = time.monotonic()

    def on_start(self, inversion: Inversion) -> None:
        """Begins the recording, or goes on with that of a resumed run."""
        self._inversion = inversion
        self._safely(self._begin)

    def on_step(self, step: StepResult, record: Record) -> None:
        """Records the pictures that the step has judged, if its moment is one of those."""
        if not self.problem:
            self._safely(self._look)

    def on_end(self, result: Result) -> None:
        """Adds the result, writes what is left, and the report."""
        if self._inversion is None:
            return
        if not self.problem:
            self._safely(lambda: self._finish(result))
        self._safely(lambda: self._report(result))

    def _safely(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            self.problem = " ".join(str(error).split()) or type(error).__name__
            log.warning("the report is not complete: %s", self.problem, exc_info=True)

    def _begin(self) -> None:
        assert self._inversion is not None
        inversion = self._inversion
        (self.folder / FOLDER).mkdir(exist_ok=True)
        if inversion.step:
            self._recording = Recording.read(self.folder).before(inversion.step)
            due = view_steps(inversion.config.steps)  # an earlier end has left views of its own
            self._recording.seen = [seen for seen in self._recording.seen if seen.step in due]
            self._last = self._recording.last(self.folder)
        if not self._recording.began:
            self._recording = Recording(
                began=datetime.now(UTC).isoformat(timespec="seconds"),
                preset=self.preset,
                changed=changed(self.written, self.preset),
                objective=str(Objective.of(self.written)),
                warnings=list(inversion.warnings),
                notes=list(inversion.notes),
                samples=list(range(min(MOST_SAMPLES, len(inversion.samples)))),
            )
        if not inversion.step:
            start, _ = inversion.glimpse(range(len(inversion.samples)))
            scores, _ = inversion.engine.panel.possible_scores(start)
            self._recording.scores = finite(scores)

    def _look(self) -> None:
        """Records the step that has just been taken if it is due."""
        assert self._inversion is not None
        inversion, config = self._inversion, self._inversion.config
        step, taken = inversion.step - 1, inversion.judged([]).step
        if taken in moments(config.steps, max(VIEW_MOMENTS, MOST_FRAMES // config.candidates.tries)):
            self._take(step)
        if step == taken and taken in view_steps(config.steps):
            self._see(step)
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._flush()

    def _take(self, step: int) -> None:
        """Holds the pictures that a step has judged, and the last ones of samples that took no part."""
        assert self._inversion is not None
        every = self._recording.samples
        judged = self._inversion.judged(every)
        shown, candidates = self._last or ({}, {})
        if judged.images is not None:
            small = levels(coarsen(judged.images.float(), TILE))
            shown = {**shown, **dict(zip(judged.samples, small, strict=True))}
            candidates = {**candidates, **dict(zip(judged.samples, judged.candidates, strict=True))}
        else:
            glimpse = self._inversion.glimpse(every)
            shown = dict(zip(every, levels(coarsen(glimpse.images.float(), TILE)), strict=True))
            candidates = dict(zip(every, glimpse.candidates, strict=True))
        self._hold(step, shown, candidates)

    def _hold(self, step: int, shown: dict[int, Levels], candidates: dict[int, int]) -> None:
        """Adds a frame; where tries have made too many, every second one is dropped."""
        recording = self._recording
        if set(shown) != set(recording.samples):
            return
        self._last = (shown, candidates)
        recording.frames = [frame for frame in recording.frames if frame.step < step]
        recording.frames.append(Frame(step, "", [candidates[b] for b in recording.samples]))
        self._waiting.append((recording.frames[-1], [shown[b] for b in recording.samples]))
        if len(recording.frames) > 2 * MOST_FRAMES:
            recording.frames = recording.frames[::2]
            self._waiting = [each for each in self._waiting if each[0] in recording.frames]

    def _see(self, step: int) -> None:
        """Writes the views that a step has shown its referees."""
        assert self._inversion is not None
        recording, engine = self._recording, self._inversion.engine
        judged = self._inversion.judged(recording.samples[:VIEW_SAMPLES])
        if judged.images is None or judged.samples != recording.samples[:VIEW_SAMPLES]:
            return
        recording.seen = [seen for seen in recording.seen if seen.step < step]
        found = engine.views(judged.images, judged.tracks, judged.step, MOST_VIEWS)
        for number, (labels, views) in enumerate(found.items()):
            small = coarsen(views.flatten(0, 1).float(), VIEW_TILE)
            small = small.view(*views.shape[:2], *small.shape[1:])
            file = write_sheet(self.folder, f"views-{step}-{number}", [levels(own) for own in small])
            recording.seen.append(Seen(step, list(labels), file, views.shape[1]))

    def _flush(self) -> None:
        """Writes the pictures that wait, then the index that names them."""
        for frame, pictures in self._waiting:
            file = write_sheet(self.folder, f"step-{frame.step}", [pictures])
            place = self._recording.frames.index(frame)
            self._recording.frames[place] = Frame(frame.step, file, frame.candidates)
        self._waiting = []
        self._recording.write(self.folder)
        self._flushed = time.monotonic()

    def _finish(self, result: Result) -> None:
        assert self._inversion is not None
        recording, step = self._recording, self._inversion.step
        if step > self._inversion.began and step - 1 not in [seen.step for seen in recording.seen]:
            self._see(step - 1)
        final = levels(coarsen(result.images[: len(recording.samples)], TILE))
        candidates = {b: result.samples[b].candidate for b in recording.samples}
        self._hold(step, dict(zip(recording.samples, final, strict=True)), candidates)
        self._flush()

    def _report(self, result: Result) -> None:
        from refcore.runs.report.page import write_report  # the page's libraries, after the run

        self.page = write_report(self.folder, result.history)


def moments(steps: int, most: int = MOST_FRAMES) -> list[int]:
    """The numbers of steps taken after which pictures are recorded, the start and the end among them.

    >>> moments(8), moments(200, 6)
    ([0, 1, 2, 3, 4, 5, 6, 7, 8], [0, 18, 51, 93, 143, 200])
    """
    if steps < most:
        return list(range(steps + 1))
    return sorted({round(steps * (i / (most - 1)) ** DENSER) for i in range(most)})


def view_steps(steps: int) -> tuple[int, ...]:
    """The steps of a run whose views are recorded, counted from 0; an early end adds its own."""
    return 0, steps // 2, steps - 1


def levels(pictures: Tensor) -> list[Levels]:
    """Pictures [n, 3, H, W] in [0, 1] as levels; one transfer from the device."""
    finite = torch.nan_to_num(pictures, nan=0.0).clamp(0, 1)
    return [images.levels(own) for own in finite.cpu()]


def changed(written: RunConfig, preset: str | None) -> dict[str, list[Any]]:
    """Dotted field -> the preset's value, if any, of what a config has otherwise; prompts and seeds aside."""
    if preset is None:
        return {}
    base = RunConfig.from_settings(presets.get(preset).settings)
    both = [
        {name: value for name, value in config.settings().items() if name not in ("prompts", "seeds")}
        for config in (base, written)
    ]
    return {name: [] if before is ABSENT else [before] for name, (before, _) in differences(both)}
