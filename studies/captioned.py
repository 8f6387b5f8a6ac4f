"""The part of docs/results/lettering.md on a class and a word in one picture, by referees of four networks.

    python studies/captioned.py                  # the table, from studies/rows/lettering/captioned.json
    python studies/captioned.py --measure DIR    # makes the pictures that the rows lack; one seed, no selection

studies/captioned.yaml is run for each pair. Lite 2 ranks the class, Tesseract reads the strip; neither takes part.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lettering import PAGE, RESULT, reader, tesseract
from page import DOCS, fill
from PIL import Image, ImageDraw

import refcore
from refcore import images
from refcore.engine.views import coarsen, resize
from refcore.runs.rundir import write_text
from refcore_bench.table import grid
from refcore_plugins.models.ctc import greedy
from refcore_plugins.referees.imagenet import Imagenet

CONFIG = Path(__file__).with_suffix(".yaml")
ROWS = RESULT / "captioned.json"
SHEET = DOCS / "images" / "lettering-captioned.png"
PAIRS = (("volcano", "lava"), ("goldfish", "pond"), ("teapot", "tea"))
SIZE, TOP = 256, 0.7
"""Side of the picture in pixels, and upper edge of the strip as a fraction of it, as in the config."""
STRIP = (48, 160)
COARSE = 96
"""Pixels at which Lite 2 looks, as in the preset `natural`."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", type=Path, metavar="DIR", help="make the pictures into this folder")
    folder = parser.parse_args().measure
    if folder:
        measure(folder)
    fill(PAGE, Path(__file__).name, parts())


def measure(folder: Path) -> None:
    """Makes and judges the pairs that the rows lack, and draws those whose pictures the folder has."""
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    rows = recorded()
    done = {row["class"] for row in rows}
    with refcore.Models() as models:
        for thing, word in PAIRS:
            if thing in done:
                continue
            overrides = [f"{term}.prompt={thing}" for term in ("referees.lite0", "referees.squeezenet", "witnesses.0")]
            began = time.process_time()
            result = refcore.invert(word, config=CONFIG, overrides=overrides, seeds=0, models=models)
            seconds = time.process_time() - began
            Image.fromarray(images.levels(result.images[0])).save(folder / f"{thing}-{word}.png")
            rows.append({"class": thing, "word": word, "seconds": round(seconds, 1), **judged(folder, thing, word)})
            write_text(ROWS, json.dumps(rows, indent=1) + "\n")
            print(rows[-1], flush=True)
    sheet(folder, rows)


def recorded() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(ROWS.read_text("utf-8")) if ROWS.exists() else []
    return found


def judged(folder: Path, thing: str, word: str) -> dict[str, Any]:
    """Lite 2's rank and probability of the class, and what PP-OCR and Tesseract read on the strip."""
    path = folder / f"{thing}-{word}.png"
    image = images.read(path).unsqueeze(0)
    witness = Imagenet(weights="lite2", size=260)
    witness.load(torch.device("cpu"), torch.float32)
    seen, target = resize(coarsen(image, COARSE), witness.input_size), witness.read([thing])
    strip = path.with_name(f"{path.stem}-strip.png")
    Image.open(path).crop((0, round(TOP * SIZE), SIZE, SIZE)).resize(STRIP[::-1], Image.Resampling.BICUBIC).save(strip)
    referee = reader(STRIP[1])
    (read,) = greedy(referee.logits(images.read(strip).unsqueeze(0)), referee.classes)
    return {
        "rank": int(witness.rank(seen, target)),
        "p": round(witness.score(seen, target).item(), 3),
        "ocr": read.strip(),
        "tesseract": tesseract(strip, word),
    }


def parts() -> dict[str, str]:
    """The generated part of the page."""
    rows = recorded()
    if not rows:
        return {"captioned": "Not measured yet."}
    columns = ["class", "word", "Lite 2's rank of 1,000, p", "PP-OCR reads", "Tesseract reads", "s/picture"]
    lines = [
        [
            row["class"],
            row["word"],
            f"{row['rank']}, {row['p']:.2f}",
            row["ocr"] or "nothing",
            row["tesseract"] or "nothing",
            f"{row['seconds']:.0f}",
        ]
        for row in rows
    ]
    return {"captioned": grid(columns, lines)}


def sheet(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draws the pictures side by side, with class and word above."""
    paths = {f"{row['class']}, {row['word']}": folder / f"{row['class']}-{row['word']}.png" for row in rows}
    pictures = {title: Image.open(path) for title, path in paths.items() if path.exists()}
    found = Image.new("RGB", (max(1, len(pictures)) * (SIZE + 8), SIZE + 18), "white")
    draw = ImageDraw.Draw(found)
    for i, (title, picture) in enumerate(pictures.items()):
        draw.text((i * (SIZE + 8), 2), title, "black")
        found.paste(picture, (i * (SIZE + 8), 18))
    found.save(SHEET)


if __name__ == "__main__":
    main()
