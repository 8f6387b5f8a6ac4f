"""`refcore invert`: reads the command line into a config, runs it with progress, and prints what it made."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from refcore.cli.garbage_collection import without_garbage_collection
from refcore.cli.output import UNWANTED, print_json, print_table, warn
from refcore.config import presets
from refcore.errors import RefcoreError
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
            print(f"note: {note}")
    result = road.execute()
    assert road.folder is not None, "the command writes every run"
    _report(result, road.folder.path, road.written if as_json else None)


def read_prompts(path: Path) -> list[str]:
    """The prompts in a file, one a line; blank lines are skipped.

    Raises:
        RefcoreError: the file is missing, unreadable, or holds no prompt.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise RefcoreError(f'cannot read the prompts file "{path}": {reason}') from error
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise RefcoreError(f'the prompts file "{path}" is empty; expected one prompt a line')
    return prompts


def parse_seeds(text: str) -> list[int]:
    """`0,1,2`, or `0-9`, or both: `0-3,7`.

    Raises:
        RefcoreError: the text is malformed, or names a seed twice.

    >>> parse_seeds("0-3,7")
    [0, 1, 2, 3, 7]
    """
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(last) < int(first)):
            raise RefcoreError(f'--seeds "{text}" is not a list of seeds; expected 0,1,2 or 0-9')
        seeds += range(int(first), int(last if dash else first) + 1)
    if len(set(seeds)) < len(seeds):
        raise RefcoreError(f'--seeds "{text}" names a seed twice, which would make the same image twice')
    return seeds


def _report(result: Result, path: Path, written: dict[str, Any] | None) -> None:
    """Prints what a run made, as JSON where `written`, the contents of its `result.json`, is given.

    Raises:
        RefcoreError: the run ended by an error, which names the folder.
        typer.Exit: with status 130 after Ctrl-C.
    """
    interrupted = isinstance(result.error, KeyboardInterrupt)
    if result.error is not None and not interrupted:
        kept = f"{result.error}; the image so far is kept in {path}"
        raise RefcoreError(kept) if isinstance(result.error, RefcoreError) else result.error
    if written is not None:
        print_json({"out": str(path), **written})
    else:
        _print_table(result, path)
    if interrupted:
        warn(f"stopped after {result.steps} of {result.config.steps} steps; the images so far are in {path}")
        raise typer.Exit(130)


def _print_table(result: Result, path: Path) -> None:
    labels = list(result.panel["units"])
    judged = any(sample.verdict is not None for sample in result.samples)
    rows = []
    for index, sample in enumerate(result.samples):
        row = [rundir.image_name(index), sample.prompt, sample.seed, *(f"{sample.scores[n]:.3f}" for n in labels)]
        verdict = "" if sample.verdict is None else "yes" if sample.verdict.verdict else "no"
        rows.append([*row, verdict] if judged else row)
    heads = [f"{label} ({UNWANTED})" if label in result.panel["unwanted"] else label for label in labels]
    print_table(["image", "prompt", "seed", *heads, *(["judge"] if judged else [])], rows)
    print(f"in {path}")
