"""Trackers as observers: what a run does, told to each tracker in its own terms."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from refcore import images, registry
from refcore.config.settings import Settings, parse_yaml
from refcore.config.terms import PluginUse
from refcore.contracts.tracker import Outcome, TrackedRun, Tracker
from refcore.engine.inversion import Inversion, StepResult
from refcore.explain import validated
from refcore.runs.observers import Observer, Record
from refcore.runs.result import Result

OPTION = "--track"


class Tracking(Observer):
    """Tells one tracker of a run: numbers after every step, pictures now and then and at the end."""

    def __init__(self, tracker: Tracker, folder: Path | None) -> None:
        """
        Args:
            tracker: not started.
            folder: of the run; None where it writes nothing.
        """
        self.tracker, self.folder = tracker, folder
        self._asked = self._started = False
        self._outcome: Outcome = "failed"
        self._inversion: Inversion | None = None

    def on_start(self, inversion: Inversion) -> None:
        self._inversion = inversion
        name = self.folder.name if self.folder is not None else inversion.config.prompts[0]
        config = inversion.recorded.settings()
        self._asked = True
        self.tracker.start(TrackedRun(name, self.folder, config, tuple(inversion.samples), inversion.step))
        self._started = True
        self._pictures(inversion)

    def on_step(self, step: StepResult, record: Record) -> None:
        assert self._inversion is not None, "a step follows the start"
        self.tracker.scalars(step.step + 1, scalars(record))
        every = self.tracker.config.pictures
        if every and (step.step + 1) % every == 0 and not self._inversion.done:
            self._pictures(self._inversion)

    def on_end(self, result: Result) -> None:
        if not self._started:
            return
        stopped = isinstance(result.error, KeyboardInterrupt)
        self._outcome = "finished" if result.error is None else "interrupted" if stopped else "failed"
        scores = {
            f"score/{label}/sample_{i}": value
            for i, sample in enumerate(result)
            for label, value in sample.scores.items()
        }
        self.tracker.scalars(result.steps, _finite(scores))
        self.tracker.pictures(
            result.steps, {f"sample_{i}": images.levels(sample.pixels) for i, sample in enumerate(result)}
        )

    def on_exit(self) -> None:
        if self._asked:
            self._asked = False
            self.tracker.end(self._outcome)

    def _pictures(self, inversion: Inversion) -> None:
        shown = inversion.images()
        self.tracker.pictures(inversion.step, {f"sample_{i}": images.levels(pixels) for i, pixels in enumerate(shown)})


def scalars(record: Mapping[str, Any]) -> dict[str, float]:
    """A step's numbers by name: means over the tracks that took part, and over those of each sample.

    >>> step = {"losses": {"clip": [1.0, 3.0]}, "norms": {"clip": [2.0, 4.0]}, "active": [True, True],
    ...         "candidates": [[0, 0], [1, 0]], "lr": 0.1, "seconds": 0.5}
    >>> [*scalars(step)]
    ['loss/clip', 'loss/clip/sample_0', 'loss/clip/sample_1', 'norm/clip', 'norm/clip/sample_0', 'norm/clip/sample_1',
    'lr', 'seconds']
    >>> scalars(step)["loss/clip"], scalars(step)["norm/clip/sample_1"]
    (2.0, 4.0)
    """
    taking = [i for i, active in enumerate(record["active"]) if active]
    owner = [sample for sample, _ in record["candidates"]]
    found: dict[str, float] = {}
    for kind, columns in (("loss", record["losses"]), ("norm", record["norms"])):
        for label, column in columns.items():
            found[f"{kind}/{label}"] = _mean(column[i] for i in taking)
            for sample in dict.fromkeys(owner):
                found[f"{kind}/{label}/sample_{sample}"] = _mean(column[i] for i in taking if owner[i] == sample)
    rates = record["lr"]
    found |= {f"lr/{name}": rate for name, rate in rates.items()} if isinstance(rates, dict) else {"lr": rates}
    return _finite({**found, "seconds": record["seconds"]})


def trackers(wanted: Iterable[str | Tracker]) -> list[Tracker]:
    """The trackers that a run is to be told to, checked: each a name, a mapping in YAML, or a tracker.

    Raises:
        RefcoreError: an unknown name, a wrong field, or a package that is not installed.
    """
    found = [one if isinstance(one, Tracker) else _named(one) for one in wanted]
    for tracker in found:
        tracker.check()
    return found


def _named(text: str) -> Tracker:
    """The tracker of "tensorboard", or of "{name: tensorboard, config: {pictures: 5}}"."""
    settings: Settings = {"name": text}
    if text.lstrip().startswith("{"):
        settings = parse_yaml(text, f'{OPTION} "{text}"')
    use = validated(PluginUse, settings, OPTION)
    made: Tracker = registry.create("trackers", use.name, use.config, OPTION)
    return made


def _mean(values: Iterable[float]) -> float:
    kept = [*values]
    return sum(kept) / len(kept) if kept else math.nan


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if math.isfinite(value)}
