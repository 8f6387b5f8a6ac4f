"""A case: words of a command line, what an error has to name, and the small run that many of them begin with."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from fuzz.values import encodable
from hypothesis import strategies as st
from PIL import Image

from refcore.config.settings import dump_yaml

Draw = st.DrawFn


PROMPT = "a red circle left of a blue square"


PRESETS = ("playground", "playground-blind", "natural", "lettering", "vlminv", "vlminv-itm", "playground-deep-daze")


SMALL = {
    "canvas": {"name": "pixel"},
    "size": 16,
    "referees": [{"name": "clip", "config": {"model": "playground:clip"}}],
    "views": {"main": {"count": 1}},
    "optimizer": {"name": "adam", "lr": 0.05},
    "steps": 1,
    "device": "cpu",
}
"""A run of one step that takes milliseconds once its model is loaded."""


@dataclass(frozen=True)
class Case:
    """A call of the command line."""

    words: tuple[str, ...]
    named: tuple[str, ...] = ()
    """Fields, options or files, one of which an error has to name; empty: any error will do."""


@dataclass(frozen=True)
class Surface:
    """A kind of input."""

    case: Callable[[Draw, Path], Case]
    """Draws a case whose files lie in a folder that is empty before."""
    share: int
    """Part of all cases, among the sum of all shares."""


def yaml_of(value: Any) -> str:
    """YAML text of anything: flow style, as `--set` has it."""
    try:
        return (
            encodable(yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**9))
            .removesuffix("\n...\n")
            .strip()
        )
    except RecursionError:
        return "[" * 2000


def dumped(structure: Any) -> str:
    """JSON text, also of what is nested too deeply for the library."""
    try:
        return json.dumps(structure, default=str)
    except RecursionError:
        return "[" * 3000 + "]" * 3000


def words_of(text: str) -> list[str]:
    """A text as one word of a command line: no NUL, which no operating system passes on."""
    return (
        [text.replace("\0", "").encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")]
        if _passable(text)
        else [""]
    )


def _passable(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


def image(folder: Path, name: str = "image.png") -> None:
    """A small good picture."""
    Image.new("RGB", (16, 16), "red").save(folder / name)


def small(folder: Path) -> str:
    """The path of the small run's config."""
    (folder / "small.yaml").write_text(dump_yaml(SMALL))
    return str(folder / "small.yaml")
