"""`refcore invert`: reads the command line into a config, runs it with progress, and prints what it made."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from refcore.cli.garbage_collection import without_garbage_collection
from refcore.cli.output import echo, print_json, print_table, warn
from refcore.config import presets
from refcore.errors import RefcoreError
from refcore.prompts import parse_seeds, read_prompts
from refcore.runs import rundir

if TYPE_CHECKING:
    from refcore.runs.result import Result

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
    as_json: bool,
) -> None:
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
        from refcore.runs.observers import Lines, Progress
        from refcore.runs.run import Run

        road = Run(
            config,
            out=out,
            parent=None if out is not None else RUNS,
            observers=[Progress() if sys.stderr.isatty() else Lines()],
            preset=presets.name_of(preset_name, config_file),
        )
        engine = road.load()
    for warning in engine.warnings:
        warn(warning)
    if not as_json:
        for note in engine.notes:
            echo(f"note: {note}")
    result = road.execute()
    assert road.folder is not None, "the command writes every run"
    _report(result, road.folder.path, road.written if as_json else None)


def _report(result: Result, path: Path, written: dict[str, Any] | None) -> None:
    """Prints what a run made, as JSON where `written`, the contents of its `result.json`, is given.

    Raises:
        RefcoreError: the run ended by an error, which names the folder.
        typer.Exit: with status 130 after Ctrl-C.
    """
    interrupted = isinstance(result.error, KeyboardInterrupt)
    if result.error is not None and not interrupted:
        kept = f"{result.error}; the image so far is kept in {path}"
        if isinstance(result.error, RefcoreError):
            raise RefcoreError(kept) from result.error
        raise result.error
    if written is not None:
        print_json({"out": str(path), **written})
    else:
        _print_table(result, path)
    if interrupted:
        warn(f"stopped after {result.progress}; the images so far are in {path}")
        raise typer.Exit(130)


def _print_table(result: Result, path: Path) -> None:
    header, rows = result.table()
    print_table(["image", *header], [[rundir.image_name(index), *row] for index, row in enumerate(rows)])
    echo(f"in {path}")
