"""Numbers that others published for a benchmark, each generation with its source, from YAML files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, RootModel, model_validator

from refcore.config.yaml_text import read_yaml
from refcore.explain import validated
from refcore.text_files import read_text

FOLDER: Final = Path(__file__).parent


class Generation(BaseModel):
    """Numbers that one code made, and so comparable with each other."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    generation: str
    source: str
    note: str
    columns: Sequence[str]
    """Groups of the benchmark, or "overall"."""
    rows: Mapping[str, Sequence[float | None]]
    """System -> a number for each column, as published; None where there is none."""

    @model_validator(mode="after")
    def _of_one_length(self) -> Generation:
        for system, numbers in self.rows.items():
            if len(numbers) != len(self.columns):
                raise ValueError(f"{system} has {len(numbers)} numbers for {len(self.columns)} columns")
        return self


def published(task: str) -> list[Generation]:
    """The generations of a benchmark's published numbers, the latest first; none where nothing is known."""
    path = FOLDER / f"{task}.yaml"
    if not path.is_file():
        return []
    return list(validated(RootModel[list[Generation]], read_yaml(read_text(path))).root)
