"""The commands of `refcore` with their arguments; each imports its implementation when it runs, so --help is fast."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from refcore.cli.convert import ConvertCommand
from refcore.cli.options import (
    ConfigArgument,
    ConfigFile,
    Json,
    LocalPlugins,
    Overrides,
    PluginsDir,
    PresetName,
    only_one,
    output_folder,
)
from refcore.errors import RefcoreError
from refcore.runs import rundir

app = typer.Typer(
    help="Make images by inverting referees: frozen models that judge whether an image matches a prompt.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
config_app = typer.Typer(help="Show, check and describe run configs.", no_args_is_help=True)
plugins_app = typer.Typer(help="List and describe plugins.", invoke_without_command=True)
runs_app = typer.Typer(help="List runs, and remove some.", invoke_without_command=True)
app.add_typer(config_app, name="config")
app.add_typer(plugins_app, name="plugins")
app.add_typer(runs_app, name="runs")

COMMANDS = "refcore.commands"
"""Entry-point group of other packages' commands: each a function, or a `typer.Typer` for a group."""


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"refcore {rundir.versions(['refcore'])['refcore']}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of a failure; may stand anywhere.")
    ] = False,
) -> None:
    """Options of every command. `--debug` is handled by `refcore.cli.main`; it is declared here for the help."""


@app.command()
def invert(
    prompts: Annotated[
        list[str] | None, typer.Argument(metavar="PROMPT...", help="What the images should show.")
    ] = None,
    prompts_file: Annotated[
        Path | None,
        typer.Option(
            "--prompts-file",
            metavar="FILE",
            help="File with more prompts, one per line; lines that begin with # are comments (\\# is the sign).",
        ),
    ] = None,
    preset: PresetName = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="One seed for every prompt.")] = None,
    seeds: Annotated[
        str | None, typer.Option("--seeds", metavar="0,1,2", help="One image per prompt and seed; 0-9 is a range.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", parser=output_folder, help="Folder of the run; by default runs/PROMPT-N."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse prompts that a referee would truncate.")] = False,
    checkpoint: Annotated[
        str,
        typer.Option(
            "--checkpoint", metavar="30s|50|off", help="How often the run is saved: by time, by steps, or never."
        ),
    ] = "30s",
    resume: Annotated[
        Path | None,
        typer.Option("--resume", metavar="DIR", help="Go on with the run in this folder, from its last checkpoint."),
    ] = None,
    steps: Annotated[
        str | None, typer.Option("--steps", metavar="+N", help="With --resume: N steps beyond the run's end.")
    ] = None,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Write report.html, a page of the run.")] = True,
    track: Annotated[
        list[str] | None,
        typer.Option(
            "--track",
            metavar="NAME",
            help="Record the run with a tracker, such as tensorboard, or with its settings: "
            '"{name: wandb, config: {project: x}}". Repeatable.',
        ),
    ] = None,
    json: Json = False,
    plugins_dir: PluginsDir = None,
    local_plugins: LocalPlugins = False,
) -> None:
    """Optimise images until the referees agree that they match their prompts; or go on with a run that has ended."""
    from refcore.cli.invert import Keeping, Request, resume_run, run

    keeping = Keeping(checkpoint=checkpoint, report=report, track=track or [])
    if resume is None:
        if steps is not None:
            raise RefcoreError(f'--steps is "{steps}", which goes with --resume; a new run takes --set steps=N')
        request = Request(prompts or [], prompts_file, preset, config, overrides or [], seed, seeds, strict)
        run(request, out, keeping, json)
        return
    begins = {
        "PROMPT": prompts, "--prompts-file": prompts_file, "--preset": preset, "--config": config,
        "--set": overrides, "--seed": seed, "--seeds": seeds, "--out": out, "--strict": strict or None,
    }  # fmt: skip
    for name, given in begins.items():
        if given is not None:
            raise RefcoreError(f"{name} was given beside --resume, but a resumed run has its own; leave it out")
    resume_run(resume, steps, keeping, json)


@runs_app.callback()
def runs(
    context: typer.Context,
    folder: Annotated[Path, typer.Option("--folder", metavar="DIR", help="Where to look.")] = Path("runs"),
    json: Json = False,
) -> None:
    """List the runs in a folder: how each one has ended, its scores, steps, age and size."""
    if context.invoked_subcommand is None:
        from refcore.cli.runs import list_runs

        list_runs(folder, json)


@runs_app.command("clean")
def runs_clean(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME...", help="Runs, as the list names them.")] = None,
    folder: Annotated[Path, typer.Option("--folder", metavar="DIR", help="Where to look.")] = Path("runs"),
    state: Annotated[
        list[str] | None,
        typer.Option("--state", metavar="STATE", help="finished, interrupted, failed or killed ones. Repeatable."),
    ] = None,
    older: Annotated[
        str | None, typer.Option("--older", metavar="7d", help="Those that last wrote at least so long ago.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Remove runs that are named, or that all the given conditions hold for; never one that is running."""
    from refcore.cli.runs import clean

    clean(folder, names or [], state or [], older, yes, json)


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
    """Score an image against a prompt with the referees and witnesses of a preset."""
    from refcore.cli.score import run

    run(image, prompt, referee or [], preset, config, overrides or [], json)


@app.command()
def show(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a run, finished or not.")],
    open_page: Annotated[bool, typer.Option("--open", help="Open the run's report in the browser.")] = False,
) -> None:
    """Show a run in the terminal: scores, pictures and curves."""
    from refcore.cli.show import run

    run(folder, open_page)


@app.command()
def compare(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders of runs, finished or not.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="The page; by default compare.html here, or the next free number."),
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Compare runs on one page: configs, pictures, curves and scores side by side.

    For intervals over many prompts and seeds: refcore bench compare.
    """
    from refcore.cli.compare import run

    run(folders, out, open_page)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a run, finished or not.")],
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Write the report of a run again, from its folder."""
    from refcore.cli.report import run

    run(folder, open_page)


@plugins_app.callback()
def plugins(
    context: typer.Context,
    check: Annotated[
        bool, typer.Option("--check", help="Import each plugin; show its config fields, or its error.")
    ] = False,
    json: Json = False,
    plugins_dir: PluginsDir = None,
    local_plugins: LocalPlugins = False,
) -> None:
    """List all plugins; nothing is imported without --check."""
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
    """Describe a plugin: what it does, who provides it, its settings, and how a config names it."""
    from refcore.cli.plugins import show_plugin

    show_plugin(name, json)


@app.command()
def presets(json: Json = False, plugins_dir: PluginsDir = None, local_plugins: LocalPlugins = False) -> None:
    """List the presets."""
    from refcore.cli.presets import run

    run(json)


@config_app.command("show")
def config_show(
    file: ConfigArgument = None,
    preset: PresetName = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    json: Json = False,
    plugins_dir: PluginsDir = None,
    local_plugins: LocalPlugins = False,
) -> None:
    """Print a config with every default filled in."""
    from refcore.cli.config import show

    show(only_one(file, config), preset, overrides or [], json)


@config_app.command("validate")
def config_validate(
    file: ConfigArgument = None,
    preset: PresetName = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    json: Json = False,
    plugins_dir: PluginsDir = None,
    local_plugins: LocalPlugins = False,
) -> None:
    """Check a config and what it needs (plugins' fields, files, packages, device), without loading a model."""
    from refcore.cli.config import validate

    validate(only_one(file, config), preset, overrides or [], json)


@config_app.command("describe")
def config_describe(
    field: Annotated[
        str | None, typer.Argument(metavar="FIELD", help="A field such as early_stop.min_delta, or a kind of schedule.")
    ] = None,
    json: Json = False,
) -> None:
    """Describe the fields of a config: type, range, default, meaning and an example."""
    from refcore.cli.describe import describe

    describe(field, json)


@config_app.command("schema")
def config_schema(
    plugins: Annotated[bool, typer.Option("--plugins", help="Include the fields of every installed plugin.")] = False,
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
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 if the verdict is no.")] = False,
    plugins_dir: PluginsDir = None,
    local_plugins: LocalPlugins = False,
) -> None:
    """Judge, fact by fact, whether an image shows exactly what a prompt asks for."""
    from refcore.cli.judge import run

    run(image, prompt, by, json, exit_code)


@app.command()
def doctor(
    preset: PresetName = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    memory: Annotated[
        float | None,
        typer.Option("--memory", metavar="GB", min=0, help="Gigabytes of the device; by default this machine's."),
    ] = None,
    json: Json = False,
    plugins_dir: PluginsDir = None,
    local_plugins: LocalPlugins = False,
) -> None:
    """Describe this machine and, with a preset or config, the checkpoints and memory that it needs, and if it fits."""
    from refcore.cli.doctor import run

    run(preset, config, overrides or [], memory, json)


@app.command()
def ui(
    runs: Annotated[Path, typer.Option("--runs", metavar="DIR", help="Folder of the runs.")] = Path("runs"),
    host: Annotated[
        str,
        typer.Option("--host", metavar="ADDRESS", help="Address to listen on; any but this machine asks for a token."),
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option("--port", min=1, max=65535, help="Port; by default the first free one from 7860.")
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option("--name", metavar="NAME", help="Host name under which the page is reached, too. Repeatable."),
    ] = None,
    browser: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    plugins_dir: PluginsDir = None,
    local_plugins: LocalPlugins = False,
) -> None:
    """Start, watch, steer and compare runs on a page in the browser."""
    from refcore.cli.ui import run

    run(runs, host, port, name or [], browser)


@app.command()
def new(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="referee, prior, augmentation, canvas, parser, metric or tracker.")
    ],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Registered name of the plugin.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Parent folder of the new package.")] = Path(),
    json: Json = False,
) -> None:
    """Write a small plugin package, with tests of its contract."""
    from refcore.cli.new import run

    run(kind, name, out, json)


@app.command()
def smoothness(
    source: Annotated[str, typer.Argument(metavar="CONFIG", help="A preset, or the path of a YAML config.")],
    prompts: Annotated[
        list[str] | None,
        typer.Option("--prompt", metavar="PROMPT", help="A prompt; by default the config's. Repeatable."),
    ] = None,
    steps: Annotated[
        str | None,
        typer.Option("--steps", metavar="0,10,20", help="Numbers of steps done; by default start and middle."),
    ] = None,
    views: Annotated[
        str,
        typer.Option("--views", metavar="0,1,4", help="Views per sample; 0: the clean image; config: the config's."),
    ] = "0,1,4,16",
    noise: Annotated[
        str, typer.Option("--noise", metavar="0,0.1", help="Std of the views' Gaussian noise; config: the config's.")
    ] = "config",
    at: Annotated[str, typer.Option("--at", metavar="params|image", help="Variable of the loss.")] = "params",
    directions: Annotated[int, typer.Option("--directions", min=1, help="Number of random directions.")] = 4,
    radius: Annotated[float, typer.Option("--radius", help="Root-mean-square length of a random direction.")] = 0.01,
    dtype: Annotated[str, typer.Option("--dtype", metavar="float64|float32", help="Dtype of the measured models.")] = (
        "float64"
    ),
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="One seed for every prompt.")] = None,
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", parser=output_folder, help="Also write the result to this new file, as JSON."
        ),
    ] = None,
    json: Json = False,
    plugins_dir: PluginsDir = None,
    local_plugins: LocalPlugins = False,
) -> None:
    """Measure the smoothness and conditioning of the referees' loss along a run."""
    from refcore.cli.smoothness import run

    run(source, prompts or [], overrides or [], seed, steps, views, noise, at, directions, radius, dtype, out, json)


@app.command(cls=ConvertCommand)
def convert(
    conversion: Annotated[str, typer.Argument(metavar="CONVERSION", help="Conversion, such as blip2-itg.")],
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="The file to convert.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The file or folder to write to.")],
    plugins_dir: PluginsDir = None,
    local_plugins: LocalPlugins = False,
) -> None:
    """Convert a file of another project for use by a plugin."""
    from refcore.cli.convert import run

    run(conversion, source, out)


def _add_commands() -> None:
    """Adds the commands of installed packages, such as the benchmark's and the playground's."""
    for point in sorted(metadata.entry_points(group=COMMANDS), key=lambda point: point.name):
        command = point.load()
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=point.name)
        else:
            app.command(point.name)(command)


_add_commands()
