"""Every command of `refcore` with its arguments; what a command does is imported when it runs: `--help` is instant."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from refcore import registry, rundir
from refcore.cli import benching
from refcore.folder import LOCAL
from refcore.plugin import RefcoreError

app = typer.Typer(
    help="Make images by inverting referees: frozen models that judge whether an image matches a prompt.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
config_app = typer.Typer(help="Show, check and describe run configs.", no_args_is_help=True)
playground_app = typer.Typer(help="The embedded world of coloured shapes.", no_args_is_help=True)


class ProbeGroup(TyperGroup):
    """A group that takes a word which is none of its commands as the first argument of `probe run`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands:
            args = ["run", *args]
        return super().resolve_command(ctx, args)


probe_app = typer.Typer(
    cls=ProbeGroup,
    help="Measure a referee on the playground, where the truth is known; or a run's loss: `refcore probe CONFIG`.",
    no_args_is_help=True,
)
plugins_app = typer.Typer(help="List referees, priors, canvases and all other plugins.", invoke_without_command=True)
app.add_typer(config_app, name="config")
app.add_typer(playground_app, name="playground")
app.add_typer(benching.app, name="bench")
app.add_typer(plugins_app, name="plugins")
app.add_typer(probe_app, name="probe")


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
    from refcore.cli.inverting import run

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
    from refcore.cli.scoring import run

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
        from refcore.cli.listing import list_plugins

        list_plugins(check, json)


@plugins_app.command("show")
def plugins_show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A plugin; see `refcore plugins`.")],
    json: Json = False,
    plugins_dir: PluginsDir = None,
    local_plugins: LocalPlugins = False,
) -> None:
    """Show the page of a plugin: what it is, where it comes from, its settings, and how a config names it."""
    from refcore.cli.listing import show_plugin

    show_plugin(name, json)


@app.command()
def presets(json: Json = False, plugins_dir: PluginsDir = None, local_plugins: LocalPlugins = False) -> None:
    """List the presets."""
    from refcore.cli.listing import list_presets

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
    from refcore.cli.configs import show

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
    from refcore.cli.configs import validate

    validate(file or config, preset, overrides or [], json)


@config_app.command("schema")
def config_schema(
    plugins: Annotated[bool, typer.Option("--plugins", help="With the fields of every installed plugin.")] = False,
    plugins_dir: PluginsDir = None,
    local_plugins: LocalPlugins = False,
) -> None:
    """Print the JSON Schema of a config."""
    from refcore.cli.configs import schema

    schema(plugins)


@app.command()
def judge(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="An image file.")],
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="A prompt of the playground's grammar.")],
    json: Json = False,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 where the verdict is no.")] = False,
) -> None:
    """Say whether an image shows exactly what a playground prompt asks for, fact by fact."""
    from refcore.cli.playground import judge

    judge(image, prompt, json, exit_code)


@playground_app.command("spec")
def playground_spec(json: Json = False) -> None:
    """Print the palette, shapes, textures, sizes and relations."""
    from refcore.cli.playground import spec

    spec(json)


@playground_app.command("sample")
def playground_sample(
    prompt: Annotated[
        str | None, typer.Argument(metavar="PROMPT", help="A prompt of the grammar; drawn if left out.")
    ] = None,
    n: Annotated[int, typer.Option("--n", min=1, help="How many scenes.")] = 1,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the scenes.")] = Path("samples"),
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the drawing.")] = 0,
    json: Json = False,
) -> None:
    """Draw scenes, with their captions."""
    from refcore.cli.playground import sample

    sample(prompt, n, out, seed, json)


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
    from refcore.cli.doctoring import run

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


@probe_app.command("referee")
def probe_referee(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A referee; see `refcore plugins`.")],
    scenes: Annotated[int, typer.Option("--scenes", min=2, help="Scenes for each kind of wrong caption.")] = 24,
    prompts: Annotated[int, typer.Option("--prompts", min=1, help="Prompts made by its gradient alone.")] = 6,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of scenes, prompts and the start.")] = 0,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Keep the pictures in this folder.")] = None,
    json: Json = False,
    plugins_dir: PluginsDir = None,
    local_plugins: LocalPlugins = False,
) -> None:
    """Show what a referee knows, whether its gradient alone makes what is asked, and what a view costs."""
    from refcore.cli.probing import run

    run(name, scenes, prompts, seed, overrides or [], out, json)


@probe_app.command("run")
def probe_run(
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
    """Measure how smooth and how well conditioned the referees' loss is along a run; `run` may be left out."""
    from refcore.cli.smoothing import run

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
    from refcore.cli.converting import run

    run(conversion, source, out)
