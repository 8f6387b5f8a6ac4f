"""The session behind the page: one queue, one worker, one cache of models."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from refcore import images
from refcore.config.run import RunConfig
from refcore.config.settings import dump_yaml
from refcore.engine.inversion import Inversion, StepResult
from refcore.engine.models import Models
from refcore.engine.step import Engine
from refcore.errors import RefcoreError
from refcore.runs.observers import Observer, Record
from refcore.runs.result import Result
from refcore.runs.run import Run
from refcore.ui.jobs import Job
from refcore.ui.limits import Limits

PICTURE_SECONDS = 1.0
"""Shortest time between two pictures of a run; each costs a decode."""
KEPT_JOBS = 50
"""Jobs that are over and still known; their folders stay in any case."""
log = logging.getLogger("refcore.ui")


class Session:
    """Takes configs, and runs them one after another in a thread of its own."""

    def __init__(self, runs: Path, limits: Limits | None = None) -> None:
        """
        Args:
            runs: folder in which every run takes a folder of its own.
            limits: of the runs and the queue.
        """
        self.runs, self.limits = runs, limits or Limits()
        self.models = Models()
        self._jobs: dict[int, Job] = {}
        self._waiting: queue.Queue[Job | None] = queue.Queue()
        self._guard = threading.Lock()
        self._next = 1
        self._closed = False
        self._worker = threading.Thread(target=self._work, name="refcore-ui-runs", daemon=True)
        self._worker.start()

    def submit(self, config: RunConfig, preset: str | None = None) -> Job:
        """Puts a run at the end of the queue.

        Args:
            config: with prompts.
            preset: its name, for errors about missing checkpoints.

        Raises:
            RefcoreError: the run is larger than the limits allow, or the queue is full.
        """
        if not config.prompts or not all(prompt.strip() for prompt in config.prompts):
            raise RefcoreError("the prompt is empty; say what the picture should show")
        self.limits.check(config)
        with self._guard:
            ahead = sum(job.state == "waiting" for job in self._jobs.values())
            if ahead >= self.limits.waiting:
                raise RefcoreError(f"{ahead} runs are waiting, which is the most; stop one, or wait for one to end")
            job = Job(self._next, config, preset)
            self._next += 1
            self._jobs[job.number] = job
            over = [number for number, one in self._jobs.items() if one.over]
            for number in over[: max(0, len(over) - KEPT_JOBS)]:
                del self._jobs[number]
        self._waiting.put(job)
        return job

    def job(self, number: int | None) -> Job | None:
        """A job by its number; None where there is none, or no longer."""
        with self._guard:
            return self._jobs.get(number) if number is not None else None

    def jobs(self) -> list[Job]:
        """All known jobs, the newest first."""
        with self._guard:
            return sorted(self._jobs.values(), key=lambda job: -job.number)

    def close(self) -> None:
        """Stops every run and ends the worker; what the runs have made is kept."""
        self._closed = True
        for job in self.jobs():
            job.stop()
        self._waiting.put(None)
        self._worker.join(timeout=60)
        self.models.__exit__(None, None, None)

    def _work(self) -> None:
        while (job := self._waiting.get()) is not None:
            if self._closed or job.over:
                continue
            job.update(state="loading")
            try:
                road = Run(
                    job.config,
                    parent=self.runs,
                    observers=[Steering(job, self.limits)],
                    preset=job.preset,
                    models=self.models,
                )
                result = road.execute()
                _keep(job, result, road.folder.path if road.folder is not None else None)
            except KeyboardInterrupt:
                job.update(state="stopped")
            except RefcoreError as error:
                job.update(state="failed", error=str(error))
            except Exception as error:
                # A plugin's own mistake: the page says what it was, the log has where.
                log.exception("run %d failed", job.number)
                job.update(state="failed", error=f"{type(error).__name__}: {error}")


class Steering(Observer):
    """Tells a job what its run does, and the run what the job is asked for: weights, pause and stop."""

    def __init__(self, job: Job, limits: Limits) -> None:
        self.job, self.limits = job, limits
        self._inversion: Inversion | None = None
        self._shown = self._began = 0.0

    def on_load(self, engine: Engine) -> None:
        self.job.update(state="running")

    def on_start(self, inversion: Inversion) -> None:
        self._inversion = inversion
        self._began = time.monotonic()
        self._show(inversion)
        self.job.update(
            weights={label: term.weight_at(0, inversion.config.steps) for label, term in inversion.config.terms.items()}
        )
        self._obey(inversion)

    def on_step(self, step: StepResult, record: Record) -> None:
        inversion = self._inversion
        assert inversion is not None, "a step follows the start"
        self.job.add(step.step + 1, mean_losses(record), record["weights"])
        self.job.update(planned=inversion.planned)
        if time.monotonic() - self._shown > PICTURE_SECONDS:
            self._show(inversion)
        self._obey(inversion)
        if time.monotonic() - self._began > self.limits.seconds and not inversion.done:
            self.job.update(error=f"stopped after {self.limits.seconds:g} s, the longest time of a run on this page")
            raise KeyboardInterrupt

    def _obey(self, inversion: Inversion) -> None:
        """Pauses, stops and changes weights, as the job was asked."""
        asked, stop = self.job.wants()
        if stop and not inversion.done:
            raise KeyboardInterrupt
        for label, weight in asked.items():
            if not inversion.done:
                inversion.steer(label, weight)

    def _show(self, inversion: Inversion) -> None:
        shown = tuple(images.png(images.levels(pixels)) for pixels in inversion.images())
        self.job.update(pictures=shown)
        self._shown = time.monotonic()


def mean_losses(record: Mapping[str, Any]) -> dict[str, float]:
    """Label -> mean loss over the tracks that took part in a step.

    >>> mean_losses({"losses": {"clip": [1.0, 3.0]}, "active": [True, True]})
    {'clip': 2.0}
    """
    found = {}
    for label, losses in record["losses"].items():
        taking = [loss for loss, active in zip(losses, record["active"], strict=True) if active]
        if taking:
            found[label] = sum(taking) / len(taking)
    return found


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


def yaml_of(job: Job) -> str:
    """The job's config, to copy."""
    return dump_yaml(job.config.settings())
