"""`refcore invert`: reads the command line into a config, runs it with progress, and prints what it made."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import typer

from refcore.cli.garbage_collection import without_garbage_collection
from refcore.cli.output import echo, print_json, print_table, warn, warnings_shown
from refcore.cli.status import INTERRUPTED, TERMINATED
from refcore.config import presets
from refcore.config.run import RunConfig
from refcore.errors import AlreadyFinished, RefcoreError, Terminated
from refcore.prompts import parse_seeds, read_prompts
from refcore.runs import rundir

if TYPE_CHECKING:
    from refcore.runs.observers import Observer
    from refcore.runs.result import Result
    from refcore.runs.run import Run

RUNS = Path("runs")
"""Folder of the runs without `--out`."""


@dataclass(frozen=True)
class Request:
    """What a new run is to make, as the command line says it."""

    prompts: Sequence[str] = ()
    prompts_file: Path | None = None
    preset: str | None = None
    config: Path | None = None
    overrides: Sequence[str] = ()
    seed: int | None = None
    seeds: str | None = None
    strict: bool = False

    def resolved(self) -> RunConfig:
        """The config of the run.

        Raises:
            RefcoreError: no prompt, two kinds of seeds, or what `refcore.config.presets.compose` finds.
        """
        fields: dict[str, Any] = {"strict": True} if self.strict else {}
        if self.prompts or self.prompts_file is not None:
            listed = read_prompts(self.prompts_file) if self.prompts_file is not None else []
            fields["prompts"] = [*self.prompts, *listed]
        if self.seed is not None and self.seeds is not None:
            raise RefcoreError("both --seed and --seeds were given; expected one of them")
        if self.seed is not None:
            fields["seeds"] = [self.seed]
        elif self.seeds is not None:
            fields["seeds"] = parse_seeds(self.seeds)
        config = presets.compose(self.preset, self.config, self.overrides, **fields)
        if not config.prompts:
            raise RefcoreError("no prompt was given; expected PROMPT or --prompts-file")
        return config


class Keeping(TypedDict):
    """What is kept of a run beside its result; the arguments of `Run` of these names."""

    checkpoint: str
    report: bool
    track: Sequence[str]


def run(request: Request, out: Path | None, keeping: Keeping, as_json: bool) -> None:
    """A new run, in a folder of its own.

    Raises:
        RefcoreError: as `Request.resolved` and `refcore.invert`.
    """
    if out is not None:
        rundir.refuse_taken(out)
    config = request.resolved()
    with without_garbage_collection():
        # From here on torch is needed; a mistake on the command line has been reported before.
        from refcore.runs.run import Run

        road = Run(
            config,
            out=out,
            parent=None if out is not None else RUNS,
            observers=_watching(),
            preset=presets.name_of(request.preset, request.config),
            **keeping,
        )
        with warnings_shown():
            road.load()
    _execute(road, as_json)


def resume_run(folder: Path, steps: str | None, keeping: Keeping, as_json: bool) -> None:
    """Goes on with a run.

    Raises:
        RefcoreError: as `refcore.resume`, and `steps` is no number of further ones.
    """
    if steps is not None and not re.fullmatch(r"\+\d+", steps):
        raise RefcoreError(f'--steps is "{steps}"; expected how many more, such as +100')
    with without_garbage_collection(), warnings_shown():
        from refcore.runs.facts import read_result
        from refcore.runs.resume import resumed_run

        try:
            road = resumed_run(folder, int(steps or 0), observers=_watching(), **keeping)
        except AlreadyFinished as finished:
            if as_json:
                print_json({"out": str(folder), **(read_result(folder) or {})})
            else:
                print(finished)
            return
        assert road.resumed is not None, "it is a resumed run"
        if not as_json:
            print(f"note: {folder} goes on after {road.resumed.step} of {road.config.steps} steps")
        road.load()
    _execute(road, as_json)


def _watching() -> list[Observer]:
    """What shows the run: a bar on a terminal, lines elsewhere."""
    from refcore.runs.observers import Lines, Progress

    return [Progress() if sys.stderr.isatty() else Lines()]


def _execute(road: Run, as_json: bool) -> None:
    """The loaded run, from its notes to its result."""
    if not as_json:
        for note in road.load().notes:
            echo(f"note: {note}")
    with warnings_shown():
        result = road.execute()
    assert road.folder is not None, "the command writes every run"
    if road.recorder is not None and road.recorder.problem:
        warn(f"the report is not complete: {road.recorder.problem}")
    page = None if road.recorder is None else road.recorder.page
    resumable = road.checkpoints is not None and road.checkpoints.any
    _report(result, road.folder.path, page, resumable, road.written if as_json else None)


def _report(result: Result, path: Path, page: Path | None, resumable: bool, written: dict[str, Any] | None) -> None:
    """Prints what a run made, as JSON where `written`, the contents of its `result.json`, is given.

    Args:
        result: of the run.
        path: of its folder.
        page: the run's report, where it has one.
        resumable: whether there is a checkpoint to go on from.
        written: for JSON.

    Raises:
        RefcoreError: the run ended by an error, which names the folder.
        typer.Exit: with status 130 after Ctrl-C, 143 after SIGTERM.
    """
    again = f"; go on with refcore invert --resume {shlex.quote(str(path))}" if resumable else ""
    interrupted = isinstance(result.error, KeyboardInterrupt)
    if result.error is not None and not interrupted:
        kept = f"{result.error}; the image so far is kept in {path}{again}"
        if isinstance(result.error, RefcoreError):
            raise RefcoreError(kept) from result.error
        raise result.error
    if written is not None:
        print_json({"out": str(path), **written})
    else:
        _print_table(result, path)
        if page is not None:
            print(f"report: {page}")
    if interrupted:
        warn(f"stopped after {result.progress}; the images so far are in {path}{again}")
        raise typer.Exit(TERMINATED if isinstance(result.error, Terminated) else INTERRUPTED)


def _print_table(result: Result, path: Path) -> None:
    header, rows = result.table()
    print_table(["image", *header], [[rundir.image_name(index), *row] for index, row in enumerate(rows)])
    echo(f"in {path}")
