"""The named pipelines of the field: a YAML file each in this folder, with what it says of itself."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from pydantic import Field

from refcore.config.section import Section
from refcore.config.settings import load_yaml
from refcore.errors import unknown
from refcore.explain import validated

FOLDER = Path(__file__).parent
ABOUT = "about"


class About(Section):
    """What a baseline says of itself; it is no part of its settings."""

    title: str = Field(description="Name of the model or method.")
    paper: str = Field(description="Title or name, venue, arXiv number.")
    licence: str = Field(description="Licence of the weights.")
    needs: str = Field(description="What is downloaded, and how large it is.")
    pixels: int = Field(description="Side of its images.")
    source: str = Field(description="Where steps, guidance and size are from.")
    unverified: str = Field("", description="What of all this was not checked against a source.")
    remarks: str = Field("", description="What whoever runs it should know.")


def names() -> list[str]:
    """The names of the baselines, sorted."""
    return sorted(file.stem for file in FOLDER.glob("*.yaml"))


def settings_of(name: str) -> dict[str, Any]:
    """Settings (see `refcore_bench.samples.pipelines.Pipeline`) of a baseline.

    Raises:
        RefcoreError: there is none of this name.
    """
    return {field: value for field, value in _file(name).items() if field != ABOUT}


def about(name: str) -> About:
    """What a baseline says of itself."""
    return validated(About, _file(name)[ABOUT], ABOUT)


def read(path: str) -> dict[str, Any]:
    """Settings of a pipeline in a YAML file of one's own, which may have a section `about`."""
    return {field: value for field, value in load_yaml(path).items() if field != ABOUT}


def table() -> str:
    """The baselines as a Markdown table, for the docs."""
    lines = ["| name | model | px | steps | guidance | dtype | licence of the weights |", "| --- " * 7 + "|"]
    for name in names():
        own, said = settings_of(name), about(name)
        steps = own.get("steps") or len(own["timesteps"])
        of_steps, of_licence = (" (unverified)" if field in said.unverified else "" for field in ("steps", "licence"))
        lines.append(
            f"| `{name}` | {said.title}: `{own['model']}` | {said.pixels} | {steps}{of_steps} | "
            f"{own['guidance']:g}{of_steps} | {own.get('dtype', 'float32')} | {said.licence}{of_licence} |"
        )
    return "\n".join(lines)


@cache
def _read(name: str) -> dict[str, Any]:
    return load_yaml(FOLDER / f"{name}.yaml")


def _file(name: str) -> dict[str, Any]:
    if name not in names():
        raise unknown("baseline", name, names())
    return _read(name)
