"""The runs in a folder: what each one's files say of it, read once for every use; and their removal."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from refcore.config.settings import load_yaml
from refcore.errors import RefcoreError
from refcore.runs import rundir
from refcore.runs.checkpoints import checkpoints_of
from refcore.runs.facts import read_facts, read_result
from refcore.runs.lock import LOCK, FolderLock, is_locked

State = Literal["running", "finished", "interrupted", "failed", "killed"]
STATES: tuple[State, ...] = get_args(State)


@dataclass(frozen=True)
class RunFolder:
    """A run, by what its folder says. Nothing here is loaded, and no link is followed."""

    path: Path
    state: State
    """running: a process writes to it. finished, interrupted (Ctrl-C or SIGTERM), failed (an exception): how its result
    says that it ended. killed: it has no result of its last process."""
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    preset: str | None
    """Name of its preset; None where it had none, or an older refcore wrote the folder."""
    scores: dict[str, float | None]
    """Label -> mean score over the samples, by each referee and witness; None where one is missing. Empty before the
    first result."""
    steps: int
    """Steps that are done, as far as the disk knows."""
    planned: int
    """Steps of the config; with several tries, those of one."""
    checkpoint: int | None
    """Steps done in its last checkpoint, from which it could go on; None without one."""
    stopped: str | None
    """Reason for an early end, in words."""
    began: str | None
    """The time of its first start, as ISO 8601."""
    changed: float
    """When it last wrote, in seconds since 1970, by the file system's clock."""
    size: int
    """Bytes of all files in its folder."""
    problem: str | None = None
    """Why its config cannot be read; None where it can."""

    @property
    def age(self) -> float:
        """Seconds since it last wrote; 0 where the clock has been set back."""
        return max(0.0, time.time() - self.changed)

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {**asdict(self), "path": str(self.path), "prompts": list(self.prompts), "seeds": list(self.seeds)}


def read_folder(path: Path) -> RunFolder | None:
    """The run in a folder; None where it holds none."""
    if not (path / rundir.CONFIG).is_file() or path.is_symlink():
        return None
    locked = is_locked(path)  # first: a run that ends meanwhile has written its result by then
    facts, result, kept = read_facts(path), read_result(path), checkpoints_of(path)
    try:
        settings, problem = load_yaml(path / rundir.CONFIG), None
    except RefcoreError as error:
        settings, problem = {}, str(error)
    current = facts.is_current(result)
    known = result or {}
    stopped = known.get("stopped") if current else None
    state: State
    if locked:
        state = "running"
    elif not current:
        state = "killed"
    elif known.get("finished", True):
        state = "finished"
    else:
        state = "interrupted" if stopped == "interrupted" else "failed"
    steps = known.get("steps") if current and not locked else None
    files = list(_files(path))
    return RunFolder(
        path=path,
        state=state,
        prompts=tuple(map(str, settings.get("prompts") or ())),
        seeds=tuple(settings.get("seeds") or ()),
        preset=facts.preset,
        scores=_mean_scores(known),
        steps=steps if isinstance(steps, int) else _lines(path / rundir.HISTORY),
        planned=facts.steps or settings.get("steps") or 0,
        checkpoint=kept[0].step if kept else None,
        stopped=stopped,
        began=facts.began,
        changed=max((file.st_mtime for file in files), default=0.0),
        size=sum(file.st_size for file in files),
        problem=problem,
    )


def runs_under(folder: str | Path) -> list[RunFolder]:
    """The runs in a folder and in the folders inside it, the last changed first. Links are not followed.

    Raises:
        RefcoreError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise RefcoreError(f'there is no folder "{folder}"; expected one with runs, as `refcore invert` makes runs/')
    found = []
    for place, inside, _ in os.walk(folder):
        if run := read_folder(Path(place)):
            found.append(run)
            inside.clear()  # a run's folder holds no other run
        inside.sort()
    return sorted(found, key=lambda run: -run.changed)


def remove_run(run: RunFolder) -> list[str]:
    """Removes what a run has written, and its folder if nothing else is in it.

    Returns:
        The names of other files, which stay, with the folder.

    Raises:
        RefcoreError: it is running, it is no run any more, or it cannot be removed.
    """
    if read_folder(run.path) is None:
        raise RefcoreError(f'"{run.path}" holds no run; it is left as it is')
    try:
        lock = FolderLock.take(run.path, "it is left as it is")
    except OSError as error:
        raise _not_removed(run.path, error) from error
    try:
        # The config goes last: until then a folder that is half removed still counts as a run, and can be removed.
        own = sorted(rundir.own_files(run.path), key=lambda path: path.name == rundir.CONFIG)
        for path in own:
            if path.name != LOCK:
                path.unlink(missing_ok=True)
        for inner in (run.path / name for name in rundir.OWN_INSIDE):
            if inner.is_symlink():
                inner.unlink()
            elif inner.is_dir() and not any(inner.iterdir()):
                inner.rmdir()
    except OSError as error:
        raise _not_removed(run.path, error) from error
    finally:
        lock.release()
    others = sorted(path.name for path in run.path.iterdir())
    if not others:
        try:
            run.path.rmdir()
        except OSError as error:
            raise _not_removed(run.path, error) from error
    return others


def _not_removed(path: Path, error: OSError) -> RefcoreError:
    return RefcoreError(f'cannot remove "{path}": {error.strerror or error}')


def _mean_scores(result: dict[str, Any]) -> dict[str, float | None]:
    """Label -> mean over the samples of a `result.json`."""
    found: dict[str, list[float | None]] = {}
    for sample in result.get("samples") or ():
        for label, value in {**sample.get("scores", {}), **sample.get("witnesses", {})}.items():
            found.setdefault(label, []).append(value)
    means: dict[str, float | None] = {}
    for label, values in found.items():
        numbers = [value for value in values if value is not None]
        means[label] = sum(numbers) / len(numbers) if len(numbers) == len(values) else None
    return means


def _lines(path: Path) -> int:
    """Number of lines of a file; 0 where there is none."""
    try:
        with path.open("rb") as file:
            return sum(1 for _ in file)
    except OSError:
        return 0


def _files(folder: Path) -> Iterator[os.stat_result]:
    """Of everything in a folder, links themselves included."""
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                yield os.lstat(os.path.join(place, name))
            except OSError:  # a file that was only being written
                continue
