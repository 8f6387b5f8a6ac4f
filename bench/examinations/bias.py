"""The task `bias`: how far a score moves when nothing but an attribute changes that the question leaves open.

On a folder of pictures, each picture is scored for the same prompts with other attribute words: `man`, `woman`. What
moves is the word, so a picture that shows no person, or people of all kinds alike, should give equal scores. On the
playground the truth is known: the caption stays, says nothing of an attribute, and the scene changes in it alone.

The pictures (the scenes) are the sample: intervals resample them, and their prompts are averaged first.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml
from pydantic import Field, model_validator

from refcore.config.section import Section as ConfigSection
from refcore.config.yaml_text import read_yaml
from refcore.errors import RefcoreError
from refcore.explain import validated
from refcore.prompts import problem_of
from refcore.text_files import read_named
from refcore_bench.examinations.folder import DataFolder
from refcore_bench.examinations.scenes import rendered
from refcore_bench.examinations.task import Asked, Item, Measure, Picture, Question, Row, Section, Task
from refcore_bench.statistics.intervals import mean
from refcore_playground.grammar import Phrase
from refcore_playground.world import COLOURS, RADII, SHAPES, SIZE, Scene, Thing

SHIPPED = Path(__file__).with_name("bias.yaml")
WORD, OTHER = "{word}", "{other}"
MOST_PROMPTS = 2000
"""Prompts that a picture is scored for, at most: each costs a look at it."""
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".ppm")
NEUTRAL = ("a picture", "an image", "a drawing")
"""Captions of the playground's words that say nothing of a scene."""
SPOTS = {
    f"{row} {column}".replace("middle centre", "centre"): (x, y)
    for row, y in (("top", 16), ("middle", 32), ("bottom", 48))
    for column, x in (("left", 16), ("centre", 32), ("right", 48))
}
"""Position -> centre of the thing, in pixels."""
RADIUS = 13
"""Of the thing whose colour, shape or position changes: the smallest large one, which fits at each of `SPOTS`."""


class Attribute(ConfigSection):
    """An attribute of the file of words."""

    words: list[str] = Field(min_length=2, description="Words that are put in the place of each other.")
    prompts: list[str] = Field(min_length=1, description='Prompts with "{word}", and "{other}" for each of `others`.')
    neutral: str | None = Field(None, description="Word that the others are compared with; null: their mean.")
    others: list[str] = Field(default_factory=list, description='Words for "{other}".')

    @model_validator(mode="after")
    def _are_prompts(self) -> Attribute:
        for prompt in self.prompts:
            if WORD not in prompt:
                raise ValueError(f'the prompt "{prompt}" has no {WORD}; expected the place of the word')
            if OTHER in prompt and not self.others:
                raise ValueError(f'the prompt "{prompt}" has {OTHER}, but there are no `others`; list some')
        for text in (*self.words, *self.prompts, *self.others):
            if (problem := problem_of(text)) is not None:
                raise ValueError(f"the text {problem}")
        return self

    def asked(self) -> list[tuple[str, str]]:
        """The prompts with their other word filled in, and that word."""
        return [
            (prompt.replace(OTHER, other), other)
            for prompt in self.prompts
            for other in (self.others if OTHER in prompt else [""])
        ]


def read_words(path: Path | None) -> dict[str, Attribute]:
    """Name -> attribute, of a YAML file; None: the shipped one.

    Raises:
        RefcoreError: it cannot be read, or holds no attributes.
    """
    where = SHIPPED if path is None else path
    text = read_named(where, "--words")
    try:
        value = read_yaml(text)
    except yaml.YAMLError as error:
        raise RefcoreError(f'--words "{where}" is not valid YAML: {" ".join(str(error).split())[:200]}') from error
    if not isinstance(value, dict) or not value:
        raise RefcoreError(f'--words "{where}" holds no attributes; expected such as `gender: {{words: [...]}}`')
    found = {str(name): validated(Attribute, each, f"--words {name}") for name, each in value.items()}
    count = sum(len(each.asked()) * (len(each.words) + 1) for each in found.values())
    if count > MOST_PROMPTS:
        raise RefcoreError(
            f'--words "{where}" makes {count:,} prompts for each picture; expected at most {MOST_PROMPTS:,}: '
            "fewer words or others"
        )
    return found


def read(folder: DataFolder, asked: Asked) -> Iterator[Item]:
    """A folder of pictures; those in its folders are groups of their own. Every picture for every word."""
    attributes = read_words(asked.words)
    names = sorted(
        str(path.relative_to(folder.path))
        for path in folder.path.rglob("*")
        if path.suffix.lower() in ENDINGS and path.is_file()
    )
    if not names:
        raise folder.missing("pictures, in it or in a folder for each group of them")
    for name in names:
        try:
            folder.file(name)
        except ValueError as error:
            raise RefcoreError(f'"{folder.path / name}" {error}') from error
    return _of_pictures(folder, names[: asked.count], attributes)


def _of_pictures(folder: DataFolder, names: Sequence[str], attributes: dict[str, Attribute]) -> Iterator[Item]:
    for name in names:
        record = folder.record(name, 1, {})
        picture = Picture(name, partial(folder.levels, record, "pixels", name))
        parts = PurePosixPath(name.replace("\\", "/")).parts
        for attribute, each in attributes.items():
            for prompt, other in each.asked():
                for word in dict.fromkeys((*([each.neutral] if each.neutral else []), *each.words)):
                    facts = {
                        "group": parts[0] if len(parts) > 1 else "",
                        "sample": name,
                        "attribute": attribute,
                        "value": word,
                        "neutral": word == each.neutral,
                        "prompt": prompt,
                        "other": other,
                    }
                    yield Item(facts, {"score": Question(picture, prompt.replace(WORD, word))})


def draw(asked: Asked) -> list[Item]:
    """`scenes` scenes with a single solid thing, each in every colour, shape, position and size in turn.

    Two kinds of captions: one that says nothing ("a picture"), and one that says all but the attribute ("a circle" of a
    circle in eight colours; "a red circle" of one in nine places). No caption of the playground's words says a colour
    without a shape.
    """
    found = []
    rng = random.Random(f"bias-{asked.seed}")
    for number in range(asked.scenes):
        # In turn, so that each colour and each shape meets combinations held out of training equally often.
        shape = SHAPES[number % len(SHAPES)]
        colour = tuple(COLOURS)[(number + number // len(SHAPES)) % len(COLOURS)]
        level = rng.randint(218, 252)
        ground = (level, level, level)
        x, y = (rng.randint(RADIUS + 2, SIZE - RADIUS - 3) for _ in range(2))
        thing = Thing(colour, shape, "solid", RADIUS, x, y)
        variants: dict[str, dict[str, Thing]] = {
            "colour": {name: replace(thing, colour=name) for name in COLOURS},
            "shape": {name: replace(thing, shape=name) for name in SHAPES},
            "position": {name: replace(thing, x=x, y=y) for name, (x, y) in SPOTS.items()},
            "size": {name: replace(thing, radius=radii[len(radii) // 2]) for name, radii in RADII.items()},
        }
        whole = str(Phrase(colour, shape))
        rest = {"colour": f"a {shape}", "position": whole, "size": whole}
        for attribute, things in variants.items():
            for value, changed in things.items():
                picture = rendered(Scene((changed,), ground), f"scene {number}, {value}, seed {asked.seed}")
                captions = [("the caption says nothing", caption) for caption in NEUTRAL]
                if attribute in rest:
                    captions.append(("the caption says the rest", rest[attribute]))
                for group, caption in captions:
                    facts = {
                        "group": group,
                        "sample": str(number),
                        "attribute": attribute,
                        "value": value,
                        "neutral": False,
                        "prompt": caption,
                        "other": "",
                    }
                    found.append(Item(facts, {"score": Question(picture, caption)}))
    return found


def effects(rows: Sequence[Row]) -> dict[str, np.ndarray[Any, Any]]:
    """Value of an attribute -> [N] by how much each sample's score is above the neutral one's, or the values' mean.

    Args:
        rows: of one attribute; each sample has every prompt with every value.
    """
    samples, prompts, values = (
        list(dict.fromkeys(row[name] for row in rows)) for name in ("sample", "prompt", "value")
    )
    neutral = next((row["value"] for row in rows if row["neutral"]), None)
    table = np.full((len(samples), len(prompts), len(values)), np.nan)
    places = [{name: index for index, name in enumerate(names)} for names in (samples, prompts, values)]
    for row in rows:
        table[places[0][row["sample"]], places[1][row["prompt"]], places[2][row["value"]]] = row["score"]
    # Prompts that a sample does not have, such as those that name its own shape, are left out of its mean.
    by_sample = np.nanmean(table, axis=1)
    base = by_sample.mean(1) if neutral is None else by_sample[:, places[2][neutral]]
    return {value: by_sample[:, index] - base for value, index in places[2].items() if value != neutral}


def measure(rows: Sequence[Row]) -> list[Section]:
    """For each group and attribute the effect of each value, and how far apart its values are in a sample."""
    found = []
    for group in dict.fromkeys(row["group"] for row in rows):
        for attribute in dict.fromkeys(row["attribute"] for row in rows if row["group"] == group):
            own = [row for row in rows if row["group"] == group and row["attribute"] == attribute]
            found.append(_section(own, group, attribute))
            others = [other for other in dict.fromkeys(row["other"] for row in own) if other]
            if others:
                found.append(_by_other(own, group, attribute, others))
    return found


def _section(rows: Sequence[Row], group: str, attribute: str) -> Section:
    by_value = effects(rows)
    ordered = sorted(by_value.items(), key=lambda each: -float(each[1].mean()))
    measures = [Measure(value, mean(list(values))) for value, values in ordered]
    table = np.stack(list(by_value.values()))
    measures.append(Measure("largest minus smallest, in a sample", mean(list(table.max(0) - table.min(0)))))
    neutral = next((row["value"] for row in rows if row["neutral"]), None)
    against = "the mean of the values" if neutral is None else f'"{neutral}"'
    note = f"Score minus that of {against}. Standard deviation of scores between samples: {_deviation(rows):.3g}."
    return Section(_title(group, attribute), measures, "samples", share=False, note=note)


def _by_other(rows: Sequence[Row], group: str, attribute: str, others: Sequence[str]) -> Section:
    """For each other word, the lead of one value over another: of two, the first's; of more, the largest."""
    measures, chosen = [], False
    for other in others:
        by_value = effects([row for row in rows if row["other"] == other])
        first, *between, last = by_value
        if between:
            last, *_, first = sorted(by_value, key=lambda value: float(by_value[value].mean()))
            chosen = True
        lead = by_value[first] - by_value[last]
        measures.append(Measure(f'{other}: "{first}" minus "{last}"', mean(list(lead))))
    note = "The pair is chosen by its means, so the leads are above 0 even by chance: compare them with each other."
    note = note if chosen else ""
    return Section(f"{_title(group, attribute)}, by the other word", measures, "samples", share=False, note=note)


def _title(group: str, attribute: str) -> str:
    return f"What {attribute} does to the score" + (f" ({group})" if group else "")


def _deviation(rows: Sequence[Row]) -> float:
    """Standard deviation over samples of their mean scores: what the effects may be compared with."""
    scores: dict[str, list[float]] = {}
    for row in rows:
        scores.setdefault(row["sample"], []).append(row["score"])
    means = [sum(own) / len(own) for own in scores.values()]
    return float(np.std(means, ddof=1)) if len(means) > 1 else float("nan")


TASK = Task(
    name="bias",
    about="By how much does the score move when only an attribute word (on the playground: an attribute) changes?",
    origin="Any folder of pictures; a folder inside it is a group of its own. The words are those of "
    "bench/examinations/bias.yaml, or of --words FILE.",
    read=read,
    measure=measure,
    draw=draw,
    options=frozenset({"words"}),
)
