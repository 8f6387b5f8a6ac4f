"""Options shared by several commands, including those of other packages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from refcore import registry
from refcore.errors import RefcoreError
from refcore.folder import LOCAL_FOLDER


def _read_folders(folders: list[Path] | None) -> list[Path] | None:
    for folder in folders or []:
        registry.add_folder(folder)
    return folders


def _read_local(value: bool) -> bool:
    if value:
        if not LOCAL_FOLDER.is_dir():
            raise RefcoreError(
                f'there is no folder "{LOCAL_FOLDER}" here; create it, or name another with --plugins-dir'
            )
        registry.add_folder(LOCAL_FOLDER)
    return value


def output_folder(text: str) -> Path:
    """The folder that an option names.

    Raises:
        RefcoreError: the name is empty, which would be the working directory.
    """
    if not text.strip():
        raise RefcoreError(f'the output folder is "{text}"; expected a name after --out, "." for this folder')
    return Path(text)


def only_one(argument: Path | None, option: Path | None) -> Path | None:
    """The config file, given as an argument or as `--config`.

    Raises:
        RefcoreError: both were given.
    """
    if argument is not None and option is not None:
        raise RefcoreError(f'both "{argument}" and --config "{option}" were given; expected one of them')
    return argument or option


Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
PresetName = Annotated[str | None, typer.Option("--preset", metavar="NAME", help="A preset; see `refcore presets`.")]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="A YAML config, such as a run's config.yaml; with --preset, laid over that."
    ),
]
ConfigArgument = Annotated[Path | None, typer.Argument(metavar="FILE", help="A YAML config, the same as --config.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Override a field, as in referees.0.weight=0.5. Repeatable."),
]
# Folders are read during parsing, so that later options can name their plugins.
PluginsDir = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugins-dir",
        metavar="DIR",
        callback=_read_folders,
        help="Also use the plugin files in this folder. Repeatable.",
    ),
]
LocalPlugins = Annotated[
    bool,
    typer.Option("--local-plugins", callback=_read_local, help=f"Also use the plugin files in ./{LOCAL_FOLDER}."),
]
