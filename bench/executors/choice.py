"""The executor that the options `--workers` and `--ray` of a command line ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from refcore.errors import RefcoreError
from refcore_bench.executors.job import Executor
from refcore_bench.executors.local import Local


def chosen(
    workers: int,
    ray: str | None,
    runs: Sequence[Mapping[str, Any] | None],
    images: int,
    plugin_folders: Sequence[Path],
    progress: Callable[[str], None],
) -> Executor:
    """Processes of this machine, or a Ray cluster.

    Args:
        workers: value of `--workers`.
        ray: value of `--ray`.
        runs: settings of the runs, None for what is no run; by them the parts of a GPU are planned.
        images: made side by side.
        plugin_folders: folders of plugin files.
        progress: progress callback; receives one line.

    Raises:
        RefcoreError: both options are given; Ray is not installed.
    """
    if ray is None:
        return Local(workers, plugin_folders, progress)
    if workers != 1:
        raise RefcoreError(
            f"--workers {workers} and --ray {ray} were given; expected one of them: Ray plans its workers"
        )
    from refcore_bench.executors.ray import Ray

    return Ray(ray, runs, images, plugin_folders, progress)
