"""The session behind the page: one queue, one worker, one cache of models."""

from __future__ import annotations

import queue
import threading
from functools import partial
from pathlib import Path

from refcore.config.run import RunConfig
from refcore.config.settings import dump_yaml
from refcore.engine.models import Models
from refcore.errors import RefcoreError
from refcore.runs.jobs import Job
from refcore.runs.run import Run
from refcore.runs.steering import Steering, drive
from refcore.ui.limits import Limits

KEPT_JOBS = 50
"""Jobs that are over and still known; their folders stay in any case."""


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
            drive(job, partial(self._run, job))

    def _run(self, job: Job) -> Run:
        observers = [Steering(job, self.limits.seconds)]
        return Run(job.config, parent=self.runs, observers=observers, preset=job.preset, models=self.models)


def yaml_of(job: Job) -> str:
    """The job's config, to copy."""
    return dump_yaml(job.config.settings())
