"""`refcore playground`: the spec of the playground's world, and scenes of it. Local imports keep `--help` fast."""

from __future__ import annotations

import random
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from refcore.cli import output
from refcore.cli.options import Json
from refcore.errors import RefcoreError

app = typer.Typer(help="The embedded world of coloured shapes.", no_args_is_help=True)
SCENES = "scenes.json"
"""File that `refcore playground draw` writes beside its images."""


@app.command("spec")
def show_spec(json: Json = False) -> None:
    """Print the palette, shapes, textures, sizes and relations."""
    from refcore_playground.world import spec

    world = spec()
    if json:
        output.print_json(world)
    else:
        output.print_table(["name", "values"], [(name, _plain(value)) for name, value in world.items()])


@app.command("draw")
def draw_scenes(
    prompt: Annotated[
        str | None, typer.Argument(metavar="PROMPT", help="A prompt of the grammar; by default a drawn one per scene.")
    ] = None,
    n: Annotated[int, typer.Option("--n", min=1, help="Number of scenes.")] = 1,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the scenes.")] = Path("scenes"),
    seed: Annotated[int, typer.Option("--seed", min=0, help="Random seed.")] = 0,
    json: Json = False,
) -> None:
    """Draw scenes, with their captions."""
    from refcore import images
    from refcore.runs import rundir
    from refcore_playground.draw import draw_pair, draw_scene
    from refcore_playground.grammar import GrammarError, parse, write
    from refcore_playground.render import render_levels

    rng = random.Random(f"sample-{seed}")
    try:
        wanted = parse(prompt) if prompt is not None else None
        drawn = [(draw_scene(wanted, rng), wanted) if wanted else draw_pair(rng) for _ in range(n)]
    except (GrammarError, RuntimeError) as error:  # RuntimeError: no room for so many large things
        raise RefcoreError(str(error)) from error
    for name in (SCENES, *(f"scene_{index}.png" for index in range(n))):
        rundir.refuse_existing(out / name, "--out")
    out.mkdir(parents=True, exist_ok=True)
    scenes = []
    for index, (scene, request) in enumerate(drawn):
        name = f"scene_{index}.png"
        rundir.write(out / name, images.png(render_levels(scene)))
        things = [{**asdict(thing), "size": thing.size} for thing in scene.things]
        scenes.append({"image": name, "caption": prompt or write(request, rng), "things": things})
    rundir.write_text(out / SCENES, rundir.to_json(scenes, indent=2) + "\n")
    if json:
        output.print_json(scenes)
    else:
        output.print_table(["image", "caption"], [(out / str(s["image"]), s["caption"]) for s in scenes])


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name}: {_plain(item)}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(" ".join(map(str, item)) if isinstance(item, list) else str(item) for item in value)
    return str(value)
