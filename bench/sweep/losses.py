"""The referees' mean loss along each run of a sweep: watched, written beside the images, and a reason to stop early."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from refcore.engine.inversion import Inversion, StepResult
from refcore.engine.step import Engine
from refcore.runs.observers import Observer, Record, mean_losses
from refcore.text_files import parse_json
from refcore_bench.running import Batch
from refcore_bench.storing.results import Results, part_name

MARKS = 10
"""Number of times that the loss of a batch is noted, evenly over its steps."""


class Pruned(Exception):
    """A run that is not worth its remaining steps."""


@dataclass(frozen=True)
class BatchLosses:
    """The loss of a batch: unweighted, averaged over referees and then samples, so that weights do not change it."""

    images: int
    marks: list[float]
    """At each of the `MARKS`."""
    last: float
    """At the last step."""


class Losses(Observer):
    """Notes the mean loss of a batch as it is made."""

    def __init__(self, on_mark: Callable[[int, float], None] = lambda mark, loss: None) -> None:
        """`on_mark`: receives the number of each mark, from 0, and the loss; it may raise `Pruned`."""
        self._on_mark = on_mark
        self._referees: list[str] = []
        self._steps = 0
        self.marks: list[float] = []
        self.last = float("nan")

    def on_load(self, engine: Engine) -> None:
        self._referees = [use.label for use in engine.panel.referees]

    def on_start(self, inversion: Inversion) -> None:
        self._steps = inversion.planned

    def on_step(self, step: StepResult, record: Record) -> None:
        means = mean_losses(record)
        own = [means[label] for label in self._referees if label in means] or [*means.values()]
        if own:
            self.last = sum(own) / len(own)
        while len(self.marks) < min(MARKS, (record["step"] + 1) * MARKS // self._steps):
            self._note()

    def of(self, images: int) -> BatchLosses:
        """What was noted, once the batch is made; a run that ended early keeps its last loss."""
        while len(self.marks) < MARKS:
            self._note()
        return BatchLosses(images, self.marks, self.last)

    def _note(self) -> None:
        self.marks.append(self.last)
        self._on_mark(len(self.marks) - 1, self.last)


def write(results: Results, batch: Batch, found: BatchLosses) -> None:
    """Writes the losses of a batch beside its part."""
    results.storage.write(_name(batch), json.dumps(vars(found)).encode())


def read(results: Results, batch: Batch) -> BatchLosses:
    """The losses of a batch that is made."""
    return _parsed(results.storage.read_text(_name(batch)))


def read_all(results: Results, variant: str) -> list[BatchLosses]:
    """The losses of all batches of a variant."""
    return [_parsed(results.storage.read_text(name)) for name in results.storage.listed(f"losses/{variant}/*.json")]


def mean(found: list[BatchLosses]) -> float:
    """Mean over images of the loss at the last step."""
    return sum(one.images * one.last for one in found) / sum(one.images for one in found)


def _name(batch: Batch) -> str:
    return f"losses/{batch.variant.name}/{part_name(batch.prompts, batch.seed)}.json"


def _parsed(text: str) -> BatchLosses:
    found: dict[str, Any] = parse_json(text)
    return BatchLosses(int(found["images"]), [float(mark) for mark in found["marks"]], float(found["last"]))
