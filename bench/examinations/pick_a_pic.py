"""The task `pick-a-pic`: which of two pictures of a prompt people have picked, or that they could not tell.

Kirstain et al., "Pick-a-Pic: An Open Dataset of User Preferences for Text-to-Image Generation" (NeurIPS 2023), and the
authors' evaluation: a point where the prediction is what people say, half a point where one of the two is a tie and the
other is not. A tie is predicted where the scores differ by at most a threshold, the best of eleven on the validation
rows. The authors take thresholds of the probabilities' difference, tanh(scale * difference / 2) for a CLIP's logit
scale; since that rises with the scores' difference, here they are its quantiles on those rows, in any unit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import PurePosixPath

import numpy as np

from refcore_bench.examinations.folder import DataFolder, decoded, part
from refcore_bench.examinations.task import Asked, Item, Measure, Picture, Question, Row, Section, Task
from refcore_bench.statistics.intervals import Estimate, ratio

COLUMNS = ("caption", "jpg_0", "jpg_1", "label_0", "label_1")
LABELS = ((1.0, 0.0), (0.0, 1.0), (0.5, 0.5))
"""The first is picked, the second is, neither."""
VALIDATION, TEST, UNIQUE = "validation", "test", "_unique"
"""Beginnings of the files' names, and the end of the splits with one row for each prompt, which are preferred."""
THRESHOLDS = 11
AT_ONCE = 32
"""Rows of a file that are in memory, with their pictures."""


def read(folder: DataFolder, asked: Asked) -> Iterator[Item]:
    """Rows of the release's Parquet files, without those that nobody has labelled.

    Of a folder with the splits for validation and test only these are read, and of them those with one row a prompt.
    """
    names = chosen(folder.named("*.parquet"))
    if not names:
        raise folder.missing("the Parquet files of the release, such as data/test_unique-00000-of-00001.parquet")
    for name in names:
        _check(folder, name)
    return _rows(folder, names, asked.count)


def chosen(names: Sequence[str]) -> list[str]:
    """The files of the splits for validation and test, of those with one row a prompt where there are any; else all.

    >>> chosen(["data/train-0.parquet", "data/test-0.parquet", "data/test_unique-0.parquet"])
    ['data/test_unique-0.parquet']
    """
    found = []
    for split in (VALIDATION, TEST):
        unique = [name for name in names if split_of(name) == split + UNIQUE]
        found += unique or [name for name in names if split_of(name) == split]
    return found or list(names)


def split_of(name: str) -> str:
    """The split that a file belongs to, by its name.

    >>> split_of("data/validation_unique-00000-of-00001-33ead111845fc9c4.parquet")
    'validation_unique'
    """
    return PurePosixPath(name.replace("\\", "/")).stem.partition("-")[0]


def _check(folder: DataFolder, name: str) -> None:
    """Reads captions and labels of a whole file, which are small, before a picture is scored."""
    frame = folder.table(name, COLUMNS)
    small = [column for column in ("caption", "label_0", "label_1", "has_label") if column in frame.collect_schema()]
    for number, values in enumerate(part(frame.select(small), 0, 2**31, str(folder.path / name)), 1):
        record = folder.record(name, number, values)
        if not _labelled(values):
            continue
        record.text("caption")
        if (values["label_0"], values["label_1"]) not in LABELS:
            raise record.wrong(
                "label_0", f"the labels are {values['label_0']} and {values['label_1']}; expected 1 and 0, or 0.5 twice"
            )


def _labelled(values: Row) -> bool:
    return values.get("has_label") is not False


def _rows(folder: DataFolder, names: Sequence[str], count: int | None) -> Iterator[Item]:
    for name in names:
        frame = folder.table(name, COLUMNS)
        wanted = [column for column in (*COLUMNS, "has_label") if column in frame.collect_schema()]
        first, taken = 0, 0
        while rows := part(frame.select(wanted), first, AT_ONCE, str(folder.path / name)):
            for number, values in enumerate(rows, first + 1):
                if not _labelled(values):
                    continue
                if taken == count:
                    break
                record = folder.record(name, number, values)
                questions = {}
                for side in (0, 1):
                    field = f"jpg_{side}"
                    picture = Picture(f"{name}, row {number}, {field}", partial(decoded, record, field, values[field]))
                    questions[f"score_{side}"] = Question(picture, values["caption"])
                facts = {
                    "split": split_of(name),
                    "row": number,
                    "caption": values["caption"],
                    "label_0": values["label_0"],
                }
                yield Item(facts, questions)
                taken += 1
            if taken == count:
                break
            first += len(rows)


def points(label: float, difference: float, threshold: float) -> float:
    """1 where the prediction is the label, 0.5 where one of the two is a tie, 0 where they are opposite.

    Args:
        label: of the first picture: 1 picked, 0 not, 0.5 a tie.
        difference: score of the first picture minus that of the second.
        threshold: largest difference that is a tie.

    >>> points(1, 0.2, 0.1), points(1, 0.05, 0.1), points(0.5, 0.05, 0.1), points(0, 0.2, 0.1)
    (1.0, 0.5, 1.0, 0.0)
    """
    predicted = 0.5 if abs(difference) <= threshold else float(difference > 0)
    return 1.0 - abs(predicted - label)


def best_threshold(rows: Sequence[Row]) -> float:
    """The smallest of the thresholds with the most points on some rows: 0, and quantiles of the differences."""
    differences = np.abs([row["score_0"] - row["score_1"] for row in rows])
    thresholds = [0.0, *np.quantile(differences, np.linspace(0, 1, THRESHOLDS)[1:]).tolist()]
    totals = [
        sum(points(row["label_0"], row["score_0"] - row["score_1"], threshold) for row in rows)
        for threshold in thresholds
    ]
    return float(thresholds[int(np.argmax(totals))])


def measure(rows: Sequence[Row]) -> list[Section]:
    """Agreement with ties as published, and on pairs where people have picked one. Intervals resample prompts."""
    validation = [row for row in rows if row["split"].startswith(VALIDATION)]
    test = [row for row in rows if not row["split"].startswith(VALIDATION)]
    tuned = bool(validation) and bool(test)
    threshold = best_threshold(validation) if tuned else 0.0
    measured = test or validation
    picked = [row for row in measured if row["label_0"] != 0.5]
    splits = ", ".join(dict.fromkeys(row["split"] for row in measured))
    how = (
        f"Ties are predicted up to a difference of {threshold:.4g}, the best of {THRESHOLDS} on {len(validation):,} "
        "validation rows."
        if tuned
        else "Without validation rows beside those that are measured no threshold could be chosen: only equal scores "
        "are predicted as ties."
    )
    measures = [
        Measure("agreement, ties as published", _over_prompts(measured, threshold), 0.5 if not tuned else None),
        Measure("agreement where people picked one", _over_prompts(picked, 0.0), 0.5),
    ]
    ties = len(measured) - len(picked)
    note = f"Rows of {splits}: {len(measured):,}, of which people call {ties:,} ties. {how}"
    return [Section("Agreement with people's picks", measures, "prompts", note=note)]


def _over_prompts(rows: Sequence[Row], threshold: float) -> Estimate:
    """Mean points of rows; the rows of a prompt are not independent, so prompts are resampled."""
    totals: dict[str, list[float]] = {}
    for row in rows:
        own = points(row["label_0"], row["score_0"] - row["score_1"], threshold)
        totals.setdefault(row["caption"], []).append(own)
    return ratio([sum(own) for own in totals.values()], [len(own) for own in totals.values()])


TASK = Task(
    name="pick-a-pic",
    about="Two pictures of a prompt: does the referee prefer the one that people have picked?",
    origin="Pick-a-Pic is yuvalkirstain/pickapic_v1 (and _v2) on the Hugging Face hub; validation_unique and "
    "test_unique have 500 rows each, 0.4 GB. No licence was found on its card here: read it before use.",
    read=read,
    measure=measure,
)
