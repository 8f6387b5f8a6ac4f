"""Options that several commands share, those of other packages' commands included."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from refcore import registry
from refcore.errors import RefcoreError
from refcore.folder import LOCAL


def _read_folders(folders: list[Path] | None) -> list[Path] | None:
    for folder in folders or []:
        registry.add_folder(folder)
    return folders


def _read_local(asked: bool) -> bool:
    if asked:
        if not LOCAL.is_dir():
            raise RefcoreError(f'there is no folder "{LOCAL}" here; make it, or name another with --plugins-dir')
        registry.add_folder(LOCAL)
    return asked


Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
PresetName = Annotated[str | None, typer.Option("--preset", metavar="NAME", help="A preset; see `refcore presets`.")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="A YAML config, a run's config.yaml for example.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Override a field, as in referees.0.weight=0.5. Repeatable."),
]
# The folders are read while the command line is, so that every later word may name what is in them.
PluginsDir = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugins-dir", metavar="DIR", callback=_read_folders, help="Also the plugin files of this folder. Repeatable."
    ),
]
LocalPlugins = Annotated[
    bool,
    typer.Option("--local-plugins", callback=_read_local, help=f"Also the plugin files of ./{LOCAL}, never read else."),
]
