"""A run driven in a thread: what it does is told to its job, and it does what the job is asked for."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from refcore import images
from refcore.engine.inversion import Inversion, StepResult
from refcore.engine.step import Engine
from refcore.errors import RefcoreError
from refcore.runs.jobs import Job
from refcore.runs.observers import Observer, Record, mean_losses
from refcore.runs.result import Result
from refcore.runs.run import Run

PICTURE_SECONDS = 1.0
"""Shortest time between two pictures of a run; each costs a decode."""
PICTURE_SHARE = 0.01
"""Largest share of a run's time that its pictures take; large or many ones come less often."""
MOST_PICTURES = 16
"""Samples of which pictures are shown while the run goes on."""
log = logging.getLogger("refcore")


class Steering(Observer):
    """Tells a job what its run does, and the run what the job is asked for: weights, pause and stop."""

    def __init__(self, job: Job, seconds: float | None = None) -> None:
        """
        Args:
            job: of the run.
            seconds: after which the run is stopped; None: never.
        """
        self.job, self.seconds = job, seconds
        self._inversion: Inversion | None = None
        self._began = self._next_picture = 0.0

    def on_load(self, engine: Engine) -> None:
        self.job.update(state="starting")

    def on_start(self, inversion: Inversion) -> None:
        self._inversion = inversion
        self._began = time.monotonic()
        terms, steps = inversion.config.terms, inversion.config.steps
        self.job.update(state="running", weights={label: term.weight_at(0, steps) for label, term in terms.items()})
        self._show(inversion)
        self._obey(inversion)

    def on_step(self, step: StepResult, record: Record) -> None:
        inversion = self._inversion
        assert inversion is not None, "a step follows the start"
        self.job.add(step.step + 1, mean_losses(record), record["weights"], step.seconds)
        self.job.update(planned=inversion.planned)
        if time.monotonic() > self._next_picture:
            self._show(inversion)
        self._obey(inversion)
        if self.seconds is not None and time.monotonic() - self._began > self.seconds and not inversion.done:
            self.job.update(error=f"stopped after {self.seconds:g} s, the longest time of a run on this page")
            raise KeyboardInterrupt

    def _obey(self, inversion: Inversion) -> None:
        """Pauses, stops and changes weights, as the job was asked."""
        if self.job.pausing:
            self._show(inversion)
        asked, stop = self.job.wants()
        if stop and not inversion.done:
            raise KeyboardInterrupt
        for label, weight in asked.items():
            if not inversion.done:
                inversion.steer(label, weight)

    def _show(self, inversion: Inversion) -> None:
        """Gives the job the pictures as they are; nothing is judged for them."""
        began = time.monotonic()
        shown, _ = inversion.glimpse(range(min(MOST_PICTURES, len(inversion.samples))))
        self.job.update(pictures=tuple(images.png(images.levels(pixels.float())) for pixels in shown))
        now = time.monotonic()
        self._next_picture = now + max(PICTURE_SECONDS, (now - began) / PICTURE_SHARE)


def drive(job: Job, make: Callable[[], Run]) -> Result | BaseException:
    """Executes the run of a job in this thread. How it ended is written into the job, errors as sentences.

    Args:
        job: not over.
        make: the run, with a `Steering` of the job; what it raises ends the job, too.

    Returns:
        The result, of a run that was stopped as far as it came; or what left none.
    """
    job.update(state="loading")
    try:
        run = make()
        result = run.execute()
        _keep(job, result, run.folder.path if run.folder is not None else None)
        return result
    except KeyboardInterrupt as error:
        job.update(state="stopped")
        return error
    except RefcoreError as error:
        job.update(state="failed", error=str(error))
        return error
    except Exception as error:
        # A plugin's own mistake: what is shown says what it was, the log has where.
        log.exception("run %d failed", job.number)
        job.update(state="failed", error=f"{type(error).__name__}: {error}")
        return error


def _keep(job: Job, result: Result, folder: Path | None) -> None:
    interrupted = isinstance(result.error, KeyboardInterrupt)
    job.update(
        state="finished" if result.error is None else "stopped" if interrupted else "failed",
        error=job.error if result.error is None or interrupted else str(result.error),
        pictures=tuple(images.png(images.levels(sample.pixels)) for sample in result),
        scores=tuple(dict(sample.scores) for sample in result),
        verdicts=tuple(sample.verdict.verdict if sample.verdict is not None else None for sample in result),
        config=result.config,
        folder=folder,
        step=result.steps,
    )
