"""A finished run, read back from its folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refcore.config.settings import Settings, load_yaml
from refcore.errors import RefcoreError
from refcore.runs import rundir


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
    rundir.refuse_no_run(path)
    again = f"repeat it with `refcore invert --config {path / rundir.CONFIG} --out NEW`"
    if not (path / rundir.RESULT).is_file():
        raise RefcoreError(
            f'the run in "{path}" has no {rundir.RESULT}, so it is unfinished: wait for its end, or {again}'
        )
    try:
        result = json.loads((path / rundir.RESULT).read_text("utf-8"))
        whole = bool(result["samples"]) and all({"prompt", "seed", "scores"} <= set(each) for each in result["samples"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RefcoreError(
            f'the run in "{path}" has a {rundir.RESULT} that cannot be read ({error}); {again}'
        ) from error
    if not whole:
        raise RefcoreError(f'the run in "{path}" has a {rundir.RESULT} without samples; {again}')
    if not result.get("finished", True):
        raise RefcoreError(
            f'the run in "{path}" stopped after {result.get("steps")} steps ({result.get("stopped")}), so it is '
            f"unfinished: {again}"
        )
    return StoredRun(path, load_yaml(path / rundir.CONFIG), result)
