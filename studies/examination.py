"""The study of docs/results/examination.md: what each shipped referee was examined on here, and what came of it.

    python studies/examination.py              # the page, from studies/rows/examination
    python studies/examination.py --measure    # first examines every referee that has a checkpoint here

The referees of the embedded world are asked about scenes drawn from seed 2041: pairs of captions of the same words,
hard negatives, and captions that leave an attribute open. ImageNet's networks see photographs of installed packages, and the
readers words in three fonts. All others have no weights here: the page says so, and which command examines them.
"""

from __future__ import annotations

import argparse
import io
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import polars
import torch
import yaml
from page import DOCS, ROWS, fill
from PIL import Image, ImageDraw, ImageFont

from refcore import checkpoints, registry
from refcore.config.run import RunConfig
from refcore.engine.build import resolve
from refcore.engine.loading import load_panel
from refcore.engine.panel import Panel
from refcore.images import Levels
from refcore.runs import rundir
from refcore_bench import examinations
from refcore_bench.examinations import hard_negatives
from refcore_bench.examinations.examinee import Examinee
from refcore_bench.examinations.task import Asked, Item, Picture, Question, Row, Section
from refcore_bench.intervals import Estimate, mean, rate
from refcore_bench.photographs import photographs
from refcore_bench.probe import auc, auc_interval, run_of
from refcore_bench.scoring import pixels
from refcore_bench.tables import grid
from refcore_plugins.models.imagenet_networks import Network
from refcore_plugins.models.text_recognisers import Weights

RESULT, PAGE, FACTS = ROWS / "examination", DOCS / "results" / "examination.md", "facts.json"
SEED = 2041
"""Of all scenes. Training draws from the generators random.Random(0) to random.Random(5), and these are seeded by words
with this number ("bias-2041"), so no scene is from a training's stream; and nothing was chosen on them."""
SCENES = {"winoground": 48, "hard-negatives": 48, "bias": 64}
"""Scenes of each kind; of the bias task in all: each of 8 shapes in each of 8 colours."""
EMBEDDED = ("clip", "blip2", "owlv2")
"""Referees with a checkpoint of the embedded world, `playground:NAME`."""
IMAGENET, OCR = "imagenet", "ocr"
FONTS = ("DejaVuSans", "DejaVuSerif", "DejaVuSansMono")
"""Fonts that matplotlib brings."""
HEIGHT, MARGIN, POINTS = 48, 8, 30
"""Height of a picture of a word, its margin at either side, and the font's size, in pixels."""
CHANGES = ("replaced", "swapped", "dropped", "added")
"""What happens to a letter, or two, of the wrong word."""
LETTERS = "abcdefghijklmnopqrstuvwxyz"
ABSENT: dict[str, tuple[str, str]] = {
    "siglip": ("--task winoground --data FOLDER", "google/siglip2-base-patch16-224"),
    "hf-clip": ("--task pick-a-pic --data FOLDER", "yuvalkirstain/PickScore_v1"),
    "hpsv2": ("--task hpdv2 --data FOLDER", "the converted checkpoint of HPS v2"),
    "image-reward": ("--task pick-a-pic --data FOLDER", "the converted checkpoint of ImageReward"),
    "aesthetic": ("--task pick-a-pic --data FOLDER", "the converted head of the aesthetic predictor"),
    "vqa": ("--task winoground --data FOLDER", "a model that answers questions, such as CLIP-FlanT5"),
    "classifier": ("--task bias --data FOLDER --words FILE", "a classifier of timm"),
    "onnx": ("--task bias --data FOLDER --words FILE", "an ONNX file"),
    "image": ("", "a reference picture instead of captions: no task here asks about that"),
    "image-layers": ("", "a reference picture instead of captions: no task here asks about that"),
}
"""Referee -> the command that examines it, and what it needs for that."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="examine every referee that has a checkpoint here")
    if parser.parse_args().measure:
        measure()
    fill(PAGE, Path(__file__).name, parts())
    print(f"wrote {PAGE.relative_to(DOCS.parent)}")


def measure() -> None:
    """Asks every referee, and writes its rows."""
    torch.set_num_threads(1)
    RESULT.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, float] = {}
    hashes: dict[str, str] = {}
    for name in EMBEDDED:
        examinee = Examinee(config_of(name, model=f"playground:{name}"))
        for task in SCENES:
            began = time.process_time()
            drawn = examinations.get(task).draw
            assert drawn is not None
            keep(f"{name}-{task}", list(examinee.rows(drawn(Asked(SCENES[task], SEED)))))
            seconds[f"{name}-{task}"] = round(time.process_time() - began, 1)
            print(name, task, seconds[f"{name}-{task}"], flush=True)
        hashes[f"playground:{name}"] = checkpoints.digest(Path(checkpoints.resolve(f"playground:{name}")))
    for kind, ask in ((IMAGENET, seen), (OCR, written)):
        began = time.process_time()
        keep(kind, list(ask()))
        seconds[kind] = round(time.process_time() - began, 1)
        print(kind, seconds[kind], flush=True)
    facts = {"seed": SEED, "cpu_seconds": seconds, "checkpoints": hashes, "versions": rundir.versions()}
    rundir.write_text(RESULT / FACTS, rundir.to_json(facts, indent=1) + "\n")


def config_of(name: str, **settings: Any) -> RunConfig:
    """The resolved run of one referee."""
    config = run_of(name, [f"referees.0.config.{field}={value}" for field, value in settings.items()])
    return resolve(RunConfig.from_settings({**config.settings(), "prompts": ["-"], "seeds": [0]}))


def keep(name: str, rows: Sequence[Row]) -> None:
    """Writes rows, with scores in single precision, as they are computed."""
    frame = polars.DataFrame([dict(row) for row in rows], infer_schema_length=None)
    buffer = io.BytesIO()
    frame.with_columns(polars.col(polars.Float64).cast(polars.Float32)).write_parquet(buffer, compression="zstd")
    rundir.write(RESULT / f"{name}.parquet", buffer.getvalue())


def kept(name: str) -> list[dict[str, Any]]:
    return polars.read_parquet(RESULT / f"{name}.parquet").to_dicts()


def panel_of(config: RunConfig, prompts: Sequence[str]) -> Panel:
    """The referee of a config with some prompts read."""
    return load_panel(replace(config.panel, samples=[(prompt, 0) for prompt in prompts], chunk=1))


def seen() -> Iterator[dict[str, Any]]:
    """For each network and photograph the rank and probability of its class, and the network's first guess."""
    shown = photographs()
    for network in get_args(Network):
        panel = panel_of(config_of(IMAGENET, weights=network), [photograph.prompt for photograph in shown])
        (judge,) = panel.referees
        for number, photograph in enumerate(shown):

            def question(referee: Any, picture: Any, conditioning: Any) -> tuple[int, str, float]:
                score = referee.score(picture, conditioning).item()
                return int(referee.rank(picture, conditioning)), referee.guess(picture)[0], score

            ((rank, first, score),) = panel.ask(judge, photograph.square(), question, [number])
            yield {
                "network": network, "photograph": photograph.name, "class": photograph.prompt, "rank": rank,
                "first": first, "score": score,
            }  # fmt: skip


def written() -> Iterator[dict[str, Any]]:
    """For each reader and picture of a word what it reads, and its scores of the word and of a wrong one."""
    words: list[str] = yaml.safe_load(Path(__file__).with_name("lettering-words.yaml").read_text("utf-8"))["reporting"]
    rng = random.Random(f"letters-{SEED}")
    items = []
    for number, (word, font) in enumerate((word, font) for word in words for font in FONTS):
        kind = CHANGES[number % len(CHANGES)]
        picture = Picture(f"{word} in {font}", partial(rendered, word, font))
        wrong = changed(word, kind, rng)
        facts = {"kind": kind, "font": font, "caption": word, "negative_caption": wrong}
        items.append(Item(facts, {"score": Question(picture, word), "negative_score": Question(picture, wrong)}))
    for reader in get_args(Weights):
        config = config_of(OCR, weights=reader)
        panel = panel_of(config, words)
        (judge,) = panel.referees
        for item, row in zip(items, Examinee(config).rows(items), strict=True):
            picture = pixels([item.questions["score"].picture.read()])
            ((read,),) = panel.ask(judge, picture, lambda referee, shown, _: referee.guess(shown), [0])
            yield {"reader": reader, **row, "read": read}


def rendered(word: str, font: str) -> Levels:
    """A word in black on white, one line."""
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf"
    face = ImageFont.truetype(str(path), POINTS)
    width = round(face.getlength(word)) + 2 * MARGIN
    image = Image.new("RGB", (width, HEIGHT), "white")
    ImageDraw.Draw(image).text((MARGIN, HEIGHT / 2), word, "black", font=face, anchor="lm")
    return np.asarray(image)


def changed(word: str, kind: str, rng: random.Random) -> str:
    """The word with one change of a kind; another word than before.

    >>> changed("cat", "dropped", random.Random(0)) in ("at", "ct", "ca")
    True
    """
    while True:
        at = rng.randrange(len(word))
        letter = rng.choice(LETTERS)
        wrong = {
            "replaced": word[:at] + letter + word[at + 1 :],
            "swapped": word[:at] + word[at + 1 : at + 2] + word[at : at + 1] + word[at + 2 :],
            "dropped": word[:at] + word[at + 1 :],
            "added": word[:at] + letter + word[at:],
        }[kind]
        if wrong.split() != word.split() and len(wrong.split()) == len(word.split()):
            return wrong


def parts() -> dict[str, str]:
    """The generated parts of the page."""
    return {"summary": summary(), "referees": "\n".join(section(name) for name in registry_names())}


def registry_names() -> list[str]:
    """The shipped referees: those examined here first."""
    names = [name for name in registry.names("referees") if registry.entry("referees", name).distribution == "refcore"]
    first = (*EMBEDDED, IMAGENET, OCR)
    return [*first, *sorted(set(names) - set(first))]


def summary() -> str:
    """One line for each referee of the embedded world."""
    columns = ["referee", "group score", "text score", "image score", "hard negatives", "their ROC AUC"]
    lines = []
    for name in EMBEDDED:
        scores = {each.name: each.estimate for each in sections(name, "winoground")[0].measures}
        negatives = sections(name, "hard-negatives")[0].measures[0].estimate
        rows = kept(f"{name}-hard-negatives")
        area = auc([-row["score"] for row in rows], [-row["negative_score"] for row in rows])
        lines.append(
            [
                f"[`{name}`](#{name})",
                *(share(scores[f"{kind} score"]) for kind in ("group", "text", "image")),
                share(negatives),
                f"{area:.3f} ± {auc_interval(area, len(rows)):.3f}",
            ]
        )
    lines.append(["*chance*", "16.7 %", "25 %", "25 %", "50 %", "0.5"])
    return grid(columns, lines)


def section(name: str) -> str:
    """A referee's section of the page."""
    makers = {**dict.fromkeys(EMBEDDED, embedded), IMAGENET: of_photographs, OCR: of_words}
    return f"## `{name}`\n\n{makers.get(name, absent)(name)}\n"


def embedded(name: str) -> str:
    """Pairs by kind, hard negatives by kind, and what the captions leave open."""
    pairs, negatives = kept(f"{name}-winoground"), kept(f"{name}-hard-negatives")
    lines = [
        f"On the checkpoint `playground:{name}`, scores in the unit "
        f"{registry.get('referees', name).score_unit}: {len(pairs)} pairs of the task `winoground`, "
        f"{len(negatives)} captions of `hard-negatives`, {SCENES['bias']} scenes of `bias`.",
        "",
        two_ways(sections(name, "winoground")),
        "",
        grid(
            ["wrong fact", "prefers the true caption", "captions"],
            [
                [each.name, share(each.estimate), str(each.estimate.n)]
                for each in sections(name, "hard-negatives")[0].measures
            ],
        ),
        "",
        grid(
            ["attribute", "most", "least", "largest minus smallest, in a scene"],
            [effect(each) for each in sections(name, "bias")],
        ),
    ]
    return "\n".join(lines)


def sections(name: str, task: str) -> list[Section]:
    return examinations.get(task).measure(kept(f"{name}-{task}"))


def two_ways(found: Sequence[Section]) -> str:
    """Winoground's scores by what changes places, and by split."""
    lines = []
    for each in found[1:]:
        by_kind: dict[str, dict[str, Estimate]] = {}
        for measure in each.measures:
            kind, _, score = measure.name.rpartition(", ")
            by_kind.setdefault(kind, {})[score] = measure.estimate
        for kind, scores in by_kind.items():
            lines.append(
                [kind, *(share(scores[score]) for score in ("group", "text", "image")), str(scores["group"].n)]
            )
    return grid(["what changes places, split", "group score", "text score", "image score", "pairs"], lines)


def effect(found: Section) -> list[str]:
    """The values with the largest and the smallest effect, and how far the values are apart in a scene."""
    *values, spread = found.measures
    title = found.title.removeprefix("What ").replace(" does to the score", "")
    shown = [f"{each.name} {score(each.estimate)}" for each in (values[0], values[-1], spread)]
    return [title, shown[0], shown[1], score(spread.estimate)]


def of_photographs(name: str) -> str:
    """How often a photograph's class is first, or among the first five, and its mean probability."""
    rows = kept(name)
    columns = ["network", "class first", "among the first five", "its mean probability", "photographs"]
    lines = []
    for network in dict.fromkeys(row["network"] for row in rows):
        own = [row for row in rows if row["network"] == network]
        lines.append(
            [
                f"`weights: {network}`",
                share(rate([row["rank"] == 1 for row in own])),
                share(rate([row["rank"] <= 5 for row in own])),
                score(mean([row["score"] for row in own]), sign=""),
                str(len(own)),
            ]
        )
    several = len({row["photograph"] for row in rows})
    return (
        f"With its defaults (views of 160 pixels), on the middle squares of {several} photographs from installed "
        f"packages (`bench/photographs.py`).\n\n{grid(columns, lines)}"
    )


def of_words(name: str) -> str:
    """How often a reader reads a word exactly, and scores it above the same word with a letter wrong."""
    rows = kept(name)
    readers = list(dict.fromkeys(row["reader"] for row in rows))
    columns = ["", *(f"`weights: {reader}`" for reader in readers)]
    own = {reader: [row for row in rows if row["reader"] == reader] for reader in readers}
    lines = [["reads it exactly", *(share(rate([exact(row) for row in each])) for each in own.values())]]
    for font in FONTS:
        by_font = [[exact(row) for row in each if row["font"] == font] for each in own.values()]
        lines.append([f"exactly, in {font}", *(share(rate(each)) for each in by_font)])
    measured = [hard_negatives.measure(each)[0].measures for each in own.values()]
    for several in zip(*measured, strict=True):
        what = "any letter" if several[0].name == "all" else f"a letter {several[0].name}"
        lines.append([f"prefers it to the word with {what}", *(share(each.estimate) for each in several)])
    pictures = len(rows) // len(readers)
    return (
        f"On {pictures} pictures: the 60 reporting words and pairs of `studies/lettering-words.yaml`, black on white "
        f"in three fonts, {HEIGHT} pixels high, against the same word with one letter replaced, dropped or added, or two "
        f"swapped.\n\n{grid(columns, lines)}"
    )


def exact(row: Row) -> bool:
    return bool(row["read"].strip() == row["caption"])


def absent(name: str) -> str:
    """That a referee was not examined, and how it is."""
    command, needs = ABSENT[name]
    if not command:
        return f"Not examined. It takes {needs}."
    return (
        f"Not examined: there are no weights of it here. With {needs}:\n\n<!-- not-run: needs weights and data -->\n"
        f"```sh\nrefcore probe referee {name} {command}\n```"
    )


def share(found: Estimate) -> str:
    """`value (interval)`."""
    return f"{100 * found.value:.0f} % ({100 * found.low:.0f} to {100 * found.high:.0f})"


def score(found: Estimate, sign: str = "+") -> str:
    return f"{found.value:{sign}.3f} ({found.low:{sign}.3f} to {found.high:{sign}.3f})"


if __name__ == "__main__":
    main()
