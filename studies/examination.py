"""The study of docs/results/examination.md: what each shipped referee was examined on here, and what came of it.

    python studies/examination.py              # the page, from studies/rows/examination
    python studies/examination.py --measure    # first examines what the rows lack

The referees of the embedded world are asked about scenes drawn from seed 2041: pairs of captions of the same words,
hard negatives, and captions that leave an attribute open. ImageNet's networks see photographs of installed packages,
and the readers words in three fonts. All others have no weights here: the page says so, and how they are examined.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from refcore_bench.examinations.probe import auc, auc_interval, run_of
from refcore_bench.examinations.task import Asked, Item, Picture, Question, Row, Section
from refcore_bench.photographs import photographs
from refcore_bench.scoring import pixels
from refcore_bench.statistics.intervals import Estimate, mean, rate
from refcore_bench.table import grid
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
SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "clip": {"clip": {}},
    "blip2": {"blip2": {}},
    "owlv2": {"owlv2, as in the presets": {"parser": "grammar", "total": 1.0}, "owlv2, the caption whole": {}},
}
"""Referee -> name -> what is set beside the checkpoint. The grammar reads no caption that leaves an attribute open."""
IMAGENET, OCR = "imagenet", "ocr"
FONTS = ("DejaVuSans", "DejaVuSerif", "DejaVuSansMono")
"""Fonts that matplotlib brings."""
HEIGHT, WIDTH, MARGIN, POINTS = 48, 336, 8, 30
"""Size of a picture of a word that fills a reader's view, margin at either side of one that is as wide as its word, and
the font's size, in pixels."""
VIEWS = {"ppocr": 336, "easyocr": 448}
"""Width of the views, which are 48 and 64 pixels high: the shape of HEIGHT x WIDTH."""
SHOWN = ("filled", "padded")
"""The picture has the shape of the view, or is as wide as its word, so that grey bars fill the view."""
CHANGES = ("replaced", "swapped", "dropped", "added")
"""What happens to a letter, or two, of the wrong word."""
LETTERS = "abcdefghijklmnopqrstuvwxyz"
PICKS, PAIRS, NEGATIVES = "--task pick-a-pic", "--task winoground", "--task hard-negatives"
ABSENT: dict[str, tuple[str, str]] = {
    "siglip": (PAIRS, "model=google/siglip2-base-patch16-224"),
    "hf-clip": (PICKS, "model=yuvalkirstain/PickScore_v1"),
    "hpsv2": ("--task hpdv2", "model=hpsv2"),
    "image-reward": (PICKS, "model=image-reward"),
    "aesthetic": (PICKS, "head=aesthetic-head.safetensors"),
    "vqa": (PAIRS, "model=Salesforce/blip-vqa-base"),
    "classifier": (NEGATIVES, "model=resnet50.a1_in1k"),
    "onnx": (NEGATIVES, "file=network.onnx"),
    "image": ("", ""),
    "image-layers": ("", ""),
}
"""Referee -> the task that examines it, and the setting that names its weights; empty: no task here asks about it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="examine what the rows lack")
    if parser.parse_args().measure:
        measure()
    fill(PAGE, Path(__file__).name, parts())
    print(f"wrote {PAGE.relative_to(DOCS.parent)}")


def measure() -> None:
    """Asks every referee whose rows are missing, and writes them.

    Raises:
        SystemExit: the other rows are of other checkpoints.
    """
    torch.set_num_threads(1)
    RESULT.mkdir(parents=True, exist_ok=True)
    names = [f"playground:{name}" for name in EMBEDDED]
    hashes = {name: checkpoints.digest(Path(checkpoints.resolve(name))) for name in names}
    path = RESULT / FACTS
    facts = json.loads(path.read_text("utf-8")) if path.exists() else {"checkpoints": hashes, "cpu_seconds": {}}
    if facts["checkpoints"] != hashes:
        raise SystemExit(f"{RESULT} is of other checkpoints; remove it to examine them all anew")
    for name, ask in questionings().items():
        if (RESULT / f"{name}.parquet").exists():
            continue
        began = time.process_time()
        keep(name, list(ask()))
        facts["cpu_seconds"][name] = round(time.process_time() - began, 1)
        print(name, facts["cpu_seconds"][name], flush=True)
        facts |= {"seed": SEED, "versions": rundir.versions()}
        rundir.write_text(path, rundir.to_json(facts, indent=1) + "\n")


def questionings() -> dict[str, Callable[[], Iterable[Row]]]:
    """Name of the rows -> what makes them."""
    found: dict[str, Callable[[], Iterable[Row]]] = {
        file_of(title, task): partial(answers, name, settings, task)
        for name, several in SETTINGS.items()
        for title, settings in several.items()
        for task in tasks_of(settings)
    }
    return {**found, IMAGENET: seen, OCR: written}


def tasks_of(settings: Mapping[str, Any]) -> list[str]:
    """The tasks whose captions a referee with these settings reads."""
    return [task for task in SCENES if not ("parser" in settings and task == "bias")]


def file_of(title: str, task: str) -> str:
    """Name of the rows of a referee and a task.

    >>> file_of("owlv2, the caption whole", "bias")
    'owlv2-whole-bias'
    """
    return "-".join([title.partition(",")[0], *(["whole"] if title.endswith("whole") else []), task])


def answers(name: str, settings: Mapping[str, Any], task: str) -> Iterator[Row]:
    """The rows of a referee of the embedded world."""
    drawn = examinations.get(task).draw
    assert drawn is not None
    return Examinee(config_of(name, model=f"playground:{name}", **settings)).rows(drawn(Asked(SCENES[task], SEED)))


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
        wrong = changed(word, kind, rng)
        for shown in SHOWN:
            picture = Picture(f"{word} in {font}, {shown}", partial(rendered, word, font, shown))
            facts = {"shown": shown, "kind": kind, "font": font, "caption": word, "negative_caption": wrong}
            items.append(Item(facts, {"score": Question(picture, word), "negative_score": Question(picture, wrong)}))
    for reader in get_args(Weights):
        config = config_of(OCR, weights=reader, width=VIEWS[reader])
        panel = panel_of(config, words)
        (judge,) = panel.referees
        for item, row in zip(items, Examinee(config).rows(items), strict=True):
            picture = pixels([item.questions["score"].picture.read()])
            ((read,),) = panel.ask(judge, picture, lambda referee, shown, _: referee.guess(shown), [0])
            yield {"reader": reader, **row, "read": read}


def rendered(word: str, font: str, shown: str) -> Levels:
    """A word in black on white, one line, in the middle of the picture."""
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf"
    face = ImageFont.truetype(str(path), POINTS)
    width = WIDTH if shown == "filled" else round(face.getlength(word)) + 2 * MARGIN
    image = Image.new("RGB", (width, HEIGHT), "white")
    ImageDraw.Draw(image).text((width / 2, HEIGHT / 2), word, "black", font=face, anchor="mm")
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
    for name, title in ((name, title) for name, several in SETTINGS.items() for title in several):
        scores = {each.name: each.estimate for each in sections(title, "winoground")[0].measures}
        negatives = sections(title, "hard-negatives")[0].measures[0].estimate
        rows = kept(file_of(title, "hard-negatives"))
        area = auc([-row["score"] for row in rows], [-row["negative_score"] for row in rows])
        lines.append(
            [
                f"[`{name}`](#{name}){title.removeprefix(name)}",
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
    (first, *_) = titles = list(SETTINGS[name])
    pairs, negatives = kept(file_of(first, "winoground")), kept(file_of(first, "hard-negatives"))
    lines = [
        f"On the checkpoint `playground:{name}`, with scores in the unit {registry.get('referees', name).score_unit}: "
        f"{len(pairs)} pairs of the task `winoground`, {len(negatives)} captions of `hard-negatives`, "
        f"{SCENES['bias']} scenes of `bias`.",
    ]
    for title, settings in SETTINGS[name].items():
        if len(titles) > 1:
            lines += ["", f"**{title.partition(', ')[2].capitalize()}**" + told(settings)]
        lines += ["", two_ways(sections(title, "winoground")), ""]
        negative = sections(title, "hard-negatives")[0].measures
        columns = ["wrong fact", "prefers the true caption", "captions"]
        lines.append(grid(columns, [[each.name, share(each.estimate), str(each.estimate.n)] for each in negative]))
        if "bias" in tasks_of(settings):
            columns = ["attribute", "most", "least", "largest minus smallest, in a scene"]
            lines += ["", grid(columns, [effect(each) for each in sections(title, "bias")])]
    return "\n".join(lines)


def told(settings: Mapping[str, Any]) -> str:
    """Settings as a config has them."""
    return f" (`{{{', '.join(f'{field}: {value}' for field, value in settings.items())}}}`)" if settings else ""


def sections(title: str, task: str) -> list[Section]:
    return examinations.get(task).measure(kept(file_of(title, task)))


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
    asked = list(dict.fromkeys((row["reader"], row["shown"]) for row in rows))
    columns = ["", *(f"`{reader}`, {shown}" for reader, shown in asked)]
    own = {each: [row for row in rows if (row["reader"], row["shown"]) == each] for each in asked}
    lines = [["reads it exactly", *(share(rate([exact(row) for row in each])) for each in own.values())]]
    for font in FONTS:
        by_font = [[exact(row) for row in each if row["font"] == font] for each in own.values()]
        lines.append([f"exactly, in {font}", *(share(rate(each)) for each in by_font)])
    measured = [hard_negatives.measure(each)[0].measures for each in own.values()]
    for several in zip(*measured, strict=True):
        what = "any letter" if several[0].name == "all" else f"a letter {several[0].name}"
        lines.append([f"prefers it to the word with {what}", *(share(each.estimate) for each in several)])
    pictures = len(rows) // len(asked)
    return (
        f"On {pictures} pictures: the 60 reporting words and pairs of `studies/lettering-words.yaml`, black on white "
        "in three fonts, against the same word with a letter replaced, dropped or added, or two swapped. *Filled*: the "
        "picture has the shape of the view. *Padded*: it is as wide as its word, and the referee fills the view with "
        f"grey.\n\n{grid(columns, lines)}"
    )


def exact(row: Row) -> bool:
    return bool(row["read"].strip() == row["caption"])


def absent(name: str) -> str:
    """That a referee was not examined, and the command that does it."""
    task, setting = ABSENT[name]
    if not task:
        return "Not examined. It judges by a reference picture, and no task here asks about that."
    return (
        "Not examined: there are no weights of it here.\n\n<!-- not-run: needs weights and data -->\n"
        f"```sh\nrefcore probe referee {name} {task} --data FOLDER --set referees.0.config.{setting}\n```"
    )


def share(found: Estimate) -> str:
    """`value (interval)`."""
    return f"{100 * found.value:.0f} % ({100 * found.low:.0f} to {100 * found.high:.0f})"


def score(found: Estimate, sign: str = "+") -> str:
    return f"{found.value:{sign}.3f} ({found.low:{sign}.3f} to {found.high:{sign}.3f})"


if __name__ == "__main__":
    main()
