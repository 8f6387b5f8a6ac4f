"""A moment of a run, at which everything that changes over the run has its value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from refcore.errors import RefcoreError


class Moving(Protocol):
    """A number that changes over a run: one of `refcore.config.schedule`."""

    def at(self, step: int, steps: int) -> float:
        """The value at `step`, counted from 0, of a run of `steps`."""
        ...


@dataclass(frozen=True)
class Moment:
    """A step of a run, or the run's end, where step equals steps.

    What moves the parameters in step t (decode, views, gradients of priors) is taken at `Moment(t, steps)`, with t from
    0 to steps - 1. A finished picture is taken at the end, whenever it is made: the result, an image that is shown
    during the run, a look at a candidate or for the best image, and a score. So all looks of a run see the parameters
    in the same way, and the image that a look has chosen is the image that is written. A resumed run goes on at the
    moment of its next step.

    Raises:
        RefcoreError: step is not in 0 .. steps, or there is no step at all.

    Example:
        >>> from refcore.config.schedule import Linear
        >>> strength = Linear(start=30, end=10)
        >>> [Moment(step, 4).of(strength) for step in range(4)], Moment.end(4).of(strength)
        ([30.0, 25.0, 20.0, 15.0], 10.0)
    """

    step: int
    """Counted from 0."""
    steps: int
    """Of the whole run."""

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 <= self.step <= self.steps:
            raise RefcoreError(f"there is no step {self.step} of {self.steps}; expected 0 .. {max(1, self.steps)}")

    @classmethod
    def end(cls, steps: int) -> Moment:
        """The moment of finished pictures, after the last of `steps`."""
        return cls(steps, steps)

    @property
    def is_end(self) -> bool:
        """Whether it is the moment of finished pictures."""
        return self.step == self.steps

    @property
    def progress(self) -> float:
        """From 0 at the first step to 1 at the end."""
        return self.step / self.steps

    def of(self, schedule: float | Moving) -> float:
        """The value of a number or a schedule now."""
        return float(schedule) if isinstance(schedule, (int, float)) else schedule.at(self.step, self.steps)

    def whole(self, schedule: float | Moving) -> int:
        """As `of`, rounded to a whole number."""
        return round(self.of(schedule))
