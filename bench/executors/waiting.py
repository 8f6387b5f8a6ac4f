"""Jobs that wait for a worker: first come, first served, but a worker looks for one whose models it has loaded."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice

from refcore_bench.executors.job import TRIES, Job, Outcome, WorkerDied

AHEAD = 16
"""Jobs of the queue in sight beside two for each worker: so far may variants that take turns come apart."""


def in_sight(workers: int) -> int:
    """Number of jobs among which one of several workers chooses."""
    return AHEAD + 2 * workers


class Waiting:
    """Jobs to be begun, and how often each has been."""

    def __init__(self, jobs: Iterable[Job], ahead: int) -> None:
        """`ahead`: jobs among which a worker may choose; an iterable that is no sequence is never read ahead."""
        self._rest = iter(jobs)
        self._near: deque[Job] = deque()
        self._ahead = ahead if isinstance(jobs, Sequence) else 1
        self._begun: dict[Job, int] = {}

    def take(self, group: str | None = None) -> Job | None:
        """The next job of a group, or else the next one; None where there is none."""
        self._near.extend(islice(self._rest, max(0, self._ahead - len(self._near))))
        if not self._near:
            return None
        job = next((one for one in self._near if one.group == group), self._near[0])
        self._near.remove(job)
        self._begun[job] = self._begun.get(job, 0) + 1
        return job

    def died(self, job: Job) -> Outcome | None:
        """Puts a job whose worker died back as the next one; its outcome where it has been tried often enough."""
        if self._begun[job] < TRIES:
            self._near.appendleft(job)
            return None
        return Outcome(error=WorkerDied(job.name, self._begun.pop(job)), attempts=TRIES)

    def finished(self, job: Job, outcome: Outcome) -> Outcome:
        """The outcome with the number of attempts."""
        attempts = self._begun.pop(job)
        return outcome if attempts == 1 else Outcome(outcome.value, outcome.error, attempts)
