"""The task `winoground`: two pictures and two captions of the same words, to be told apart both ways.

Thrush et al., "Winoground: Probing Vision and Language Models for Visio-Linguistic Compositionality" (CVPR 2022), eqs.
1 to 3. All comparisons are strict: a tie is wrong.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from refcore_bench.examinations.folder import DataFolder, Record, decoded, part
from refcore_bench.examinations.scenes import rendered
from refcore_bench.examinations.task import Asked, Item, Measure, Picture, Question, Row, Section, Task
from refcore_bench.statistics.intervals import rate
from refcore_playground.draw import draw_scene
from refcore_playground.facts import satisfies
from refcore_playground.grammar import Phrase, Request, write
from refcore_playground.world import COLOURS, RELATIONS, SHAPES, TEXTURES, Scene

EXAMPLES, PARQUET = "examples.jsonl", "*.parquet"
PLACES = ("images", "data/images", ".", "data")
"""Where the pictures may lie."""
TAGS = ("collapsed_tag", "tag")
"""Fields that say what kind of pair it is, the first that a row has."""
SWAPS = ("relation", "colour", "texture", "size")
"""What changes places between the two things of a drawn pair."""
TEXT, IMAGE, GROUP = 1 / 4, 1 / 4, 1 / 6
"""Chance: of 4 independent scores, two given pairs are in the right order, or both right ones are above both wrong."""
AT_ONCE = 32
"""Rows of a Parquet file that are in memory, with their pictures."""


def right_of(row: Row) -> tuple[bool, bool, bool]:
    """Whether the captions (text), the pictures (image), and both are told apart, from the four scores of a row.

    >>> right_of({"c0_i0": 0.9, "c1_i0": 0.1, "c0_i1": 0.95, "c1_i1": 0.99})
    (True, False, False)
    """
    text = row["c0_i0"] > row["c1_i0"] and row["c1_i1"] > row["c0_i1"]
    image = row["c0_i0"] > row["c0_i1"] and row["c1_i1"] > row["c1_i0"]
    return text, image, text and image


def read(folder: DataFolder, asked: Asked) -> Iterator[Item]:
    """Pairs of the public release: examples.jsonl with a folder of pictures, or Parquet files that hold them."""
    listed = folder.named(EXAMPLES)
    if listed:
        return iter(_listed(folder, listed[0], asked.count))
    tables = folder.named(PARQUET)
    if not tables:
        raise folder.missing(f"{EXAMPLES} with the folder images/, or data/*.parquet")
    for name in tables:
        folder.table(name, ("caption_0", "caption_1", "image_0", "image_1"))
    return _of_tables(folder, tables, asked.count)


def _listed(folder: DataFolder, name: str, count: int | None) -> list[Item]:
    found: list[Item] = []
    for record in folder.json_lines(name)[:count]:
        pictures = []
        for field in ("image_0", "image_1"):
            path = folder.find_picture(record, field, record.text(field), PLACES)
            pictures.append(Picture(path, partial(folder.levels, record, field, path)))
        found.append(_item(record, len(found), pictures))
    return found


def _of_tables(folder: DataFolder, names: Sequence[str], count: int | None) -> Iterator[Item]:
    number = 0
    for name in names:
        frame = folder.table(name, ())
        first = 0
        while rows := part(frame, first, AT_ONCE, str(folder.path / name)):
            for values in rows:
                if number == count:
                    return
                record = folder.record(name, first + 1, values)
                pictures = [
                    Picture(f"{name}, row {first + 1}, {field}", partial(decoded, record, field, values[field]))
                    for field in ("image_0", "image_1")
                ]
                yield _item(record, number, pictures)
                first, number = first + 1, number + 1


def _item(record: Record, number: int, pictures: Sequence[Picture]) -> Item:
    captions = [record.text(f"caption_{index}") for index in (0, 1)]
    kind = next((str(record[tag]) for tag in TAGS if record.get(tag)), "pair")
    facts = {
        "id": str(record.get("id", number)),
        "kind": kind,
        "image_0": pictures[0].name,
        "image_1": pictures[1].name,
    }
    return _asked({**facts, "caption_0": captions[0], "caption_1": captions[1]}, captions, pictures)


def _asked(facts: dict[str, str], captions: Sequence[str], pictures: Sequence[Picture]) -> Item:
    questions = {f"c{c}_i{i}": Question(pictures[i], captions[c]) for i in (0, 1) for c in (0, 1)}
    return Item(facts, questions)


def draw(asked: Asked) -> list[Item]:
    """`scenes` pairs for each of `SWAPS`, each of two scenes drawn apart, half of them with unseen combinations."""
    found: list[Item] = []
    for swap in SWAPS:
        rng = random.Random(f"winoground-{asked.seed}-{swap}")
        for number in range(asked.scenes):
            requests, scenes = _drawn(swap, number % 2 == 1, rng)
            captions = [write(request) for request in requests]
            split = "unseen" if number % 2 else "seen"
            names = [f"scene {index} of pair {number} of {swap}, seed {asked.seed}" for index in (0, 1)]
            facts = {"id": f"{swap}-{number}", "kind": swap, "split": split}
            pictures = [rendered(scene, name) for scene, name in zip(scenes, names, strict=True)]
            found.append(_asked({**facts, "caption_0": captions[0], "caption_1": captions[1]}, captions, pictures))
    return found


def _drawn(swap: str, unseen: bool, rng: random.Random) -> tuple[tuple[Request, Request], list[Scene]]:
    """Two requests of the same words, and a scene of each that is false of the other."""
    while True:
        (a, b) = requests = swapped(swap, rng)
        if (a.unseen or b.unseen) != unseen:
            continue
        scenes = [draw_scene(request, rng) for request in requests]
        if not satisfies(b, scenes[0].things) and not satisfies(a, scenes[1].things):
            return requests, scenes


def swapped(swap: str, rng: random.Random) -> tuple[Request, Request]:
    """Two requests with the same words, in which two things have changed places, or one of their attributes has.

    >>> first, second = swapped("colour", random.Random(0))
    >>> sorted(write(first).split()) == sorted(write(second).split())
    True
    """
    colours, shapes = rng.sample(tuple(COLOURS), 2), rng.sample(SHAPES, 2)
    first, second = (Phrase(colour, shape) for colour, shape in zip(colours, shapes, strict=True))
    if swap == "relation":
        relation = rng.choice(RELATIONS)
        return Request((first, second), relation), Request((second, first), relation)
    if swap == "texture":
        textures = rng.sample(TEXTURES, 2)
        first, second = replace(first, texture=textures[0]), replace(second, texture=textures[1])
    elif swap == "size":
        first, second = replace(first, size="small"), replace(second, size="large")
    other = (
        replace(first, **{swap: getattr(second, swap)}),
        replace(second, **{swap: getattr(first, swap)}),
    )
    return Request((first, second)), Request(other)


def measure(rows: Sequence[Row]) -> list[Section]:
    """Text, image and group score of all pairs, and the group score by kind."""
    text, image, group = zip(*(right_of(row) for row in rows), strict=True)
    ties = sum(len({row[name] for name in ("c0_i0", "c1_i0", "c0_i1", "c1_i1")}) < 4 for row in rows)
    note = f"Pairs with two equal scores: {ties}; an equal score is wrong, as published." if ties else ""
    scores = [
        Measure("text score", rate(text), TEXT),
        Measure("image score", rate(image), IMAGE),
        Measure("group score", rate(group), GROUP),
    ]
    found = [Section("Winoground", scores, "pairs", note=note)]
    for field in ("kind", "split"):
        kinds = list(dict.fromkeys(row[field] for row in rows if field in row))
        if len(kinds) > 1:
            by_kind = []
            for kind in kinds:
                own = [right_of(row) for row in rows if row[field] == kind]
                for index, (name, chance) in enumerate((("text", TEXT), ("image", IMAGE), ("group", GROUP))):
                    by_kind.append(Measure(f"{kind}, {name}", rate([each[index] for each in own]), chance))
            found.append(Section(f"Winoground, by {field}", by_kind, "pairs"))
    return found


TASK = Task(
    name="winoground",
    about="Two pictures and two captions of the same words: which belongs to which?",
    origin="Winoground is facebook/winoground on the Hugging Face hub, 400 pairs; its card asks for consent to use for "
    "research alone. The licence itself, among its files, was not read here.",
    read=read,
    measure=measure,
    draw=draw,
)
