"""`refcore invert`: reads the command line into a config, runs it with progress, and prints what it made."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from refcore.cli.garbage_collection import without_garbage_collection
from refcore.cli.output import echo, print_json, print_table, warn, warnings_shown
from refcore.cli.status import INTERRUPTED, TERMINATED
from refcore.config import presets
from refcore.errors import AlreadyFinished, RefcoreError, Terminated
from refcore.prompts import parse_seeds, read_prompts
from refcore.runs import rundir

if TYPE_CHECKING:
    from refcore.runs.observers import Observer
    from refcore.runs.result import Result
    from refcore.runs.run import Run

RUNS = Path("runs")
"""Folder of the runs without `--out`."""


def run(
    prompts: list[str],
    prompts_file: Path | None,
    preset_name: str | None,
    config_file: Path | None,
    overrides: list[str],
    seed: int | None,
    seeds: str | None,
    out: Path | None,
    strict: bool,
    steps: str | None,
    checkpoint: str,
    as_json: bool,
    report: bool,
    track: list[str],
) -> None:
    if steps is not None:
        raise RefcoreError(f'--steps is "{steps}", which goes with --resume; a new run takes --set steps=N')
    if out is not None:
        rundir.refuse_taken(out)
    fields: dict[str, Any] = {"strict": True} if strict else {}
    if prompts or prompts_file is not None:
        fields["prompts"] = [*prompts, *(read_prompts(prompts_file) if prompts_file is not None else [])]
    if seed is not None and seeds is not None:
        raise RefcoreError("both --seed and --seeds were given; expected one of them")
    if seed is not None or seeds is not None:
        fields["seeds"] = [seed] if seeds is None else parse_seeds(seeds)
    config = presets.compose(preset_name, config_file, overrides, **fields)
    if not config.prompts:
        raise RefcoreError("no prompt was given; expected PROMPT or --prompts-file")

    with without_garbage_collection():
        # From here on torch is needed; a mistake on the command line has been reported before.
        from refcore.runs.run import Run

        road = Run(
            config,
            out=out,
            parent=None if out is not None else RUNS,
            observers=_watching(),
            preset=presets.name_of(preset_name, config_file),
            checkpoint=checkpoint,
            report=report,
            track=track,
        )
        with warnings_shown():
            road.load()
    _execute(road, as_json)


def resume_run(
    folder: Path, steps: str | None, others: list[str], checkpoint: str, as_json: bool, report: bool, track: list[str]
) -> None:
    """Goes on with a run; `others` are the options of a new run that were given beside.

    Raises:
        RefcoreError: as `refcore.resume`, and for options that do not go together.
    """
    if others:
        raise RefcoreError(f"{others[0]} was given beside --resume, but a resumed run has its own; leave it out")
    if steps is not None and not re.fullmatch(r"\+\d+", steps):
        raise RefcoreError(f'--steps is "{steps}"; expected how many more, such as +100')
    with without_garbage_collection(), warnings_shown():
        from refcore.runs.facts import read_result
        from refcore.runs.resume import resumed_run

        try:
            kept = {"checkpoint": checkpoint, "report": report, "track": track}
            road = resumed_run(folder, int(steps or 0), observers=_watching(), **kept)
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
