"""A sweep as data: the config, what varies, on which prompts, and where the results go."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from refcore.config import presets
from refcore.config.settings import dump_yaml, override
from refcore.errors import RefcoreError, unknown
from refcore.runs.rundir import to_json
from refcore_bench import variants
from refcore_bench.executors.job import Executor
from refcore_bench.storing.results import Results
from refcore_bench.sweep.axes import Axis, Point, assignments
from refcore_bench.sweep.towards import Towards
from refcore_bench.task import Progress, Task, TaskPrompt
from refcore_bench.variants import Variant

BEST, SUMMARY = "best.yaml", "sweep.json"
"""Files of a sweep: the config of the best trial, and every trial with its value."""


@dataclass(frozen=True)
class Sweep:
    """Everything but the way in which its points are chosen."""

    out: str
    """Results folder, a path or a URL."""
    settings: Mapping[str, Any]
    """Of the config."""
    axes: Sequence[Axis]
    task: Task
    prompts: Sequence[TaskPrompt]
    source: int | str
    """Source of the prompts."""
    seeds: Sequence[int]
    towards: Towards
    executor: Executor
    batch: int = 1
    progress: Progress = lambda line: None

    def variant(self, name: str, point: Point) -> Variant:
        """The variant at a point.

        Raises:
            RefcoreError: the point makes no valid config; a ConfigError of the field.
        """
        try:
            return variants.variant_from_settings(name, override(dict(self.settings), assignments(point)), self.task)
        except RefcoreError as error:
            raise RefcoreError(f"{', '.join(assignments(point))}: {error}") from error


@dataclass(frozen=True)
class Trial:
    """A point with what came of it."""

    name: str
    """Of its variant."""
    point: Point
    state: str
    """complete, pruned, failed, or unfinished where the sweep was interrupted."""
    value: float | None = None
    """Of what the sweep is after; None where the images are not all made."""
    losses: list[float] = field(default_factory=list)
    """Mean loss along its run, as far as it went."""


def base_settings(source: str) -> dict[str, Any]:
    """The settings of CONFIG: the name of a preset, or the path of a YAML file.

    Raises:
        RefcoreError: it is neither.
    """
    if source in presets.names():
        return presets.get(source).settings
    if Path(source).suffix in (".yaml", ".yml") or Path(source).is_file():
        return presets.load(source)
    raise unknown("config", source, presets.names())


def best_first(trials: Sequence[Trial], after: Towards) -> list[Trial]:
    """The trials, the best first; among equals the earlier one; those without a value last."""

    def place(trial: Trial) -> tuple[bool, float]:
        value = trial.value if trial.value is not None else 0.0
        return trial.value is None, -value if after.upwards else value

    return sorted(trials, key=place)


def write_summary(
    results: Results, sweep: Sweep, trials: Sequence[Trial], made: Callable[[str, Point], Variant]
) -> None:
    """Writes `sweep.json`, and the best trial's config as `best.yaml`, for `refcore invert --config`."""
    ranked = best_first(trials, sweep.towards)
    told = {"towards": sweep.towards.name, "trials": [vars(trial) for trial in ranked]}
    results.storage.write(SUMMARY, f"{to_json(told, indent=2)}\n".encode())
    if not ranked or ranked[0].value is None:
        return
    best = ranked[0]
    head = (
        f"# The best of {len(ranked)} trials, {best.name}: {sweep.towards.title} {best.value:.6g}\n"
        f"# {', '.join(assignments(best.point))}\n"
    )
    results.storage.write(BEST, (head + dump_yaml(made(best.name, best.point).settings)).encode())
