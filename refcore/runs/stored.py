"""A finished run, read back from its folder."""

from __future__ import annotations

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
    """What the folder of a finished run says of it."""

    path: Path
    settings: Settings
    """The resolved config, as `config.yaml` has it."""
    result: dict[str, Any]
    """The contents of `result.json`."""

    @property
    def samples(self) -> list[dict[str, Any]]:
        """Prompt, seed, image, scores, witnesses, and the verdict where there is one, of each sample."""
        samples: list[dict[str, Any]] = self.result["samples"]
        return samples


def read_run(folder: str | Path) -> StoredRun:
    """The finished run in a folder.

    Raises:
        RefcoreError: naming the folder, with what to do: there is none, it holds no run, one that is unfinished, or
            files that cannot be read.
    """
    path = Path(folder)
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise RefcoreError(f'"{path}" {what}; expected the folder of a run, as `refcore invert --out` writes it')
    if not (path / rundir.CONFIG).is_file():
        raise RefcoreError(
            f'"{path}" holds no run (no {rundir.CONFIG}); expected the folder of a run, as `refcore invert --out` '
            "writes it"
        )
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
