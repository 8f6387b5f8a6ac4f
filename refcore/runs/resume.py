"""`refcore.resume`: a run that goes on in its own folder, after whatever has ended it, or beyond its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from refcore.engine.inversion import StepResult
from refcore.engine.models import Models
from refcore.runs.checkpoints import DEFAULT
from refcore.runs.observers import Callback, Observer
from refcore.runs.result import Result
from refcore.runs.resumption import resumption
from refcore.runs.run import Run, whole


def resume(
    folder: str | Path,
    *,
    extra_steps: int = 0,
    on_step: Callable[[StepResult], None] | None = None,
    observers: Sequence[Observer] = (),
    models: Models | None = None,
    checkpoint: str | float | None = DEFAULT,
) -> Result:
    """Goes on with a run that was interrupted, killed or failed, from its last checkpoint, or with a finished one.

    On the CPU, with the same machine and versions, images, history and scores are those of a run that was never
    stopped, bit for bit.

    Args:
        folder: of the run.
        extra_steps: to take beyond its end. From where it goes on, the run is one of so many steps more, schedules
            included: what depends on the run's length has the values of the longer run.
        on_step: called after every step.
        observers: what else watches the run.
        models: as for `invert`.
        checkpoint: as for `invert`.

    Raises:
        AlreadyFinished: the run is finished, and `extra_steps` is 0.
        RefcoreError: there is no run, it is still running, its config or its weights are others than when it was saved,
            and all that `invert` raises.

    Example:
        >>> result = refcore.resume("runs/a-red-circle-0", extra_steps=100)     # doctest: +SKIP
    """
    watching = [*observers, *([Callback(on_step)] if on_step is not None else [])]
    road = resumed_run(folder, extra_steps, observers=watching, models=models, checkpoint=checkpoint)
    return whole(road.execute())


def resumed_run(folder: str | Path, extra_steps: int = 0, **options: Any) -> Run:
    """The run that goes on in a folder; `options` as of `Run`.

    Raises:
        RefcoreError: as `resume`.
    """
    found = resumption(folder, extra_steps)
    try:
        return Run(found.config, resumed=found, preset=found.facts.preset, **options)
    except BaseException:
        found.folder.release()
        raise
