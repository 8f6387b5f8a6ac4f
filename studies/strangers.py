"""The study of diversity: one network, two relatives, two strangers, and both, at equal seconds.

    python studies/strangers.py --run runs/strangers --witnesses coco.yaml       # continues after an interruption
    python studies/strangers.py --run runs/strangers --count 4 --arms strangers,relatives
    python studies/strangers.py --from runs/strangers                            # the part of docs/natural.md

The recipe is that of the preset `natural`; arms differ in their referees and in the steps that the same processor time
allows, which is measured once and kept in the folder. Each class is a kind of a COCO class of its own, so that a
detector can be a witness (--witnesses: a YAML list, see docs/benchmark.md); none is of the tuning list. Three relatives
are no arm: the third, Lite 2, gives the benchmark's verdict, and nothing may optimise for it.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars
import torch
from page import DOCS, ROWS, fill, import_results
from PIL import Image, ImageDraw

from refcore.config import presets
from refcore.config.run import RunConfig
from refcore.engine.inversion import Inversion
from refcore.runs.rundir import write_text
from refcore_bench import running, table, witnesses
from refcore_bench.storing.results import Results
from refcore_bench.task import TaskPrompt
from refcore_bench.tasks.natural import NATURAL
from refcore_bench.variants import Variant, variant_from_text

PAGE = DOCS / "natural.md"
KEPT = ROWS / "natural" / "strangers"
LITE0 = "{name: imagenet, label: lite0, weight: 0.333, config: {weights: lite0, size: 224}}"
LITE1 = "{name: imagenet, label: lite1, weight: 0.333, config: {weights: lite1, size: 240}}"
SQUEEZENET = "{name: imagenet, label: squeezenet, weight: 0.1667, config: {weights: squeezenet, size: 227}}"
ARMS = {
    "strangers": (LITE0, SQUEEZENET),
    "relatives": (LITE0, LITE1),
    "one-network": (LITE0,),
    "relatives-and-stranger": (LITE0, LITE1, SQUEEZENET),
}
AGAINST = "relatives"
CLASSES: Mapping[str, Sequence[str]] = {
    "animals": (
        "bald eagle", "golden retriever", "zebra", "African elephant", "Persian cat", "sorrel", "ox", "ice bear", "ram",
    ),
    "objects": (
        "airliner", "teddy", "school bus", "pizza", "mountain bike", "umbrella", "schooner", "analog clock",
        "fire engine", "rocking chair", "steam locomotive", "wine bottle", "convertible", "coffee mug", "moped",
        "studio couch", "Granny Smith", "backpack", "television", "basketball", "vase", "park bench", "orange",
        "notebook", "four-poster", "refrigerator", "hotdog", "computer keyboard", "toaster", "cellular telephone",
        "parking meter",
    ),
}  # fmt: skip
"""Group -> classes, fixed before any picture of them was made for this study."""
SOURCE = "coco"
"""Name of this list of classes in the results."""
STEPS = "steps.json"
"""File of the results: arm -> steps."""
TIMED = 5
MIXED, ACROSS, SIDE = 77, 6, 160
"""Random seed of the sheet's order, pictures in a row, and pixels from one to the next."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, metavar="DIR", help="make the pictures that this folder lacks")
    parser.add_argument("--from", dest="source", type=Path, metavar="DIR", help="import the results in this folder")
    parser.add_argument("--arms", default=",".join(ARMS), help="comma-separated")
    parser.add_argument("--count", type=int, help="only the first classes")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds, from 0")
    parser.add_argument("--witnesses", type=Path, metavar="FILE", help="YAML list of further witnesses")
    given = parser.parse_args()
    if given.run is not None:
        chosen = arms(given.run, given.arms.split(","))
        seeds = range(given.seeds)
        results = running.run(
            given.run, chosen, classes()[: given.count], SOURCE, seeds, 1, progress=print, task=NATURAL
        )
        witnesses.measure(results, given.witnesses, print)
    if given.source is not None:
        found = Results.existing(given.source)
        import_results(found.path, KEPT)
        sheet(found)
    if KEPT.exists():
        fill(PAGE, Path(__file__).name, parts())


def classes() -> list[TaskPrompt]:
    """The classes, the groups mixed evenly, so that the first few are like all."""
    placed = [
        ((i + 0.5) / len(own), TaskPrompt(one, group, SOURCE))
        for group, own in CLASSES.items()
        for i, one in enumerate(own)
    ]
    return [one for _, one in sorted(placed, key=lambda place: place[0])]


def arms(folder: Path, names: list[str]) -> list[Variant]:
    """The arms as variants, with the steps that the folder has, or else those that the processor's time allows."""
    path = folder / STEPS
    steps: dict[str, int] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    if missing := [name for name in ARMS if name not in steps]:
        seconds = {name: _seconds(name) for name in ARMS}
        allowed = presets.get(NATURAL.name).settings["steps"] * seconds["strangers"]
        steps |= {name: round(allowed / seconds[name]) for name in missing}
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(steps, indent=1) + "\n")
    return [_arm(name, steps[name]) for name in names]


def _arm(name: str, steps: int) -> Variant:
    return variant_from_text(f"{name}=natural,referees=[{', '.join(ARMS[name])}],steps={steps}", NATURAL)


def _seconds(name: str) -> float:
    """Processor seconds of a step of one image, the median of a few after the first."""
    settings: dict[str, Any] = {**_arm(name, TIMED + 1).settings, "prompts": ["volcano"], "seeds": [0], "witnesses": []}
    found = []
    before = None
    for _ in Inversion(RunConfig.from_settings(settings)):
        now = time.process_time()
        if before is not None:
            found.append(now - before)
        before = now
    return float(torch.tensor(found).median())


def sheet(results: Results) -> None:
    """Writes all pictures of the strangers, numbered in a mixed order, so that a reader can name them unprompted.

    Where rows lack their pictures, as in a folder that goes on from committed rows, the committed sheet stays.
    """
    own = polars.col("variant") == "strangers"
    rows = results.rows(images=True).filter(own).to_dicts()
    if len(rows) < results.rows().filter(own).height:
        print(f"{results.path} lacks pictures; the sheet of the page stays as it is")
        return
    random.Random(MIXED).shuffle(rows)
    drawn = Image.new("RGB", (ACROSS * SIDE, -(-len(rows) // ACROSS) * SIDE), "white")
    draw = ImageDraw.Draw(drawn)
    for i, row in enumerate(rows):
        corner = (i % ACROSS * SIDE, i // ACROSS * SIDE)
        with Image.open(io.BytesIO(row["image"])) as picture:
            drawn.paste(picture.resize((SIDE - 3, SIDE - 3), Image.Resampling.LANCZOS), corner)
        draw.rectangle((*corner, corner[0] + 18, corner[1] + 12), fill="white")
        draw.text((corner[0] + 3, corner[1]), str(i + 1), fill="black")
    drawn.save(DOCS / "images" / "natural-strangers.jpg", quality=78)
    print("in the order of the sheet:", ", ".join(row["prompt"] for row in rows))


def parts() -> dict[str, str]:
    """The generated parts of the page."""
    return {"strangers": table.markdown(witnesses.tables(Results.existing(KEPT), AGAINST))}


if __name__ == "__main__":
    main()
