"""What a run goes on from: the folder of one that has ended early, or is to go on beyond its end."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from refcore.config.run import RunConfig
from refcore.config.settings import load_yaml
from refcore.engine.recorded import differing
from refcore.errors import AlreadyFinished, RefcoreError
from refcore.runs import rundir
from refcore.runs.checkpoints import ROAD, checkpoints_of
from refcore.runs.facts import Facts, read_facts, read_result
from refcore.runs.rundir import RunDir
from refcore.runs.state import load_state


@dataclass(frozen=True)
class Resumption:
    """A run's folder, taken again, with the state and the history to go on from."""

    folder: RunDir
    config: RunConfig
    """Of the run, with its new number of steps."""
    state: dict[str, Any] | None
    """Of its last good checkpoint; None where there is none, so that it begins anew."""
    facts: Facts
    """What the folder said of the run, this resumption included."""
    lines: list[str]
    """Of the history, up to the checkpoint."""
    step: int
    """Steps that are done."""
    extended: bool
    """Whether it is to have other steps than its config.yaml says."""
    damaged: tuple[Path, ...]
    """Newer checkpoints that cannot be gone on from."""
    seconds: dict[str, float]
    """What the run had taken by then, as its timings."""
    warnings: tuple[str, ...]
    """What a user should know of it, one line each."""

    @property
    def history(self) -> list[dict[str, Any]]:
        """A record for each line."""
        return [_record(json.loads(line)) for line in self.lines]

    def settle(self) -> None:
        """Makes the folder that of a run which goes on: says so in it, and removes checkpoints that cannot be read."""
        self.folder.write_facts(self.facts.to_dict())
        self.folder.restore_history(self.lines)
        for path in self.damaged:
            rundir.remove(path)


def resumption(folder: str | Path, extra_steps: int = 0) -> Resumption:
    """Takes the folder of a run to go on with it.

    Args:
        folder: of a run that was interrupted, killed or failed; with `extra_steps`, of a finished one too.
        extra_steps: to take beyond its end.

    Raises:
        AlreadyFinished: nothing is left to do.
        RefcoreError: there is no run, it is still running, its config is not that of its checkpoints, or it is to go on
            beyond its end without a checkpoint.
    """
    if extra_steps < 0:
        raise RefcoreError(f"extra_steps is {extra_steps}; expected 0 or more")
    opened = RunDir.reopen(folder)
    try:
        return _read(opened, extra_steps)
    except BaseException:
        opened.release()
        raise


def _read(folder: RunDir, extra_steps: int) -> Resumption:
    path = folder.path
    facts, result = read_facts(path), read_result(path)
    config = RunConfig.from_settings(load_yaml(path / rundir.CONFIG))
    yaml_steps = config.steps
    steps = facts.steps or yaml_steps
    finished = facts.is_finished(result)
    if finished and not extra_steps:
        raise AlreadyFinished(
            f'the run in "{path}" is finished ({steps} steps); to go on beyond its end, say how far: --steps +{steps}'
        )
    state, lines, damaged, warnings = _newest(path)
    seconds: dict[str, float] = {}
    if finished and result is not None and (state is None or state["meta"]["step"] != result["steps"]):
        raise RefcoreError(
            f'the run in "{path}" is finished, and there is no checkpoint of its end to go on from; repeat it with '
            f"`refcore invert --config {path / rundir.CONFIG} --set steps={steps + extra_steps} --out NEW`"
        )
    if state is None:
        warnings.append(f'there is no checkpoint to go on from in "{path}": the run begins anew')
    else:
        saved = state["meta"]["config"]
        ours = {**config.settings(), "steps": saved["steps"]}
        # A weight changed while the run went on is in its checkpoints, and in config.yaml only once the run is over.
        alike = _without_weights if state["meta"].get("steered") else dict
        if differs := differing(alike(saved), alike(ours)):
            raise RefcoreError(
                f"{path / rundir.CONFIG} is not the config of the checkpoints beside it (it differs in {differs}); "
                "restore it, or start another run with --config"
            )
        config = RunConfig.from_settings(saved)
        facts = replace(Facts.read(state["meta"][ROAD]), resumed=facts.resumed)
    total = steps + extra_steps
    if total != config.steps:
        config = RunConfig.from_settings({**config.settings(), "steps": total})
    if state is not None:
        state["meta"]["config"] = config.settings()
        seconds = dict(state["meta"][ROAD]["timings"])
    return Resumption(
        folder=folder,
        config=config,
        state=state,
        facts=facts.resumed_at(len(lines), total),
        lines=lines,
        step=len(lines),
        extended=total != yaml_steps,
        damaged=tuple(damaged),
        seconds=seconds,
        warnings=(*warnings, *_other_versions(facts.versions)),
    )


def _without_weights(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a run, the weights of its terms aside."""
    terms = {
        field: [{name: value for name, value in term.items() if name != "weight"} for term in settings[field]]
        for field in ("referees", "priors")
    }
    return {**settings, **terms}


def _newest(folder: Path) -> tuple[dict[str, Any] | None, list[str], list[Path], list[str]]:
    """The newest checkpoint that is whole, the history up to it, the files that are not, and a line about each."""
    damaged: list[Path] = []
    warnings: list[str] = []
    for checkpoint in checkpoints_of(folder):
        try:
            state = load_state(checkpoint.path)
            lines = _history(folder, state["meta"]["step"])
        except RefcoreError as error:
            damaged.append(checkpoint.path)
            warnings.append(str(error))
        else:
            if damaged:
                warnings.append(f"the run goes on from the checkpoint before, of {checkpoint.step} steps")
            return state, lines, damaged, warnings
    return None, [], damaged, warnings


def _history(folder: Path, steps: int) -> list[str]:
    """The lines of the first `steps` steps.

    Raises:
        RefcoreError: some of them are missing or cannot be read.
    """
    path = folder / rundir.HISTORY
    try:
        lines = path.read_text("utf-8").splitlines()[:steps] if steps else []
        whole = [json.loads(line)["step"] for line in lines] == list(range(steps))
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise RefcoreError(f'the history "{path}" does not hold the {steps} steps of the last checkpoint')
    return lines


def _record(line: dict[str, Any]) -> dict[str, Any]:
    """A record as it was before it was written: with NaN where JSON has null."""
    return {**line, **{table: _with_nan(line[table]) for table in ("losses", "norms", "angles")}}


def _with_nan(value: Any) -> Any:
    """Nested tables of numbers, with NaN in the place of null."""
    if isinstance(value, dict):
        return {label: _with_nan(inner) for label, inner in value.items()}
    return [math.nan if number is None else number for number in value]


def _other_versions(before: Mapping[str, str]) -> list[str]:
    """A line where a library that decides the numbers has changed."""
    now = rundir.versions()
    others = [name for name in before if now.get(name) != before[name]]
    changed = [f"{name} was {before[name]} and is {now.get(name, 'gone')} now" for name in others]
    said = "the run goes on, but not to the same bits as without its stop"
    return [f"{', '.join(changed)}: {said}"] if changed else []
