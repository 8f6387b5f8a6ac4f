"""The models of a worker, which stay loaded from one job to the next as long as they leave room."""

from __future__ import annotations

import gc

from refcore.engine import memory
from refcore.engine.loading import pick_device
from refcore.engine.models import Models
from refcore.errors import OutOfMemory
from refcore_bench.executors.job import Job, Outcome, called

ROOM = 0.5
"""Share of the device's memory that must be free for the models of another group to stay loaded."""


class Warm:
    """Models kept for the jobs of one worker."""

    def __init__(self) -> None:
        self.models = Models()
        self._group: str | None = None

    def call(self, job: Job) -> Outcome:
        """The outcome of a job. One that the models of earlier jobs leave no memory for is done again without them."""
        models = self.of(job.group)
        held = len(models)
        outcome = called(job, models)
        if not held or not _lacks_memory(outcome.error):
            return outcome
        del outcome  # its traceback holds tensors
        self._let_go()
        return called(job, models)

    def of(self, group: str) -> Models:
        """The loaded models for a job of a group; those of other groups are let go where memory is short."""
        if self._group not in (None, group) and len(self.models) and _short():
            self._let_go()
        self._group = group
        return self.models

    def _let_go(self) -> None:
        self.models.clear()
        gc.collect()  # some know each other
        memory.release(pick_device("auto"))


def _short() -> bool:
    device = pick_device("auto")
    free, total = memory.free_memory(device), memory.total_memory(device)
    return free is not None and total is not None and free < ROOM * total


def _lacks_memory(error: BaseException | None) -> bool:
    """Whether lack of memory is the error, or what it was raised from."""
    while error is not None:
        if isinstance(error, OutOfMemory) or memory.is_out_of_memory(error):
            return True
        error = error.__cause__
    return False
