"""The task `hpdv2`: several pictures of a prompt, ranked by people.

Wu et al., "Human Preference Score v2: A Solid Benchmark for Evaluating Human Preferences of Text-to-Image Synthesis"
(2023), and the authors' evaluation: for each prompt the share of pairs that the scores do not order against the mean
ranking, and the mean of it over prompts. Pairs that people rank equal count as right there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import combinations

from refcore.errors import shortened
from refcore_bench.examinations.folder import DataFolder, Record
from refcore_bench.examinations.task import Asked, Item, Measure, Picture, Question, Row, Section, Task
from refcore_bench.statistics.intervals import Estimate, mean

TEST = "test.json"
PLACES = ("test", "images", "test/test", ".")
"""Where the pictures may lie."""
MOST_RANK = 1000
Ranked = tuple[Sequence[float], Sequence[float]]
"""Scores and ranks of the pictures of one prompt."""


def read(folder: DataFolder, asked: Asked) -> Iterator[Item]:
    """Prompts of test.json, each with the names of its pictures, their mean ranks (low is good) and single rankings."""
    names = folder.named(TEST)
    if not names:
        raise folder.missing(f"{TEST} with the pictures in test/")
    (name, *_) = names
    value = folder.json(name)
    if not isinstance(value, list):
        raise folder.missing(f"a list of prompts in {TEST}")
    return iter(
        [
            item
            for row, each in enumerate(value[: asked.count], 1)
            for item in _pictures(folder, folder.record(name, row, each))
        ]
    )


def _pictures(folder: DataFolder, record: Record) -> list[Item]:
    prompt, names = record.text("prompt"), record.listed("image_path", str, "names of pictures")
    if len(names) < 2:
        raise record.wrong("image_path", f"it holds {len(names)} names; expected at least two, to be compared")
    rankings = [_ranking(record, "rank", record.listed("rank", (int, float), "ranks"), len(names))]
    for index, each in enumerate(record.get("raw_annotations") or []):
        field = f"raw_annotations.{index}.rank"
        values = each.get("rank") if isinstance(each, dict) else None
        if not isinstance(values, list) or not all(isinstance(rank, (int, float)) for rank in values):
            raise record.wrong(field, "it is no list of ranks; expected one rank for each picture")
        rankings.append(_ranking(record, field, values, len(names)))
    found = []
    for index, name in enumerate(names):
        path = folder.find_picture(record, "image_path", name, PLACES)
        picture = Picture(path, partial(folder.levels, record, "image_path", path))
        facts = {
            "id": record.row,
            "prompt": prompt,
            "image": path,
            "rank": float(rankings[0][index]),
            "ranks": [float(ranking[index]) for ranking in rankings[1:]],
        }
        found.append(Item(facts, {"score": Question(picture, prompt)}))
    return found


def _ranking(record: Record, field: str, ranks: list[float], pictures: int) -> list[float]:
    if len(ranks) != pictures:
        raise record.wrong(field, f"it has {len(ranks)} ranks for {pictures} pictures; expected one for each")
    for rank in ranks:
        if not 0 <= rank <= MOST_RANK:
            raise record.wrong(field, f"it holds {shortened(str(rank))}; expected ranks from 0 to {MOST_RANK:,}")
    return ranks


def not_inverted(scores: Sequence[float], ranks: Sequence[float]) -> float:
    """Share of pairs that the scores do not order against the ranks, as published; ties of either are right.

    >>> not_inverted([0.9, 0.5, 0.1], [1, 2, 3]), not_inverted([0.1, 0.5, 0.9], [1, 1, 3])
    (1.0, 0.333...)
    """
    pairs = list(combinations(range(len(scores)), 2))
    return sum((scores[i] - scores[j]) * (ranks[i] - ranks[j]) <= 0 for i, j in pairs) / len(pairs)


def agreement(ranked: Sequence[Ranked]) -> tuple[float, int]:
    """Points on pairs that the ranks order, half a point for equal scores, and the number of those pairs.

    >>> agreement([([0.9, 0.5, 0.1], [1, 2, 2])])
    (2.0, 2)
    """
    points, count = 0.0, 0
    for scores, ranks in ranked:
        for i, j in combinations(range(len(scores)), 2):
            if ranks[i] != ranks[j]:
                order = (scores[i] - scores[j]) * (ranks[j] - ranks[i])
                points, count = points + (1.0 if order > 0 else 0.5 if order == 0 else 0.0), count + 1
    return points, count


def measure(rows: Sequence[Row]) -> list[Section]:
    """Agreement with the mean ranking, with single people, and of people with each other; intervals over prompts."""
    by_prompt: dict[int, list[Row]] = {}
    for row in rows:
        by_prompt.setdefault(row["id"], []).append(row)
    published, ordered, single, people = [], [], [], []
    for own in by_prompt.values():
        scores, ranks = [row["score"] for row in own], [row["rank"] for row in own]
        published.append(not_inverted(scores, ranks))
        ordered.append(agreement([(scores, ranks)]))
        persons = [[row["ranks"][person] for row in own] for person in range(len(own[0]["ranks"]))]
        single.append(agreement([(scores, person) for person in persons]))
        others = [([-rank for rank in a], b) for a in persons for b in persons if a is not b]
        people.append(agreement(others))
    measures = [
        Measure("agreement with the mean ranking, as published", mean(published)),
        Measure("agreement where the mean ranking orders a pair", _mean(ordered), 0.5),
        *([Measure("agreement with single people", _mean(single), 0.5)] if any(n for _, n in single) else []),
        *([Measure("people with each other", _mean(people))] if any(n for _, n in people) else []),
    ]
    note = "As published, a pair that people rank equal, or that has equal scores, is right."
    return [Section("Agreement with people's rankings", measures, "prompts", note=note)]


def _mean(found: Sequence[tuple[float, int]]) -> Estimate:
    """Mean over prompts of the points per pair; prompts without a pair are left out."""
    return mean([points / count for points, count in found if count])


TASK = Task(
    name="hpdv2",
    about="Several pictures of a prompt: does the referee order them as people do?",
    origin="HPD v2 is ymhao/HPDv2 on the Hugging Face hub, test.json and test.tar.gz (Apache-2.0, by its card).",
    read=read,
    measure=measure,
)
