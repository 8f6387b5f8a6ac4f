"""The shapes of the JSON files of a results folder, which may come from other people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, RootModel

PROMPTS: Final = "prompts.json"
THRESHOLDS: Final = "thresholds.json"
BUDGETS: Final = "budgets.json"
GATHERED: Final = "parts/gathered.json"


class _Stored(BaseModel):
    """Part of a file that a benchmark wrote, perhaps of another version: fields that nobody reads may be anything."""

    model_config = ConfigDict(extra="ignore", strict=True)


class _Prompt(_Stored):
    prompt: str
    category: str
    split: str
    facts: dict[str, Any] = {}


class _Witness(_Stored):
    label: str
    identity: str


class _Prompts(_Stored):
    task: str = ""
    source: int | str | None = None
    prompts: list[_Prompt] = []
    variants: list[str] = []
    panel: list[_Witness] = []


class _Threshold(_Stored):
    model_config = ConfigDict(extra="forbid", strict=True)

    referee: str
    threshold: float
    accepts_true: float
    accepts_wrong: float
    renders: int = 0
    quantile: float = 0.0


class _Scorer(_Stored):
    model_config = ConfigDict(extra="forbid", strict=True)

    label: str
    term: dict[str, Any]
    identity: str
    optimised: bool
    panel: bool


class StoredVariant(_Stored):
    """A file of the folder `variants`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    method: str
    settings: dict[str, Any]
    scorers: list[_Scorer]
    checkpoints: dict[str, str]
    hash: str


STORED: Final[Mapping[str, type[BaseModel]]] = {
    PROMPTS: _Prompts,
    THRESHOLDS: RootModel[dict[str, _Threshold]],
    BUDGETS: RootModel[dict[str, float]],
    GATHERED: RootModel[dict[str, list[int | str | None]]],
}
"""File -> what it holds; every other file is a `StoredVariant`."""
