"""`refcore config show`, `validate` and `schema`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from refcore import registry
from refcore.checkpoints import hub_id
from refcore.cli.output import print_json, stdout
from refcore.config import presets
from refcore.config.run import RunConfig
from refcore.config.settings import dump_yaml
from refcore.errors import RefcoreError


def show(file: Path | None, preset_name: str | None, overrides: list[str], as_json: bool) -> None:
    from refcore.engine.build import resolve

    config = resolve(presets.compose(preset_name, file, overrides))
    if as_json:
        print_json(config.settings())
    else:
        stdout.print(dump_yaml(config.settings()), end="", markup=False, soft_wrap=True)


def validate(file: Path | None, preset_name: str | None, overrides: list[str], as_json: bool) -> None:
    """Prints what a valid config runs, and what its first run would download.

    Raises:
        RefcoreError: the config is wrong, or something that it needs is not here; all that can be told at once.
    """
    from refcore.diagnostics import doctor
    from refcore.engine.build import resolve
    from refcore.engine.preflight import problems

    config = resolve(presets.compose(preset_name, file, overrides))
    found = [" ".join(str(problem).split()) for problem in problems(config)]
    if found and not as_json:
        raise RefcoreError("; ".join(dict.fromkeys(found)))
    missing = (
        [] if found else [c for c in doctor.needed_checkpoints(config) if c.state == "missing" and hub_id(c.model)]
    )
    terms = [use.name for use in (*config.referees, *config.priors)]
    if as_json:
        about = {"canvas": config.canvas.name, "terms": terms, "steps": config.steps}
        downloads = [checkpoint.model for checkpoint in missing]
        print_json({"valid": not found, **about, "downloads": downloads, "problems": found})
        if found:
            raise typer.Exit(1)
        return
    stdout.print(f"valid: {config.steps} steps of {', '.join(terms)} on {config.canvas.name}", markup=False)
    for checkpoint in missing:
        stdout.print(f'not here yet: "{checkpoint.model}"; {checkpoint.remedy}', markup=False, soft_wrap=True)


def schema(with_plugins: bool) -> None:
    described: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **RunConfig.model_json_schema(),
    }
    if with_plugins:
        described["x-plugins"] = {kind: _schemas(kind) for kind in registry.KINDS}
    print_json(described)


def _schemas(kind: registry.Kind) -> dict[str, Any]:
    """Plugin name -> JSON Schema of its `config`; plugins that cannot be imported are left out."""
    found = {}
    for name in registry.names(kind):
        try:
            found[name] = registry.get(kind, name).Config.model_json_schema()
        except RefcoreError:
            continue
    return found
