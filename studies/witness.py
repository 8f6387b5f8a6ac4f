"""The study of how coarse a copy the witness should judge: its rank of the class for photographs, pictures and hacks.

    python studies/witness.py --out runs/witness --pictures runs/tuning

Photographs come from installed packages, each with the class that the full-size networks agree on. Hacks are made here,
by studies/adversarial.yaml against each network in turn. Pictures are the preset's, from a folder of `refcore bench
natural`. Prints a table in Markdown and writes it as JSON.
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

import numpy as np
import polars
import torch
from PIL import Image
from torch import Tensor

from refcore import images
from refcore.config.run import RunConfig
from refcore.config.settings import load_yaml, override
from refcore.engine.inversion import Inversion
from refcore.engine.views import coarsen, resize
from refcore.runs.rundir import slug, write, write_text
from refcore_bench.photographs import photographs
from refcore_bench.scoring import pixels
from refcore_bench.storing.results import Results
from refcore_bench.tasks.natural import NATURAL
from refcore_plugins.referees.imagenet import Imagenet

COARSE = (48, 64, 96, 128, 160, None)
PHOTOGRAPHS = ("temple", "flower", "officer")
HACKED = ("volcano", "jellyfish", "macaw", "broccoli")
HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for hacks and table")
    parser.add_argument("--pictures", type=Path, help="results folder of `refcore bench natural`")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    witness = Imagenet(weights="lite2", size=260)
    witness.load(torch.device("cpu"), torch.float32)
    rows = []
    for kind, name, wanted, image in (*shown(), *pictures(arguments.pictures), *hacks(arguments.out)):
        conditioning = witness.read([wanted])
        seen = {
            str(size): resize(image if size is None else coarsen(image, size), witness.input_size) for size in COARSE
        }
        rows.append(
            {
                "kind": kind,
                "name": name,
                "class": wanted,
                "rank": {size: int(witness.rank(view, conditioning)) for size, view in seen.items()},
                "p": {size: witness.score(view, conditioning).item() for size, view in seen.items()},
            }
        )
    write_text(arguments.out / "witness.json", json.dumps(rows, indent=2) + "\n")
    titles = [f"{size} px" if size else "as it is" for size in COARSE]
    print(f"| | image | class | {' | '.join(titles)} |\n|{' --- |' * (3 + len(titles))}")
    for row in rows:
        cells = [f"{row['rank'][str(size)]} ({row['p'][str(size)]:.2f})" for size in COARSE]
        print(f"| {row['kind']} | {row['name']} | {row['class']} | {' | '.join(cells)} |")


def shown() -> list[tuple[str, str, str, Tensor]]:
    """The central square of each photograph whose package is installed."""
    return [("photograph", one.name, one.prompt, one.square()) for one in photographs() if one.name in PHOTOGRAPHS]


def pictures(folder: Path | None) -> list[tuple[str, str, str, Tensor]]:
    if folder is None:
        return []
    rows = Results.existing(folder).rows(images=True).filter(polars.col("variant") == NATURAL.name)
    return [
        ("picture", prompt, prompt, pixels([np.array(Image.open(io.BytesIO(png)))]))
        for prompt, png in rows.select("prompt", "image").iter_rows()
    ]


def hacks(folder: Path) -> list[tuple[str, str, str, Tensor]]:
    """Adversarial noise for each class, against lite0 and against lite1; made once and kept in `folder`."""
    found = []
    settings = load_yaml(HERE / "adversarial.yaml")
    for weights in ("lite0", "lite1"):
        for name in HACKED:
            path = folder / f"hack-{slug(name)}-{weights}.png"
            if not path.exists():
                changed = override(settings, [f"referees.0.config.weights={weights}", "witnesses=[]"])
                inversion = Inversion(RunConfig.from_settings({**changed, "prompts": [name]}))
                for _ in inversion:
                    pass
                write(path, images.png(images.levels(inversion.images()[0])))
            found.append(("hack", f"{name}, {weights}", name, images.read(path)[None]))
    return found


if __name__ == "__main__":
    main()
