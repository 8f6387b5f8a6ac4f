"""`refcore runs` and `refcore runs clean`: the runs in a folder, and the removal of some of them."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from refcore.cli.output import print_json, print_table, warn
from refcore.errors import RefcoreError, unknown
from refcore.runs.durations import UNITS, in_words, seconds_of
from refcore.runs.folders import STATES, RunFolder, remove_run, runs_under

PROMPT = 40
"""Most characters of a prompt in the table."""


def list_runs(folder: Path, as_json: bool) -> None:
    if as_json:
        runs = runs_under(folder) if folder.is_dir() else []
        print_json([run.to_dict() for run in runs])
        return
    runs = runs_under(folder)
    if not runs:
        print(f"no runs in {folder}")
        return
    _print(runs, folder)
    if resumable := [run for run in runs if run.state in ("interrupted", "failed", "killed")]:
        print(f"go on with one: refcore invert --resume {resumable[0].path}")


def clean(folder: Path, names: list[str], states: list[str], older: str | None, yes: bool, as_json: bool) -> None:
    """Removes the runs that all of the given conditions hold for.

    Raises:
        RefcoreError: no condition was given, one is not understood, a name is no run in the folder, a named run is
            running, or nobody is there to be asked.
    """
    if not (names or states or older is not None):
        raise RefcoreError("nothing says which runs to remove; give names, --state or --older")
    for state in states:
        if state not in STATES:
            raise unknown("state", state, STATES, "--state")
    age = 0.0
    if older is not None:
        found = seconds_of(older)
        if found is None:
            raise RefcoreError(f'--older is "{older}"; expected a number with a unit ({", ".join(UNITS)}), such as 7d')
        age = found
    chosen = [run for run in _named(runs_under(folder), folder, names) if run.age >= age]
    if states:
        chosen = [run for run in chosen if run.state in states]
    running = [run for run in chosen if run.state == "running"]
    if running and (names or "running" in states):
        raise RefcoreError(f'"{running[0].path}" is running; end it first')
    chosen = [run for run in chosen if run.state != "running"]
    if chosen and not yes:
        _ask(chosen, folder)
    removed = []
    for run in chosen:
        others = remove_run(run)
        removed.append(run)
        if others:
            warn(f'"{run.path}" stays, since it holds more than the run: {", ".join(others)}')
    if as_json:
        print_json([run.to_dict() for run in removed])
    else:
        freed = _size(sum(run.size for run in removed))
        print(f"removed {len(removed)} runs, {freed}" if removed else "nothing to remove")


def _named(runs: list[RunFolder], folder: Path, names: list[str]) -> list[RunFolder]:
    """The runs of these names: paths inside the folder, with it or without; all where there are no names."""
    if not names:
        return runs
    by_name = {run.path.relative_to(folder).as_posix(): run for run in runs}
    found = {}
    for name in names:
        path = Path(name)
        inside = path.relative_to(folder) if path.is_relative_to(folder) else path
        if inside.as_posix() not in by_name:
            raise unknown("run", name, by_name, str(folder))
        found[inside.as_posix()] = by_name[inside.as_posix()]
    return list(found.values())


def _ask(runs: list[RunFolder], folder: Path) -> None:
    """Shows what would be removed, and goes on if a person agrees.

    Raises:
        RefcoreError: nobody can be asked.
        typer.Exit: the answer is no.
    """
    if not sys.stdin.isatty():
        raise RefcoreError(f"{len(runs)} runs would be removed, and nobody is there to be asked; say so with --yes")
    _print(runs, folder)
    if not typer.confirm(f"Remove {len(runs)} runs, {_size(sum(run.size for run in runs))}?", err=True):
        raise typer.Exit(1)


def _print(runs: list[RunFolder], folder: Path) -> None:
    columns = ["run", "state", "prompt", "preset", "scores", "steps", "age", "size"]
    print_table(columns, [_row(run, folder) for run in runs])


def _row(run: RunFolder, folder: Path) -> list[str]:
    first = run.prompts[0] if run.prompts else (run.problem or "")
    prompt = first if len(first) <= PROMPT else f"{first[: PROMPT - 3]}..."
    more = max(1, len(run.prompts)) * max(1, len(run.seeds)) - 1
    scores = ", ".join(f"{label} {'-' if mean is None else f'{mean:.3f}'}" for label, mean in run.scores.items())
    return [
        str(run.path.relative_to(folder)),
        run.state,
        f"{prompt} (+{more})" if more else prompt,
        run.preset or "",
        scores,
        f"{run.steps}/{run.planned}",
        in_words(run.age),
        _size(run.size),
    ]


def _size(count: int) -> str:
    """Bytes in the unit that a reader would take.

    >>> _size(900), _size(1_234_000), _size(5_600_000_000)
    ('1 kB', '1.2 MB', '5.6 GB')
    """
    if count < 1_000_000:
        return f"{count / 1_000:.0f} kB"
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"
