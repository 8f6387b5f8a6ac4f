"""Checkpoints of a run: its state in its folder, every now and then, of which the last two are kept."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refcore.errors import RefcoreError
from refcore.runs.durations import seconds_of
from refcore.runs.rundir import CHECKPOINTS, remove

if TYPE_CHECKING:
    from refcore.engine.inversion import Inversion, State
    from refcore.runs.rundir import RunDir

KEPT = 2
"""Checkpoints that a run keeps, so that a good one survives whatever happens to the last."""
SHARE = 0.01
"""Largest share of a run's time that checkpoints by seconds may take."""
DEFAULT = "30s"
OFF = "off"
ROAD = "run"
"""Key of what the road knows of the run, in a checkpoint's plain values."""
log = logging.getLogger("refcore")


@dataclass(frozen=True)
class Every:
    """How often a run is saved: one of the two is set."""

    seconds: float | None = None
    """Shortest time between two checkpoints."""
    steps: int | None = None
    """Steps between two checkpoints; a round of a search before the first step counts as that many."""


def read_every(given: str | float | None) -> Every | None:
    """How often to save: "30s", "5m" or "1h", a number of steps, "off" or None for never.

    Raises:
        RefcoreError: it is none of these.

    >>> read_every("5m"), read_every("50"), read_every(50), read_every("off")
    (Every(seconds=300.0, steps=None), Every(seconds=None, steps=50), Every(seconds=None, steps=50), None)
    """
    text = str(given).strip()
    if given is None or text == OFF:
        return None
    seconds = seconds_of(text)
    if seconds:
        return Every(seconds=seconds)
    if text.isdecimal() and int(text):
        return Every(steps=int(text))
    raise RefcoreError(f'checkpoint is "{given}"; expected seconds such as 30s (also m, h), steps such as 50, or {OFF}')


@dataclass(frozen=True)
class Checkpoint:
    """The file of one checkpoint, by its name."""

    path: Path
    serial: int
    """Counted from 1 over the run's life."""
    step: int
    """Steps that were done."""


def checkpoints_of(folder: Path) -> list[Checkpoint]:
    """The checkpoints in the folder of a run, the newest first. No file is opened."""
    found = []
    for path in (folder / CHECKPOINTS).glob("*.safetensors"):
        if named := re.fullmatch(r"(\d{6,})-step-(\d+)", path.stem):
            found.append(Checkpoint(path, int(named[1]), int(named[2])))
    return sorted(found, key=lambda checkpoint: -checkpoint.serial)


class Checkpoints:
    """Saves a run whenever that is due. What cannot be saved is said, and the run goes on."""

    def __init__(self, folder: RunDir, every: Every, facts: Callable[[], Mapping[str, Any]]) -> None:
        """
        Args:
            folder: of the run.
            every: how often.
            facts: gives what the road knows of the run, to be kept with its state.
        """
        self._folder, self._every, self._facts = folder, every, facts
        self._saved: int | None = None
        """Steps done in the last checkpoint of this process."""
        self._last = time.monotonic()
        self._cost = 0.0
        """Seconds that the last checkpoint has taken."""

    @property
    def any(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return bool(checkpoints_of(self._folder.path))

    def offer_step(self, inversion: Inversion) -> None:
        """Saves the run after a step, if that is due."""
        steps = self._every.steps
        due = inversion.step % steps == 0 if steps is not None else self._is_time
        if due and inversion.savable:
            self._save(inversion.state_dict)

    def offer_round(self, state: Callable[[], State]) -> None:
        """Saves the run between two rounds of a search, if that is due."""
        if self._every.steps is not None or self._is_time:
            self._save(state)

    def save_end(self, inversion: Inversion) -> None:
        """Saves the run as it was left, unless its last checkpoint has all of that, and perhaps rounds of a search."""
        if inversion.step != self._saved and inversion.savable:
            self._save(inversion.state_dict)

    def finish(self) -> None:
        """Keeps the last checkpoint of a finished run alone, from which it can go on for more steps."""
        self._keep(1)

    @property
    def _is_time(self) -> bool:
        assert self._every.seconds is not None
        return time.monotonic() - self._last >= max(self._every.seconds, self._cost / SHARE)

    def _save(self, state: Callable[[], State]) -> None:
        from refcore.runs.state import save_state  # torch; what only lists runs does without

        began = time.monotonic()
        try:
            self._folder.flush_history()  # a checkpoint without the lines before it would be of no use
            whole = state()
            whole["meta"][ROAD] = dict(self._facts())
            done = whole["meta"]["step"]
            last = max((each.serial for each in checkpoints_of(self._folder.path)), default=0)
            save_state(whole, self._folder.room(CHECKPOINTS) / f"{last + 1:06d}-step-{done}.safetensors")
            self._keep(KEPT)
        except RefcoreError as error:
            log.warning("no checkpoint is saved (%s); the run goes on, and tries again", error)
        else:
            self._saved = done
        self._last = time.monotonic()
        self._cost = self._last - began

    def _keep(self, count: int) -> None:
        for old in checkpoints_of(self._folder.path)[count:]:
            remove(old.path)
