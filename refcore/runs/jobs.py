"""Jobs: runs in a thread of their own, each with what is seen of it and what it is told.

The page in the browser and the widget of a notebook show and steer them.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from refcore.config.run import RunConfig

State = Literal["waiting", "loading", "starting", "running", "paused", "finished", "stopped", "failed"]
OVER: tuple[State, ...] = ("finished", "stopped", "failed")
MOST_POINTS = 400
"""Numbers of each curve that are kept; then every second one is dropped."""
MOST_WEIGHT = 4.0
"""Upper end of a weight's slider, in units of the weight that the run began with, and at least this."""


@dataclass(frozen=True)
class Seen:
    """What is shown of a job at one moment; plain values, safe to read beside the run."""

    number: int
    """0 where there is one run alone."""
    state: State
    step: int
    planned: int
    seconds: float
    """Time of the steps so far; pauses do not count."""
    pictures: tuple[bytes, ...]
    """[B] PNG of each sample so far."""
    curves: Mapping[str, list[tuple[int, float]]]
    """Label of a term -> (steps done, mean loss over the tracks that took part)."""
    weights: Mapping[str, float]
    """Label of a term -> its weight in the last step."""
    scores: tuple[Mapping[str, float], ...]
    """[B] score by each referee and witness, once the run is over."""
    verdicts: tuple[bool | None, ...]
    """[B] the judge's verdict, once the run is over and where there is a judge."""
    folder: Path | None
    error: str
    """What went wrong, in a sentence; "" where nothing did."""


@dataclass
class Job:
    """A run in a thread of its own, which writes it; any thread may read and steer it."""

    number: int
    config: RunConfig
    preset: str | None = None
    state: State = "waiting"
    step: int = 0
    planned: int = 0
    seconds: float = 0.0
    pictures: tuple[bytes, ...] = ()
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    scores: tuple[Mapping[str, float], ...] = ()
    verdicts: tuple[bool | None, ...] = ()
    folder: Path | None = None
    error: str = ""
    _asked: dict[str, float] = field(default_factory=dict)
    """Label -> weight that the next step is to have."""
    _stop: bool = False
    _pause: bool = False
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _stride: int = 1
    """Of the steps, every so many is kept in the curves."""

    def __post_init__(self) -> None:
        self.planned = self.config.steps

    @property
    def over(self) -> bool:
        return self.state in OVER

    def seen(self) -> Seen:
        """A copy to be shown."""
        with self._changed:
            curves = {label: list(points) for label, points in self.curves.items()}
            return Seen(
                self.number,
                self.state,
                self.step,
                self.planned,
                self.seconds,
                self.pictures,
                curves,
                dict(self.weights),
                self.scores,
                self.verdicts,
                self.folder,
                self.error,
            )

    def steer(self, label: str, weight: float) -> None:
        """Asks for another weight from the next step on; while the run waits, from the first."""
        with self._changed:
            self._asked[label] = weight

    def pause(self) -> None:
        """Asks the run to wait after the step that it is in."""
        with self._changed:
            self._pause = True

    def resume(self) -> None:
        """Lets a paused run go on."""
        with self._changed:
            self._pause = False
            self._changed.notify_all()

    def stop(self) -> None:
        """Asks the run to end after the step that it is in, with what it has made; one that waits never begins."""
        with self._changed:
            self._stop = True
            if self.state == "waiting":
                self.state = "stopped"
            self._changed.notify_all()

    # What follows is for the thread of the run.

    def update(self, **fields: Any) -> None:
        """Writes what is shown."""
        with self._changed:
            for name, value in fields.items():
                setattr(self, name, value)

    def add(self, step: int, losses: Mapping[str, float], weights: Mapping[str, float], seconds: float = 0.0) -> None:
        """Adds a step, and the seconds that it took, to the curves."""
        with self._changed:
            self.step, self.weights = step, dict(weights)
            self.seconds += seconds
            if step % self._stride:
                return
            for label, loss in losses.items():
                self.curves.setdefault(label, []).append((step, loss))
            if max(map(len, self.curves.values()), default=0) > MOST_POINTS:
                self._stride *= 2
                self.curves = {
                    label: [point for point in points if point[0] % self._stride == 0]
                    for label, points in self.curves.items()
                }

    @property
    def pausing(self) -> bool:
        """Whether the run is to wait after the step that it is in."""
        with self._changed:
            return self._pause and not self._stop

    def wants(self) -> tuple[dict[str, float], bool]:
        """Weights that the next step is to have, each told once, and whether to stop. Waits while it is paused."""
        with self._changed:
            while self._pause and not self._stop:
                self.state = "paused"
                self._changed.wait()
            if self.state == "paused":
                self.state = "running"
            asked, self._asked = self._asked, {}
            return asked, self._stop


def slider_end(weight: float) -> float:
    """The largest weight that a slider gives to a term that began with `weight`.

    >>> slider_end(0.5), slider_end(2.0)
    (4.0, 8.0)
    """
    return MOST_WEIGHT * max(1.0, weight)
