"""The contract between those who have jobs and those who run them: a job, its outcome, and an executor."""

from __future__ import annotations

import copy
import pickle
import traceback
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from refcore.engine.models import Models
from refcore.errors import RefcoreError, described

TRIES = 3
"""Number of times that a job is begun at most, where its worker dies of it."""


@dataclass(frozen=True, eq=False)
class Job:
    """A call that any process can make, with all that it needs: it and its outcome are pickled."""

    name: str
    """Description for messages, such as "plain, seed 0, 20 prompts"."""
    function: Callable[..., Any]
    """Of a module's top level; called with the models that its worker keeps loaded, then with the arguments."""
    arguments: tuple[Any, ...] = ()
    group: str = ""
    """Jobs of one group use the same models: a worker that has them loaded prefers these jobs."""


@dataclass(frozen=True)
class Outcome:
    """What became of a job: its value, or the exception that ended it."""

    value: Any = None
    error: BaseException | None = None
    attempts: int = 1
    """Number of workers that began it; all but the last one died."""

    @property
    def lost(self) -> bool:
        """Whether its worker died in every attempt."""
        return isinstance(self.error, WorkerDied)


class WorkerDied(RefcoreError):
    """A job whose worker was killed every time that it was begun."""

    def __init__(self, job: str, attempts: int = 0) -> None:
        """`job`: its name, or the whole message."""
        times = {1: "", 2: " twice"}.get(attempts, f" {attempts} times")
        super().__init__(f"a worker process was killed{times} during {job}" if attempts else job)


Outcomes = Generator[tuple[Job, Outcome], None, None]
"""(job, outcome) of jobs as they finish."""


class Executor(Protocol):
    """Runs jobs, each in one of several workers, which keep models loaded between them."""

    def run(self, jobs: Iterable[Job], check: Job | None = None) -> Outcomes:
        """(job, outcome) of every job, as they finish.

        A job is taken from `jobs` when a worker is free for it, so an iterable may decide late what comes next. A
        worker that dies costs the job that it had in hand: another worker begins it anew, up to `TRIES` times, and the
        other jobs go on. When the generator is closed, or Ctrl-C ends it, jobs that have not begun never do.

        Args:
            jobs: any number of them.
            check: done by each worker on another machine before its first job; its error ends all.

        Raises:
            RefcoreError: no worker can be had; one fails the check.
        """


def called(job: Job, models: Models) -> Outcome:
    """The outcome of a job in this process."""
    try:
        return Outcome(job.function(models, *job.arguments))
    except Exception as error:
        return Outcome(error=error)


def portable(outcome: Outcome) -> Outcome:
    """The outcome with an error that survives pickling, and with its traceback as a note."""
    error = outcome.error
    if error is None:
        return outcome
    try:
        kept: BaseException = type(error)(*error.args)
        pickle.dumps(kept)
        copy.deepcopy(kept)  # made anew in the same way as from a pickle
    except Exception:  # an exception whose arguments are not those of its constructor
        kept = RefcoreError(described(error))
    kept.add_note("".join(traceback.format_exception(error)))
    return Outcome(error=kept, attempts=outcome.attempts)
