"""Observers: whatever watches a run. The road calls them in their order; none of them changes what a run computes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from refcore.engine.inversion import Inversion, StepResult
from refcore.engine.step import Engine
from refcore.runs.result import Result

Record = dict[str, Any]
"""A step as plain numbers, `StepResult.record()`."""
REFRESH_SECONDS = 0.2
"""Shortest time between two updates of the progress bar."""


class Observer:
    """Base of what watches a run; every method may be left out.

    An exception from a method ends the run as one of a plugin does: what was made is kept.
    """

    def on_load(self, engine: Engine) -> None:
        """Called once the models are loaded, before the start is made."""

    def on_start(self, inversion: Inversion) -> None:
        """Called before the first step."""

    def on_step(self, step: StepResult, record: Record) -> None:
        """Called after every step."""

    def on_end(self, result: Result) -> None:
        """Called once the result is complete, however the run ended."""

    def on_exit(self) -> None:
        """Called last, whatever happened, to give back what the observer holds."""


class Callback(Observer):
    """Calls a function with every step."""

    def __init__(self, function: Callable[[StepResult], None]) -> None:
        self.function = function

    def on_step(self, step: StepResult, record: Record) -> None:
        self.function(step)


class Progress(Observer):
    """A progress bar on stderr, with each term's mean loss and the time left; silent elsewhere than on a terminal."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._shown = 0.0

    def on_start(self, inversion: Inversion) -> None:
        if not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar  # rich is imported by the first bar: a run starts without it

        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[losses]}"))
        self._bar = Bar(*columns, console=Console(stderr=True, highlight=False), transient=True)
        self._bar.start()
        self._bar.add_task("steps", total=inversion.config.steps, completed=inversion.step, losses="")

    def on_step(self, step: StepResult, record: Record) -> None:
        if self._bar is not None and (now := time.monotonic()) - self._shown > REFRESH_SECONDS:
            self._shown = now
            self._bar.update(self._bar.task_ids[0], completed=record["step"] + 1, losses=mean_losses(record))

    def on_exit(self) -> None:
        if self._bar is not None:
            self._bar.stop()


def mean_losses(record: Record) -> str:
    """Each term's loss, averaged over the tracks that still move.

    >>> mean_losses({"losses": {"clip": [1.0, 3.0]}, "active": [True, False]})
    'clip 1.000'
    """
    means = []
    for label, losses in record["losses"].items():
        moving = [loss for loss, active in zip(losses, record["active"], strict=True) if active]
        if moving:
            means.append(f"{label} {sum(moving) / len(moving):.3f}")
    return "  ".join(means)
