"""The models of a worker, which stay loaded from one job to the next as long as they leave room."""

from __future__ import annotations

from refcore.engine import memory
from refcore.engine.loading import pick_device
from refcore.engine.models import Models

ROOM = 0.5
"""Share of the device's memory that must be free for the models of another group to stay loaded."""


class Warm:
    """Models kept for the jobs of one worker."""

    def __init__(self) -> None:
        self.models = Models()
        self._group: str | None = None

    def of(self, group: str) -> Models:
        """The loaded models for a job of a group; those of other groups are let go where memory is short."""
        if self._group not in (None, group) and len(self.models) and _short():
            self.models.clear()
            memory.release(pick_device("auto"))
        self._group = group
        return self.models


def _short() -> bool:
    device = pick_device("auto")
    free, total = memory.free_memory(device), memory.total_memory(device)
    return free is not None and total is not None and free < ROOM * total
