"""Every command of `refcore` with its arguments; what a command does is imported when it runs: `--help` is instant."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from refcore.cli.options import ConfigFile, Json, LocalPlugins, Overrides, PluginsDir, PresetName
from refcore.runs import rundir

app = typer.Typer(
    help="Make images by inverting referees: frozen models that judge whether an image matches a prompt.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
config_app = typer.Typer(help="Show, check and describe run configs.", no_args_is_help=True)


plugins_app = typer.Typer(help="List referees, priors, canvases and all other plugins.", invoke_without_command=True)
app.add_typer(config_app, name="config")
app.add_typer(plugins_app, name="plugins")

COMMANDS = "refcore.commands"
"""Entry-point group of other packages' commands: a `typer.Typer` for a group of them, a function for one."""


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"refcore {rundir.versions(['refcore'])['refcore']}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of a failure; in any position.")] = False,
) -> None:
    """Options of every command. `--debug` is taken out by `refcore.cli.main`, and is here for the help."""


@app.command()
def invert(
    prompts: Annotated[
        list[str] | None, typer.Argument(metavar="PROMPT...", help="What the images should show.")
    ] = None,
    prompts_file: Annotated[
        Path | None, typer.Option("--prompts-file", metavar="FILE", help="More prompts, one a line.")
    ] = None,
    preset: PresetName = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="One seed for every prompt.")] = None,
    seeds: Annotated[str | None, typer.Option("--seeds", metavar="0,1,2", help="An image a prompt and seed.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="The run's folder; by default runs/PROMPT-N.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse a prompt that a referee would cut.")] = False,
    json: Json = False,
    plugins_dir: PluginsDir = None,
    local_plugins: LocalPlugins = False,
) -> None:
    """Optimise images until the referees agree that they match their prompts."""
    from refcore.cli.invert import run

    run(prompts or [], prompts_file, preset, config, overrides or [], seed, seeds, out, strict, json)


@app.command()
def score(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="An image file.")],
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What it should show.")],
    referee: Annotated[
        list[str] | None, typer.Option("--referee", metavar="NAME", help="Only this referee of the preset. Repeatable.")
    ] = None,
    preset: PresetName = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    json: Json = False,
    plugins_dir: PluginsDir = None,
    local_plugins: LocalPlugins = False,
) -> None:
    """Score an image against a prompt by the referees and witnesses of a preset."""
    from refcore.cli.score import run

    run(image, prompt, referee or [], preset, config, overrides or [], json)


@plugins_app.callback()
def plugins(
    context: typer.Context,
    check: Annotated[
        bool, typer.Option("--check", help="Import each plugin; show its config fields, or the error of a broken one.")
    ] = False,
    json: Json = False,
    plugins_dir: PluginsDir = None,
    local_plugins: LocalPlugins = False,
) -> None:
    """List referees, priors, augmentations, canvases and parsers; nothing is imported without --check."""
    if context.invoked_subcommand is None:
        from refcore.cli.plugins import list_plugins

        list_plugins(check, json)


@plugins_app.command("show")
def plugins_show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A plugin; see `refcore plugins`.")],
    json: Json = False,
    plugins_dir: PluginsDir = None,
    local_plugins: LocalPlugins = False,
) -> None:
    """Show the page of a plugin: what it is, where it comes from, its settings, and how a config names it."""
    from refcore.cli.plugins import show_plugin

    show_plugin(name, json)


@app.command()
def presets(json: Json = False, plugins_dir: PluginsDir = None, local_plugins: LocalPlugins = False) -> None:
    """List the presets."""
    from refcore.cli.plugins import list_presets

    list_presets(json)


@config_app.command("show")
def config_show(
    preset: PresetName = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    json: Json = False,
    plugins_dir: PluginsDir = None,
    local_plugins: LocalPlugins = False,
) -> None:
    """Print a config with every default filled in."""
    from refcore.cli.config import show

    show(preset, config, overrides or [], json)


@config_app.command("validate")
def config_validate(
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="A YAML config; the same as --config.")] = None,
    preset: PresetName = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    json: Json = False,
    plugins_dir: PluginsDir = None,
    local_plugins: LocalPlugins = False,
) -> None:
    """Check a config, its plugins' fields included, without loading a model."""
    from refcore.cli.config import validate

    validate(file or config, preset, overrides or [], json)


@config_app.command("schema")
def config_schema(
    plugins: Annotated[bool, typer.Option("--plugins", help="With the fields of every installed plugin.")] = False,
    plugins_dir: PluginsDir = None,
    local_plugins: LocalPlugins = False,
) -> None:
    """Print the JSON Schema of a config."""
    from refcore.cli.config import schema

    schema(plugins)


@app.command()
def judge(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="An image file.")],
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="A prompt that the judge reads.")],
    by: Annotated[str, typer.Option("--by", metavar="NAME", help="The judge; see `refcore plugins`.")] = "playground",
    json: Json = False,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 where the verdict is no.")] = False,
    plugins_dir: PluginsDir = None,
    local_plugins: LocalPlugins = False,
) -> None:
    """Say whether an image shows exactly what a prompt asks for, fact by fact."""
    from refcore.cli.judge import run

    run(image, prompt, by, json, exit_code)


@app.command()
def doctor(
    preset: PresetName = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    json: Json = False,
    plugins_dir: PluginsDir = None,
    local_plugins: LocalPlugins = False,
) -> None:
    """Say what this machine has, and with a preset or config what that would need of it."""
    from refcore.cli.doctor import run

    run(preset, config, overrides or [], json)


@app.command()
def new(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="referee, prior, augmentation, canvas or parser.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="What configs will call it.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the package's folder is made.")] = Path(),
    json: Json = False,
) -> None:
    """Write a small plugin package, with tests that hold it to its contract."""
    from refcore.cli.new import run

    run(kind, name, out, json)


@app.command()
def smoothness(
    source: Annotated[str, typer.Argument(metavar="CONFIG", help="A preset, or the path of a YAML config.")],
    prompts: Annotated[
        list[str] | None, typer.Option("--prompt", metavar="PROMPT", help="What is made; by default the config's.")
    ] = None,
    steps: Annotated[
        str | None, typer.Option("--steps", metavar="0,10,20", help="Steps done; by default the start and the middle.")
    ] = None,
    views: Annotated[
        str, typer.Option("--views", metavar="0,1,4", help="Views a sample; 0 is the clean image, config the config's.")
    ] = "0,1,4,16",
    noise: Annotated[
        str, typer.Option("--noise", metavar="0,0.1", help="Std of the views' Gaussian noise; config is the config's.")
    ] = "config",
    at: Annotated[str, typer.Option("--at", metavar="params|image", help="Where gradients are taken.")] = "params",
    directions: Annotated[int, typer.Option("--directions", min=1, help="Random directions.")] = 4,
    radius: Annotated[float, typer.Option("--radius", help="Root-mean-square length of a random direction.")] = 0.01,
    dtype: Annotated[str, typer.Option("--dtype", metavar="float64|float32", help="Of the measured models.")] = (
        "float64"
    ),
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="One seed for every prompt.")] = None,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Also write the JSON here.")] = None,
    json: Json = False,
    plugins_dir: PluginsDir = None,
    local_plugins: LocalPlugins = False,
) -> None:
    """Measure how smooth and how well conditioned the referees' loss is along a run."""
    from refcore.cli.smoothness import run

    run(source, prompts or [], overrides or [], seed, steps, views, noise, at, directions, radius, dtype, out, json)


@app.command()
def convert(
    conversion: Annotated[str, typer.Argument(metavar="CONVERSION", help="What to convert: blip2-itg.")],
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="The original file.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The file or folder to write to.")],
    plugins_dir: PluginsDir = None,
    local_plugins: LocalPlugins = False,
) -> None:
    """Convert a file of another project for one of the plugins."""
    from refcore.cli.convert import run

    run(conversion, source, out)


def _add_commands() -> None:
    """Adds the commands of installed packages, the benchmark's and the playground's among them."""
    for point in sorted(metadata.entry_points(group=COMMANDS), key=lambda point: point.name):
        command = point.load()
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=point.name)
        else:
            app.command(point.name)(command)


_add_commands()
