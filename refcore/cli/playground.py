"""`refcore judge` and `refcore playground`: the embedded world, which no run optimises against."""

from __future__ import annotations

import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

from refcore import images, rundir
from refcore.cli.output import print_json, print_table, stdout
from refcore.plugin import RefcoreError

SCENES = "scenes.json"
"""What `refcore playground sample` writes beside its images."""


def judge(image: Path, prompt: str, as_json: bool, exit_code: bool) -> None:
    import typer

    verdict = verdict_on(images.read_levels(image), prompt)
    if as_json:
        print_json(verdict)
    else:
        print_table(
            ["asked", "found", ""], [(f["asked"], f["found"], "ok" if f["ok"] else "no") for f in verdict["facts"]]
        )
        stdout.print(f"verdict: {'yes' if verdict['verdict'] else 'no'}")
    if exit_code and not verdict["verdict"]:
        raise typer.Exit(1)


def verdict_on(levels: images.Levels, prompt: str) -> dict[str, Any]:
    """The judge's verdict on pixels [H, W, 3] in 0..255: `{"verdict": bool, "facts": [{"asked", "found", "ok"}]}`.

    Raises:
        RefcoreError: the prompt is outside the playground's grammar.
    """
    from refcore_playground.grammar import GrammarError
    from refcore_playground.judge import judge

    try:
        return judge(levels, prompt).to_dict()
    except GrammarError as error:
        raise RefcoreError(f"the judge cannot read this prompt: {error}") from error


def in_grammar(prompt: str) -> bool:
    """Whether the judge can read the prompt."""
    from refcore_playground.grammar import GrammarError, parse

    try:
        parse(prompt)
    except GrammarError:
        return False
    return True


def spec(as_json: bool) -> None:
    from refcore_playground.world import spec

    world = spec()
    if as_json:
        print_json(world)
    else:
        print_table(["what", "values"], [(name, _plain(value)) for name, value in world.items()])


def sample(prompt: str | None, n: int, out: Path, seed: int, as_json: bool) -> None:
    from refcore_playground.grammar import GrammarError, parse, write
    from refcore_playground.render import render
    from refcore_playground.sample import draw_pair, draw_scene

    rng = random.Random(f"sample-{seed}")
    try:
        request = parse(prompt) if prompt is not None else None
        drawn = [(draw_scene(request, rng), request) if request else draw_pair(rng) for _ in range(n)]
    except (GrammarError, RuntimeError) as error:  # RuntimeError: no room for so many large things
        raise RefcoreError(str(error)) from error
    if (out / SCENES).exists():
        raise RefcoreError(
            f'the folder "{out}" holds other scenes, which are never overwritten; name another with --out'
        )
    out.mkdir(parents=True, exist_ok=True)
    scenes = []
    for index, (scene, asked) in enumerate(drawn):
        name = f"scene_{index}.png"
        rundir.write(out / name, images.png((render(scene) * 255).round().astype("uint8")))
        things = [{**asdict(thing), "size": thing.size} for thing in scene.things]
        scenes.append({"image": name, "caption": prompt or write(asked, rng), "things": things})
    rundir.write_text(out / SCENES, rundir.to_json(scenes, indent=2) + "\n")
    if as_json:
        print_json(scenes)
    else:
        print_table(["image", "caption"], [(out / str(s["image"]), s["caption"]) for s in scenes])


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name}: {_plain(item)}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(" ".join(map(str, item)) if isinstance(item, list) else str(item) for item in value)
    return str(value)
