"""The study of docs/results/lettering.md: words inverted from one reader, and read by another that takes no part.

    python studies/lettering.py                  # tables, from studies/rows/lettering
    python studies/lettering.py --measure DIR    # first makes the pictures that the rows lack, word by word, into DIR
    python studies/lettering.py --measure DIR --words tuning --variant "NAME=ASSIGNMENT;..."

The preset `lettering` is run for each word with its views and without. PP-OCR, a referee, and Tesseract, the
judge, read each picture as it is saved. After an interruption the same command continues. Tesseract is Debian's
`tesseract-ocr`, with its English model. trials.json holds the trials on tuning words,
earlier.json the reporting words that an earlier preset, of PP-OCR alone, was run on.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from page import DOCS, ROWS, fill
from PIL import Image, ImageDraw, ImageOps

import refcore
from refcore import images
from refcore.runs import rundir
from refcore_bench.statistics.intervals import rate
from refcore_bench.table import grid
from refcore_plugins.models.ctc import greedy
from refcore_plugins.referees.ocr import Ocr

RESULT, PAGE = ROWS / "lettering", DOCS / "results" / "lettering.md"
STRIP = DOCS / "images" / "lettering-strip.png"
WORDS = Path(__file__).with_name("lettering-words.yaml")
LISTS = ("tuning", "reporting")
PRESET = "lettering"
VIEWS = (1, 0)
"""Views a step of the reporting variants, the preset's first; with 0 the referees see the picture as it is."""
HEIGHT, PER_CHARACTER = 48, 24
"""Height of a picture, and its width for each character and for half a character's margin at either end, in pixels."""
HEIGHTS = {"ppocr": 48, "easyocr": 64}
"""The preset's referees, and the height in pixels at which each of them reads."""
ENLARGED, MARGIN = 2, 24
"""Tesseract reads a picture enlarged bicubically by this factor, on white with a margin of this many pixels."""
ONE_WORD, ONE_LINE = "8", "7"
"""Tesseract's modes of page segmentation for a picture of one word, and for one of a line of several. As a line it
reads fewer of the single words; as a word it puts a quotation mark before rendered pairs."""
STRIP_WORDS = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", type=Path, metavar="DIR", help="make the pictures that this folder lacks")
    parser.add_argument("--words", choices=LISTS, default="reporting", help="which list; by default the reporting one")
    parser.add_argument("--count", type=int, help="only the first words of the list")
    parser.add_argument(
        "--variant", action="append", metavar="NAME=ASSIGNMENTS", help="instead of the numbers of views"
    )
    given = parser.parse_args()
    if given.measure:
        variants = dict(map(parsed, given.variant)) if given.variant else {f"views-{n}": with_views(n) for n in VIEWS}
        measure(given.measure, given.words, variants, given.count)
        strip(given.measure)
    fill(PAGE, Path(__file__).name, parts())
    print(f"wrote {PAGE.relative_to(DOCS.parent)}")


def with_views(count: int) -> list[str]:
    """Overrides of the preset for a number of views a step; 0 is the picture as it is."""
    if count:
        return [f"views.main.count={count}"]
    return [*(f"referees.{label}.views=clean" for label in HEIGHTS), "views={}"]


def sized(text: str) -> list[str]:
    """Overrides of the preset for a picture as wide as a text needs."""
    width = PER_CHARACTER * (len(text) + 1)
    at = {label: 8 * round(width * height / HEIGHT / 8) for label, height in HEIGHTS.items()}
    tensors = [f"canvas.config.smallest={width // 12}", f"canvas.config.finest={width // 3}"]
    size = [f"size=[{HEIGHT},{width}]", *tensors]
    return [*size, *(f"referees.{label}.config.width={own}" for label, own in at.items())]


def parsed(variant: str) -> tuple[str, list[str]]:
    """The name and overrides of NAME=ASSIGNMENT;ASSIGNMENT."""
    name, _, assignments = variant.partition("=")
    return name, [one for one in assignments.split(";") if one]


def measure(folder: Path, words: str, variants: Mapping[str, Sequence[str]], count: int | None) -> None:
    """Makes, reads and records what is missing, word by word through all variants."""
    torch.set_num_threads(1)
    listed = in_turn(yaml.safe_load(WORDS.read_text("utf-8"))[words])[:count]
    path = RESULT / f"{words}.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text("utf-8")) if path.exists() else []
    done = {(row["variant"], row["word"]) for row in rows}
    with refcore.Models() as models:
        for word in listed:
            for variant, overrides in variants.items():
                if (variant, word) in done:
                    continue
                began = time.process_time()
                result = refcore.invert(
                    word, preset=PRESET, overrides=[*sized(word), *overrides], seeds=0, models=models
                )
                seconds = time.process_time() - began
                image = folder / words / variant / f"{word.replace(' ', '-')}.png"
                image.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(images.levels(result.images[0])).save(image)
                rows.append({"variant": variant, "word": word, "seconds": round(seconds, 2), **readings(word, image)})
                rundir.write_text(path, json.dumps(rows, indent=1) + "\n")
                print(rows[-1], flush=True)


def in_turn(listed: Sequence[str]) -> list[str]:
    """Words and pairs mixed evenly, each in their order, so that the first few of the list are like all of it."""
    kinds = [[one for one in listed if (" " in one) == pair] for pair in (False, True)]
    placed = [((i + 0.5) / len(kind), one) for kind in kinds for i, one in enumerate(kind)]
    return [one for _, one in sorted(placed, key=lambda place: place[0])]


def readings(word: str, path: Path) -> dict[str, Any]:
    """What the referee and the judge read in a picture, and the referee's probability per character of the word."""
    image = images.read(path).unsqueeze(0)
    referee = reader(image.shape[-1])
    with torch.no_grad():
        (read,) = greedy(referee.logits(image), referee.classes)
    p = referee.score(image, referee.read([word])).item()
    return {"ocr": read.strip(), "p": round(p, 4), "tesseract": tesseract(path, word)}


@cache
def reader(width: int) -> Ocr:
    """The referee for pictures of 48 x `width` pixels."""
    referee = Ocr(width=width)
    referee.load(torch.device("cpu"), torch.float32)
    return referee


def tesseract(path: Path, word: str) -> str:
    """Tesseract's reading of a picture, without white space at its ends; it is told whether `word` is more than one."""
    picture = Image.open(path).convert("L")
    large = picture.resize((picture.width * ENLARGED, picture.height * ENLARGED), Image.Resampling.BICUBIC)
    page = path.with_suffix(".pgm")
    ImageOps.expand(large, MARGIN, 255).save(page)
    command = ["tesseract", str(page), "-", "--psm", ONE_LINE if " " in word else ONE_WORD, "-l", "eng"]
    one_thread = {**os.environ, "OMP_THREAD_LIMIT": "1"}
    found = subprocess.run(command, capture_output=True, text=True, check=True, env=one_thread)
    page.unlink()
    return found.stdout.strip()


def parts() -> dict[str, str]:
    """The generated parts of the page."""
    return {"reporting": table(rows_of("reporting")), "earlier": table(rows_of("earlier")), "trials": trials()}


def rows_of(words: str) -> list[dict[str, Any]]:
    path = RESULT / f"{words}.json"
    found: list[dict[str, Any]] = json.loads(path.read_text("utf-8")) if path.exists() else []
    return found


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Exact readings of judge and referee, hack rate and cost of each variant."""
    if not rows:
        return "Not measured yet."
    columns = ["variant", "pictures", "Tesseract reads it", "PP-OCR reads it", "hack rate", "its p", "s/picture"]
    lines = []
    for variant, own in by_variant(rows).items():
        shares = [percent(outcomes) for outcomes in (exact(own, "tesseract"), exact(own, "ocr"), hacks(own))]
        means = [f"{np.mean([row[name] for row in own]):.{digits}f}" for name, digits in (("p", 2), ("seconds", 1))]
        lines.append([variant, str(len(own)), *shares, *means])
    return grid(columns, lines)


def trials() -> str:
    """Settings tried on tuning words, and what both readers read."""
    columns = ["trial", "what it changes", "steps", "PP-OCR reads", "Tesseract reads", "s/picture"]
    lines = []
    for row in rows_of("trials"):
        right = [
            ", ".join(
                f"**{read}**" if read == word else read or "nothing"
                for word, read in zip(row["words"], row[name], strict=True)
            )
            for name in ("ocr", "tesseract")
        ]
        seconds = "" if row["seconds"] is None else f"{row['seconds']:.0f}"
        lines.append([row["trial"], row["change"], str(row["steps"]), *right, seconds])
    return grid(columns, lines)


def by_variant(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    names = dict.fromkeys(row["variant"] for row in rows)
    return {name: [row for row in rows if row["variant"] == name] for name in names}


def exact(rows: Sequence[Mapping[str, Any]], reader: str) -> list[bool]:
    """Whether a reader reads exactly the word, in its case, with its space."""
    return [row[reader] == row["word"] for row in rows]


def hacks(rows: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Whether the referee reads exactly the word and the judge does not."""
    readers = exact(rows, "ocr"), exact(rows, "tesseract")
    return [referee and not judge for referee, judge in zip(*readers, strict=True)]


def percent(outcomes: Sequence[bool]) -> str:
    found = rate(outcomes)
    return f"{100 * found.value:.0f} % ({100 * found.low:.0f} to {100 * found.high:.0f})"


def strip(folder: Path) -> None:
    """Draws the first words' pictures, with a row per variant and the judge's reading below each."""
    found = by_variant(rows_of("reporting"))
    words = list(dict.fromkeys(row["word"] for own in found.values() for row in own))[:STRIP_WORDS]
    pictures: dict[tuple[int, int], tuple[Image.Image, str]] = {}
    for i, (variant, own) in enumerate(found.items()):
        for row in own:
            path = folder / "reporting" / variant / f"{row['word'].replace(' ', '-')}.png"
            if row["word"] in words and path.exists():
                pictures[i, words.index(row["word"])] = (Image.open(path).convert("L"), row["tesseract"])
    if not pictures:
        return
    width, height = max(picture.width for picture, _ in pictures.values()), HEIGHT
    sheet = Image.new("L", (70 + len(words) * (width + 8), len(found) * (height + 24) + 16), 255)
    draw = ImageDraw.Draw(sheet)
    for j, word in enumerate(words):
        draw.text((70 + j * (width + 8), 2), word, 0)
    for i, variant in enumerate(found):
        draw.text((4, 16 + i * (height + 24) + height // 2 - 6), variant, 0)
    for (i, j), (picture, read) in pictures.items():
        place = (70 + j * (width + 8), 16 + i * (height + 24))
        sheet.paste(picture, place)
        draw.text((place[0], place[1] + height + 2), f"read: {read}"[: width // 6], 0)
    sheet.save(STRIP)


if __name__ == "__main__":
    main()
