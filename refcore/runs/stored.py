"""A run, read back from its folder."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from refcore.config.settings import Settings, load_yaml
from refcore.errors import ConfigError, RefcoreError
from refcore.explain import validated
from refcore.runs import rundir
from refcore.text_files import read_json


class _Stored(BaseModel):
    """Part of a file that a run wrote, perhaps of another version: fields that nobody reads may be anything."""

    model_config = ConfigDict(extra="ignore")


class _StoredSample(_Stored):
    prompt: str
    seed: int
    scores: dict[str, float | None]
    witnesses: dict[str, float | None] | None = None
    verdict: bool | None = None
    image: str | None = None


class _StoredResult(_Stored):
    samples: list[_StoredSample]
    finished: bool = True
    stopped: str | None = None
    steps: int | None = None
    unwanted: list[str] | None = None
    timings: dict[str, float] | None = None
    checkpoints: dict[str, str] | None = None
    versions: dict[str, str] | None = None


class _StoredTerm(_Stored):
    name: str
    label: str | None = None
    config: dict[str, Any] | None = None


class _StoredConfig(_Stored):
    referees: list[_StoredTerm] | None = None
    priors: list[_StoredTerm] | None = None
    witnesses: list[_StoredTerm] | None = None


@dataclass(frozen=True)
class StoredRun:
    """What the folder of a run says of it."""

    path: Path
    settings: Settings
    """The resolved config, as `config.yaml` has it."""
    result: dict[str, Any]
    """The contents of `result.json`; empty where the run is unfinished."""

    @property
    def samples(self) -> list[dict[str, Any]]:
        """Prompt, seed, image, scores, witnesses, and the verdict where there is one, of each sample.

        Of an unfinished run, the prompts and seeds of its config.
        """
        if self.result:
            samples: list[dict[str, Any]] = self.result["samples"]
            return samples
        prompts, seeds = self.settings.get("prompts") or [], self.settings.get("seeds") or [0]
        return [{"prompt": prompt, "seed": seed} for prompt in prompts for seed in seeds]

    @property
    def history(self) -> list[dict[str, Any]]:
        """One record a step, as far as they are on the disk; lines that cannot be read are left out."""
        records = []
        with contextlib.suppress(OSError), (self.path / rundir.HISTORY).open(encoding="utf-8") as file:
            for line in file:
                with contextlib.suppress(ValueError, RecursionError):
                    records.append(json.loads(line))
        return [record for record in records if isinstance(record, dict) and "step" in record]

    @property
    def is_finished(self) -> bool:
        """Whether it went to its end."""
        return bool(self.result) and bool(self.result.get("finished", True))


def look_at(folder: str | Path) -> StoredRun:
    """The run in a folder as far as it came: an unfinished one has an empty `result`, and samples without scores.

    Raises:
        RefcoreError: there is no folder, it holds no run, or its config cannot be read.
    """
    path = _folder_of(folder)
    settings = load_yaml(path / rundir.CONFIG)
    try:
        result = json.loads((path / rundir.RESULT).read_text("utf-8"))
        whole = isinstance(result, dict) and all({"prompt", "seed"} <= set(each) for each in result["samples"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        whole = False
    return StoredRun(path, settings, result if whole else {})


def read_run(folder: str | Path) -> StoredRun:
    """The finished run in a folder.

    Raises:
        RefcoreError: naming the folder, with what to do: there is none, it holds no run, one that is unfinished, or
            files that cannot be read.
    """
    path = _folder_of(folder)
    again = f"repeat it with `refcore invert --config {path / rundir.CONFIG} --out NEW`"
    if not (path / rundir.RESULT).is_file():
        raise RefcoreError(
            f'the run in "{path}" has no {rundir.RESULT}, so it is unfinished: wait for its end, or {again}'
        )
    try:
        result = read_json(path / rundir.RESULT)
        if isinstance(result, dict) and result.get("samples") == []:
            raise RefcoreError(f'the run in "{path}" has a {rundir.RESULT} without samples; {again}')
        validated(_StoredResult, result)
    except (OSError, ValueError, ConfigError) as error:
        raise RefcoreError(
            f'the run in "{path}" has a {rundir.RESULT} that cannot be read ({error}); {again}'
        ) from error
    settings = load_yaml(path / rundir.CONFIG)
    try:
        validated(_StoredConfig, settings)
    except ConfigError as error:
        raise RefcoreError(
            f'the run in "{path}" has a {rundir.CONFIG} that no run wrote ({error}); restore it'
        ) from error
    if not result.get("finished", True):
        raise RefcoreError(
            f'the run in "{path}" stopped after {result.get("steps")} steps ({result.get("stopped")}), so it is '
            f"unfinished: {again}"
        )
    return StoredRun(path, settings, result)


def _folder_of(folder: str | Path) -> Path:
    """The folder of a run, finished or not."""
    path = Path(folder)
    rundir.refuse_no_run(path)
    return path
