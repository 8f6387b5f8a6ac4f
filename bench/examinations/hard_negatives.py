"""The task `hard-negatives`: a true caption of a picture against one that is false in a single thing.

Hsieh et al., "SugarCrepe: Fixing Hackable Benchmarks for Vision-Language Compositionality" (NeurIPS 2023): the share of
pictures whose true caption has the higher score, by kind of change. A tie is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import PurePosixPath

from refcore_bench.examinations.folder import DataFolder, Record
from refcore_bench.examinations.probe import hard_negatives
from refcore_bench.examinations.scenes import rendered
from refcore_bench.examinations.task import Asked, Item, Measure, Picture, Question, Row, Section, Task
from refcore_bench.statistics.intervals import rate

PLACES = ("val2017", "images", "coco/images/val2017", "data/images", ".", "data")
"""Where the pictures may lie."""


def read(folder: DataFolder, asked: Asked) -> Iterator[Item]:
    """Captions of SugarCrepe's files, one for each kind, an object or a list of objects in each."""
    names = folder.named("*.json")
    if not names:
        raise folder.missing(
            "a JSON file for each kind, such as swap_att.json, with the pictures in val2017/ or images/"
        )
    return iter([item for name in names for item in _file(folder, name, asked.count)])


def _file(folder: DataFolder, name: str, count: int | None) -> list[Item]:
    value = folder.json(name)
    if isinstance(value, Mapping):
        numbered: list[tuple[int | str, object]] = [(str(key), each) for key, each in value.items()]
    elif isinstance(value, list):
        numbered = list(enumerate(value, 1))
    else:
        numbered = [(1, value)]
    kind = PurePosixPath(name.replace("\\", "/")).stem
    return [_item(folder, kind, folder.record(name, row, each)) for row, each in numbered[:count]]


def _item(folder: DataFolder, kind: str, record: Record) -> Item:
    field = "filename" if "filename" in record else "image"
    path = folder.find_picture(record, field, record.text(field), PLACES)
    picture = Picture(path, partial(folder.levels, record, field, path))
    return _asked(
        {"kind": record.text("kind", kind), "id": str(record.row), "image": path},
        record.text("caption"),
        record.text("negative_caption"),
        picture,
    )


def _asked(facts: dict[str, str], caption: str, wrong: str, picture: Picture) -> Item:
    facts = {**facts, "caption": caption, "negative_caption": wrong}
    return Item(facts, {"score": Question(picture, caption), "negative_score": Question(picture, wrong)})


def draw(asked: Asked) -> list[Item]:
    """`scenes` scenes for each kind of wrong fact, as in the agreement with the truth of the task `playground`."""
    return [
        _asked(
            {"kind": kind, "id": f"{kind}-{number}"},
            pair.caption,
            pair.wrong,
            rendered(pair.scene, f"scene {number} of {kind}, seed {asked.seed}"),
        )
        for kind, pairs in hard_negatives(asked.scenes, asked.seed).items()
        for number, pair in enumerate(pairs)
    ]


def measure(rows: Sequence[Row]) -> list[Section]:
    """Accuracy of all rows, and by kind."""
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    right = {kind: [row["score"] > row["negative_score"] for row in rows if row["kind"] == kind] for kind in kinds}
    ties = sum(row["score"] == row["negative_score"] for row in rows)
    measures = [Measure("all", rate([each for own in right.values() for each in own]), 0.5)]
    measures += [Measure(kind, rate(own), 0.5) for kind, own in right.items()]
    note = f"Equal scores: {ties}; an equal score is wrong, as published." if ties else ""
    return [Section("Accuracy on hard negatives, by kind", measures, "captions", note=note)]


TASK = Task(
    name="hard-negatives",
    about="A true caption against one that is false in a single thing: which has the higher score?",
    origin="SugarCrepe is github.com/RAIVNLab/sugar-crepe, data/*.json (MIT, by its LICENSE), with the pictures of "
    "COCO's val2017 (cocodataset.org), whose own licences were not read here.",
    read=read,
    measure=measure,
    draw=draw,
)
