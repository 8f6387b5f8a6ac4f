"""Checks of a tracker against `refcore.contracts.tracker.Tracker`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from refcore.contracts.tracker import Outcome, TrackedRun, Tracker
from refcore.testing.case import Case, Failed, global_randomness_untouched, require

SIDE = 16
STEPS = 3


def every_outcome(case: Case) -> None:
    """A run of a few steps is recorded without an error, however it ends, and what it is given stays as it was."""
    for outcome in ("finished", "interrupted", "failed"):
        with tempfile.TemporaryDirectory() as folder:
            _record(case.fresh(), Path(folder), case, outcome)


def an_end_without_a_start(case: Case) -> None:
    """`end` may follow a `start` that failed: there is nothing to close, and no error."""
    try:
        case.fresh().end("failed")
    except Exception as cause:
        raise Failed(
            f"end without a start raises {type(cause).__name__}: {cause}; expected nothing, since nothing is open"
        ) from cause


def no_global_randomness(case: Case) -> None:
    """Nothing is drawn from Python's, numpy's or torch's global generators."""
    tracker = case.fresh()
    with tempfile.TemporaryDirectory() as folder, global_randomness_untouched(type(case.plugin).__name__):
        _record(tracker, Path(folder), case, "finished")


def _record(tracker: Tracker, folder: Path, case: Case, outcome: Outcome) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    before, values = picture.copy(), {"loss/clip": 1.5, "lr": 0.1}
    samples = tuple((prompt, 0) for prompt in case.prompts)
    tracker.start(TrackedRun("a run", folder, {"steps": STEPS, "canvas": {"name": "pixel"}}, samples))
    tracker.pictures(0, {"sample_0": picture})
    for step in range(1, STEPS + 1):
        tracker.scalars(step, values)
    tracker.pictures(STEPS, {"sample_0": picture})
    tracker.end(outcome)
    require(np.array_equal(picture, before), "pictures changed an image in place; work on a copy")
    require(values == {"loss/clip": 1.5, "lr": 0.1}, "scalars changed the numbers that it was given; work on a copy")
