"""Observers: whatever watches a run. The road calls them in their order; none of them changes what a run computes."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from refcore.config.run import RunConfig
from refcore.engine.inversion import Inversion, StepResult
from refcore.engine.step import Engine
from refcore.errors import printable
from refcore.runs.durations import in_words
from refcore.runs.result import Result

Record = dict[str, Any]
"""A step as plain numbers, `StepResult.record()`."""
REFRESH_SECONDS = 0.2
"""Shortest time between two updates of the progress bar."""
LINE_SECONDS = 10.0
"""Shortest time between two lines in a log."""
PATIENCE_SECONDS = 3.0
"""Loading that takes longer is worth a line."""
CLEAR = "\x1b[K"
"""Erases a terminal's line from the cursor on."""


class Observer:
    """Base of what watches a run; every method may be left out.

    An exception from a method ends the run as one of a plugin does: what was made is kept.
    """

    def before_load(self, config: RunConfig) -> None:
        """Called before the models are loaded."""

    def on_load(self, engine: Engine) -> None:
        """Called once the models are loaded, before the start is made."""

    def on_start(self, inversion: Inversion) -> None:
        """Called before the first step."""

    def on_step(self, step: StepResult, record: Record) -> None:
        """Called after every step."""

    def on_end(self, result: Result) -> None:
        """Called once the result is complete, however the run ended."""

    def on_exit(self) -> None:
        """Called last, whatever happened (also when nothing could be loaded), to give back what the observer holds."""


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
        self._inversion: Inversion | None = None
        self._shown = 0.0

    def before_load(self, config: RunConfig) -> None:
        self._write(f"{loading(config)} ...")

    def on_load(self, engine: Engine) -> None:
        self._write(CLEAR)

    def on_start(self, inversion: Inversion) -> None:
        if not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar  # rich is imported by the first bar: a run starts without it

        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[losses]}", markup=False),
        )
        self._bar = Bar(*columns, console=Console(stderr=True, highlight=False), transient=True)
        self._bar.start()
        self._inversion = inversion
        self._bar.add_task("steps", total=inversion.planned, completed=inversion.step, losses="")

    def on_step(self, step: StepResult, record: Record) -> None:
        if self._inversion is not None and (now := time.monotonic()) - self._shown > REFRESH_SECONDS:
            self._shown = now
            done, planned = record["step"] + 1, self._inversion.planned
            self._bar.update(
                self._bar.task_ids[0], completed=done, total=planned, losses=printable(losses_in_words(record))
            )

    def on_exit(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        else:
            self._write(CLEAR)

    def _write(self, text: str) -> None:
        """Writes over the last line of a terminal."""
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{text if text == CLEAR else printable(text)}")
            sys.stderr.flush()


class Lines(Observer):
    """A line of text now and then, for logs: what is being loaded, how many steps are done, how long the rest takes."""

    def __init__(
        self,
        say: Callable[[str], object] = lambda text: print(printable(text), file=sys.stderr, flush=True),
        every: float = LINE_SECONDS,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        """
        Args:
            say: takes each line; by default it is printed on stderr.
            every: shortest time in seconds between two lines of steps, and before the first one.
            patience: seconds of loading after which a line says so; 0: at once, and once more when all is loaded.
        """
        self._say, self._every, self._patience = say, every, patience
        self._timer: threading.Timer | None = None
        self._began = self._said = 0.0
        self._first = 0

    def before_load(self, config: RunConfig) -> None:
        self._began = time.monotonic()
        if not self._patience:
            self._say(loading(config))
            return
        self._timer = threading.Timer(self._patience, self._say, [loading(config)])
        self._timer.daemon = True
        self._timer.start()

    def on_load(self, engine: Engine) -> None:
        self.on_exit()
        if not self._patience:
            self._say(f"loaded in {time.monotonic() - self._began:.1f} s")

    def on_start(self, inversion: Inversion) -> None:
        self._began = self._said = time.monotonic()
        self._first, self._inversion = inversion.step, inversion

    def on_step(self, step: StepResult, record: Record) -> None:
        now = time.monotonic()
        if now - self._said < self._every:
            return
        self._said = now
        done = record["step"] + 1
        each = (now - self._began) / (done - self._first)
        planned = self._inversion.planned
        left = in_words(each * (planned - done))
        self._say(f"step {done} of {planned}, {each:.2g} s a step, {left} left: {losses_in_words(record)}")

    def on_exit(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def loading(config: RunConfig) -> str:
    """What is loaded for a run, in a line.

    >>> loading(RunConfig.from_settings({"canvas": {"name": "pixel"}, "referees": [{"name": "clip"}] * 2}))
    'loading pixel, clip'
    """
    terms = [use.name for use in (config.canvas, *config.referees, *config.priors, *config.witnesses)]
    return f"loading {', '.join(dict.fromkeys(terms))}"


def mean_losses(record: Record) -> dict[str, float]:
    """Label -> mean loss over the tracks that took part in a step.

    >>> mean_losses({"losses": {"clip": [1.0, 3.0]}, "active": [True, True]})
    {'clip': 2.0}
    """
    means = {}
    for label, losses in record["losses"].items():
        moving = [loss for loss, active in zip(losses, record["active"], strict=True) if active]
        if moving:
            means[label] = sum(moving) / len(moving)
    return means


def losses_in_words(record: Record) -> str:
    """The mean losses of a step in a line.

    >>> losses_in_words({"losses": {"clip": [1.0, 3.0]}, "active": [True, False]})
    'clip 1.000'
    """
    return "  ".join(f"{label} {loss:.3f}" for label, loss in mean_losses(record).items())
