"""`refcore invert`: reads the command line into a config, runs it with progress, and fills the run directory."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import typer

from refcore.checkpoints import needed_by
from refcore.cli.garbage_collection import uncollected
from refcore.cli.output import print_json, print_table, warn
from refcore.config import presets
from refcore.config.run import RunConfig
from refcore.config.settings import dump_yaml
from refcore.errors import RefcoreError
from refcore.runs import rundir

RUNS = Path("runs")
"""Where runs without `--out` go."""
REFRESH_SECONDS = 0.2


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
        raise RefcoreError("there is no prompt; give PROMPT or --prompts-file")

    began = time.perf_counter()
    with uncollected():
        # From here on torch is needed; a mistake on the command line has been told before.
        from refcore.engine.build import resolve
        from refcore.engine.inversion import Inversion

        config = resolve(_with_absolute_init(config))
        with needed_by(preset_name if config_file is not None else preset_name or presets.DEFAULT):
            inversion = Inversion(config)
    loaded = time.perf_counter()
    for warning in inversion.warnings:
        warn(warning)
    if not as_json:
        for note in inversion.notes:
            print(f"note: {note}")

    folder = rundir.RunDir.claim(out) if out is not None else rundir.RunDir.claim_next(RUNS, config.prompts[0])
    folder.write_config(dump_yaml(inversion.recorded.settings()))
    interrupted, failure = False, None
    try:
        interrupted = _iterate(inversion, folder)
    except Exception as error:
        failure = error
    timings = {"load": loaded - began, "steps": time.perf_counter() - loaded}
    stopped = str(failure) if failure else "interrupted" if interrupted else None
    try:
        result = folder.finish(inversion, timings, stopped, _verdicts(inversion.config, folder))
    except Exception as error:
        if failure is None:
            raise
        raise failure from error
    if failure is not None:
        kept = f"{failure}; the image so far is kept in {folder.path}"
        raise RefcoreError(kept) if isinstance(failure, RefcoreError) else failure
    _tell(folder, result, as_json)
    if interrupted:
        print_stopped(inversion.step, config.steps, folder.path)
        raise typer.Exit(130)


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
        RefcoreError: it is no such list, or a seed occurs twice.

    >>> parse_seeds("0-3,7")
    [0, 1, 2, 3, 7]
    """
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(last) < int(first)):
            raise RefcoreError(f'--seeds "{text}" is no list of seeds; expected 0,1,2 or 0-9')
        seeds += range(int(first), int(last if dash else first) + 1)
    if len(set(seeds)) < len(seeds):
        raise RefcoreError(f'--seeds "{text}" names a seed twice, which would make the same image twice')
    return seeds


def _with_absolute_init(config: RunConfig) -> RunConfig:
    """`init` without the working directory in it, so that the recorded config works from anywhere."""
    if not isinstance(config.init, str):
        return config
    return config.model_copy(update={"init": str(Path(config.init).absolute())})


def _iterate(inversion: Any, folder: rundir.RunDir) -> bool:
    """Takes every step; True where Ctrl-C ended it early."""
    with _stop_flag() as asked_to_stop, _progress(inversion) as show:
        for step in inversion:
            record = step.record()
            folder.append_history(record)
            show(record)
            if asked_to_stop():
                return not inversion.done
    return False


@contextmanager
def _stop_flag() -> Iterator[Any]:
    """The first Ctrl-C only raises a flag, so that no step is cut in half; the second one ends the process as usual."""
    raised = False

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal raised
        raised = True
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield lambda: raised
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _progress(inversion: Any) -> Iterator[Any]:
    """A bar with each term's mean loss and the time left, where stderr is a terminal."""
    if not sys.stderr.isatty():
        yield lambda record: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from refcore.cli.output import stderr

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[losses]}"))
    with Progress(*columns, console=stderr, transient=True) as bar:
        task = bar.add_task("steps", total=inversion.config.steps, completed=inversion.step, losses="")
        shown = 0.0

        def show(record: dict[str, Any]) -> None:
            nonlocal shown
            if (now := time.monotonic()) - shown > REFRESH_SECONDS:
                shown = now
                bar.update(task, completed=record["step"] + 1, losses=_losses(record))

        yield show


def _losses(record: dict[str, Any]) -> str:
    """Each term's loss, averaged over the samples that still move."""
    told = []
    for label, losses in record["losses"].items():
        moving = [loss for loss, active in zip(losses, record["active"], strict=True) if active]
        if moving:
            told.append(f"{label} {sum(moving) / len(moving):.3f}")
    return "  ".join(told)


def _verdicts(config: RunConfig, folder: rundir.RunDir) -> Callable[[str, str], dict[str, Any]] | None:
    """The judge's verdict on an image file for a prompt of the grammar; None outside the playground."""
    from refcore.runs.run import judge_of

    judge = judge_of(config)
    if judge is None:
        return None
    from refcore import images

    def verdict(name: str, prompt: str) -> dict[str, Any]:
        if not judge.reads(prompt):
            return {}
        return judge.judge(images.read_levels(folder.path / name), prompt).to_dict()

    return verdict


def _tell(folder: rundir.RunDir, result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json({"out": str(folder.path), **result})
        return
    labels = list(result["units"])
    with_verdict = any("verdict" in sample for sample in result["samples"])
    rows = []
    for sample in result["samples"]:
        scores = {**sample["scores"], **sample["witnesses"]}
        row = [sample["image"], sample["prompt"], sample["seed"], *(f"{scores[label]:.3f}" for label in labels)]
        rows.append(row + ([{True: "yes", False: "no"}.get(sample.get("verdict"), "")] if with_verdict else []))
    print_table(["image", "prompt", "seed", *labels, *(["judge"] if with_verdict else [])], rows)
    print(f"in {folder.path}")


def print_stopped(step: int, steps: int, path: Path) -> None:
    warn(f"stopped after {step} of {steps} steps; the images so far are in {path}")
