"""The study of docs/natural.md: one picture for each class of a list, judged by the witness, on one contact sheet.

    python docs/studies/natural.py --out runs/natural                 # the 30 classes fixed in advance
    python docs/studies/natural.py --out runs/tuning --group tuning   # those that the recipe was tuned on
    python docs/studies/natural.py --out runs/some --classes volcano jellyfish --set steps=50

A class that already has its result in the folder is not made again, so an interrupted study goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image, ImageDraw, ImageFont

from refcore import images, preset
from refcore.build import resolve
from refcore.config import RunConfig
from refcore.inversion import Inversion
from refcore.rundir import slug, versions, write, write_text
from refcore.views import coarsen, resize
from refcore_plugins.referees.imagenet import Imagenet

CLASSES = Path(__file__).parents[1] / "natural-classes.yaml"
GROUPS = ("animals", "objects", "scenes")
COLUMNS = 6
TILE = 256
CAPTION = 34


def main() -> None:
    arguments = parser().parse_args()
    listed = yaml.safe_load(CLASSES.read_text("utf-8"))
    wanted = arguments.classes or [name for group in arguments.group or GROUPS for name in listed[group]]
    folder: Path = arguments.out
    folder.mkdir(parents=True, exist_ok=True)
    witness: tuple[Imagenet, int | None] | None = None
    for i, name in enumerate(wanted, start=1):
        path = folder / f"{slug(name)}.json"
        if path.exists():
            continue
        settings = preset.override(preset.get(arguments.preset).settings, arguments.set)
        config = resolve(RunConfig.parse({**settings, "prompts": [name], "seeds": [arguments.seed]}))
        witness = witness or load_witness(config)
        result = make(config, name, folder, *witness)
        write_text(path, json.dumps(result, indent=2) + "\n")
        print(
            f"{i}/{len(wanted)} {name}: witness p {result['p']:.2f}, rank {result['rank']}, {result['seconds']:.0f} s"
        )
        sys.stdout.flush()
    results = [json.loads((folder / f"{slug(name)}.json").read_text("utf-8")) for name in wanted]
    write(folder / "sheet.png", images.png(np.asarray(sheet(results, folder))))
    summary = summarise(results, listed)
    everything = {**summary, "classes": results, "versions": versions()}
    write_text(folder / "results.json", json.dumps(everything, indent=2) + "\n")
    print(json.dumps(summary, indent=2))


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--out", type=Path, required=True, help="folder of pictures, results and contact sheet")
    made.add_argument("--classes", nargs="+", help="class names; by default those of --group")
    made.add_argument("--group", nargs="+", choices=[*GROUPS, "tuning"], help=f"groups of {CLASSES.name}")
    made.add_argument("--preset", default="natural")
    made.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="as of `refcore invert`")
    made.add_argument("--seed", type=int, default=0)
    return made


def load_witness(config: RunConfig) -> tuple[Imagenet, int | None]:
    """The preset's witness, and the size of the copy that it judges."""
    use = config.witnesses[0]
    witness = Imagenet(**use.config)
    witness.load(torch.device("cpu"), torch.float32)
    return witness, use.coarse


def make(config: RunConfig, name: str, folder: Path, witness: Imagenet, coarse: int | None) -> dict[str, Any]:
    """Makes and saves one picture; the result says what the witness sees, on the coarse copy and on the picture."""
    inversion = Inversion(config)
    began = time.perf_counter()
    for _ in inversion:
        pass
    seconds = time.perf_counter() - began
    picture = inversion.images().cpu()
    file = f"{slug(name)}.png"
    write(folder / file, images.png(images.levels(picture[0])))
    reading = witness.read([name])
    small = resize(picture if coarse is None else coarsen(picture, coarse), witness.input_size)
    full = resize(picture, witness.input_size)
    return {
        "name": name,
        "image": file,
        "seed": config.seeds[0],
        "seconds": seconds,
        "coarse": coarse,
        "p": witness.score(small, reading).item(),
        "rank": int(witness.rank(small, reading)),
        "p_full": witness.score(full, reading).item(),
        "rank_full": int(witness.rank(full, reading)),
        "first": witness.guess(small)[0],
    }


def sheet(results: list[dict[str, Any]], folder: Path) -> Image.Image:
    """All pictures in the order of the list, each over its name and what the witness says of it."""
    rows = -(-len(results) // COLUMNS)
    page = Image.new("RGB", (COLUMNS * TILE, rows * (TILE + CAPTION)), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    for i, result in enumerate(results):
        x, y = i % COLUMNS * TILE, i // COLUMNS * (TILE + CAPTION)
        with Image.open(folder / result["image"]) as picture:
            page.paste(picture.convert("RGB").resize((TILE, TILE), Image.Resampling.LANCZOS), (x, y))
        told = f"rank {result['rank']}, p {result['p']:.2f}"
        if result["rank"] > 1:
            told += f" (first: {result['first']})"
        draw.text((x + 4, y + TILE + 1), result["name"], "black", font)
        draw.text((x + 4, y + TILE + 17), told, "darkgreen" if result["rank"] == 1 else "firebrick", font)
    return page


def summarise(results: list[dict[str, Any]], listed: dict[str, list[str]]) -> dict[str, Any]:
    """How often the witness ranks the class first, in all and by group, and the seconds an image."""
    seconds = sorted(result["seconds"] for result in results)
    first = {result["name"]: result["rank"] == 1 for result in results}
    groups = {group: [first[name] for name in names if name in first] for group, names in listed.items()}
    return {
        "n": len(results),
        "ranked_first": sum(first.values()),
        "ranked_first_by_group": {group: f"{sum(found)} of {len(found)}" for group, found in groups.items() if found},
        "in_first_five": sum(result["rank"] <= 5 for result in results),
        "seconds_median": seconds[len(seconds) // 2],
        "seconds_max": seconds[-1],
    }


if __name__ == "__main__":
    main()
