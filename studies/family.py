"""The study of family likeness: how four networks rank the 60 published pictures of the preset of version 0.2.

    python studies/family.py               # the table of docs/natural.md, from studies/rows/natural/family.json
    python studies/family.py --measure     # first measures the rows, with the extra `natural`

The pictures are cut out of docs/images/natural-60.jpg, as it was published, without their frames. Photographs are
foolbox's 20 from ImageNet, shrunk to the same size.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from page import DOCS, ROWS, fill
from PIL import Image
from torch import Tensor

from refcore.engine.views import coarsen, resize
from refcore.runs.rundir import write_text
from refcore_bench.photographs import photographs
from refcore_bench.scoring import pixels
from refcore_bench.storing.contact_sheets import COLUMNS, FRAME, GAP, SIDE
from refcore_bench.table import grid
from refcore_bench.tasks.natural import GROUPS, draw
from refcore_plugins.referees.imagenet import Imagenet

PAGE = DOCS / "natural.md"
SHEET = DOCS / "images" / "natural-60.jpg"
KEPT = ROWS / "natural" / "family.json"
NETWORKS = {"lite0": 224, "lite1": 240, "lite2": 260, "squeezenet": 227}
"""Network -> side of its input in pixels."""
ROLES = {"lite0": "optimised", "lite1": "optimised", "lite2": "witness until 0.2", "squeezenet": "not used"}
PIXELS = 91
"""Side of a picture that is cut out; a cell of the sheet is 96 px without its frame, less what JPEG smears into it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="measure the rows first")
    if parser.parse_args().measure:
        write_text(KEPT, json.dumps(measured(), indent=1) + "\n")
    fill(PAGE, Path(__file__).name, parts())
    print(f"wrote {PAGE.relative_to(DOCS.parent)}")


def measured() -> dict[str, list[dict[str, Any]]]:
    """Rank of its class for each picture and each photograph, by each network."""
    shown = {
        "pictures": [(prompt, prompt, picture) for prompt, picture in pictures()],
        "photographs": [
            (one.name, one.prompt, coarsen(one.square(), PIXELS))
            for one in photographs()
            if one.name.startswith("imagenet_")
        ],
    }
    rows: dict[str, list[dict[str, Any]]] = {
        kind: [{"name": name, "class": prompt, "rank": {}} for name, prompt, _ in several]
        for kind, several in shown.items()
    }
    for network, size in NETWORKS.items():
        referee = Imagenet(weights=network, size=size)
        referee.load(torch.device("cpu"), torch.float32)
        for kind, several in shown.items():
            for row, (_, prompt, image) in zip(rows[kind], several, strict=True):
                seen = resize(image, referee.input_size)
                row["rank"][network] = int(referee.rank(seen, referee.read([prompt])))
    return rows


def pictures() -> list[tuple[str, Tensor]]:
    """(class, [1, 3, 91, 91]) of every picture on the sheet, in its order: animals, objects, scenes."""
    listed = draw("reporting")
    order = sorted(range(len(listed)), key=lambda i: GROUPS.index(listed[i].category))
    with Image.open(SHEET) as sheet:
        levels = np.array(sheet.convert("RGB"))
    cell = (SIDE + 2 * FRAME + GAP) * 3 // 4
    margin = (GAP + FRAME) * 3 // 4 + (SIDE * 3 // 4 - PIXELS) // 2
    found = []
    for place, i in enumerate(order):
        top, left = (cell * turn + margin for turn in divmod(place, COLUMNS))
        found.append((listed[i].prompt, pixels([levels[top : top + PIXELS, left : left + PIXELS]])))
    return found


def parts() -> dict[str, str]:
    """The generated parts of the page."""
    rows = json.loads(KEPT.read_text("utf-8"))
    columns = [
        "network",
        "role",
        "ranks the class first",
        "in its first 5",
        f"photographs at {PIXELS} px: first, first 5",
    ]
    table = []
    for network, role in ROLES.items():
        ranks, photos = ([row["rank"][network] for row in rows[kind]] for kind in ("pictures", "photographs"))
        table.append(
            [
                network,
                role,
                f"{_within(ranks, 1)} of {len(ranks)}",
                str(_within(ranks, 5)),
                f"{_within(photos, 1)}, {_within(photos, 5)} of {len(photos)}",
            ]
        )
    logs = {name: [math.log10(row["rank"][name]) for row in rows["pictures"]] for name in NETWORKS}
    pairs = [
        f"{one} with {other} {np.corrcoef(logs[one], logs[other])[0, 1]:.2f}"
        for one, other in itertools.combinations(NETWORKS, 2)
    ]
    return {"family": f"{grid(columns, table)}\n\nCorrelation of log rank over the pictures: {', '.join(pairs)}."}


def _within(ranks: list[int], most: int) -> int:
    return sum(rank <= most for rank in ranks)


if __name__ == "__main__":
    main()
