"""What a run's folder says of the run beside its config: `run.json`, and how far `result.json` agrees with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from refcore.runs import rundir


class Resumed(NamedTuple):
    """One time that a run was gone on with."""

    at: str
    """The time, as ISO 8601."""
    step: int
    """Steps that were done."""
    steps: int
    """Steps that the run was to have from then on."""


@dataclass(frozen=True)
class Facts:
    """A run beside its config; what an older or damaged folder does not say is None or empty."""

    preset: str | None = None
    began: str | None = None
    """The time of its first start, as ISO 8601."""
    threads: int | None = None
    """Of torch on the CPU, on which the last bits of sums depend."""
    device: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    """Of the libraries that it began with; known from its first checkpoint on."""
    resumed: tuple[Resumed, ...] = ()

    @classmethod
    def read(cls, data: Any) -> Facts:
        """From `run.json`, or from a checkpoint."""
        if not isinstance(data, Mapping):
            return cls()
        try:
            known = {name: data[name] for name in cls.__dataclass_fields__ if name in data}
            resumed = tuple(Resumed(**each) for each in known.pop("resumed", ()))
            return cls(**known, resumed=resumed)
        except (TypeError, ValueError):
            return cls()

    def to_dict(self) -> dict[str, Any]:
        """The contents of `run.json`."""
        return {**asdict(self), "resumed": [each._asdict() for each in self.resumed]}

    @property
    def steps(self) -> int | None:
        """Steps that the run has since it was last resumed; None: those of its config."""
        return self.resumed[-1].steps if self.resumed else None

    def resumed_at(self, step: int, steps: int) -> Facts:
        """The facts of the run from now on, gone on with after `step` steps toward `steps`."""
        return replace(self, resumed=(*self.resumed, Resumed(now(), step, steps)))

    def is_current(self, result: Mapping[str, Any] | None) -> bool:
        """Whether a `result.json` is that of the last time that the run was gone on with, not of an earlier one."""
        if result is None or self.began is None:  # a result that was saved by itself has no `run.json` beside it
            return result is not None
        return len(result.get("resumed", ())) == len(self.resumed)

    def is_finished(self, result: Mapping[str, Any] | None) -> bool:
        """Whether the run has ended as it should, by its `result.json`."""
        return result is not None and self.is_current(result) and bool(result.get("finished"))


def now() -> str:
    """The time of day, for people alone: no duration is measured by it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_facts(folder: Path) -> Facts:
    """What `run.json` says; nothing where it is missing or cannot be read."""
    return Facts.read(_read(folder / rundir.FACTS))


def read_result(folder: Path) -> dict[str, Any] | None:
    """The contents of `result.json`; None where it is missing or cannot be read."""
    found = _read(folder / rundir.RESULT)
    return found if isinstance(found, dict) else None


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
