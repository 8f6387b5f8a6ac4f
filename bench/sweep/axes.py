"""The fields that a sweep varies: lists of values, and ranges of numbers."""

from __future__ import annotations

import contextlib
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from refcore.errors import RefcoreError
from refcore_bench.option_text import split
from refcore_bench.scorers import digest

Point = dict[str, str]
"""Field -> its value as YAML text: one combination."""
MOST_POINTS = 10_000
"""Combinations of the largest grid."""
LONGEST = 100
"""Letters of a variant's name at most: it is that of files, which may have 255 with their ending."""


@dataclass(frozen=True)
class Values:
    """A field that takes each of some values."""

    field: str
    values: tuple[str, ...]
    """YAML texts."""


@dataclass(frozen=True)
class Range:
    """A field that takes any number between two."""

    field: str
    low: float
    high: float
    log: bool = False
    """Whether the logarithm is what is evenly spread."""
    whole: bool = False
    """Whether only whole numbers are taken."""


Axis = Values | Range


def values_from_text(text: str) -> Values:
    """The axis of `--grid FIELD=VALUE,VALUE`; commas inside brackets and quotes do not separate.

    Raises:
        RefcoreError: no field, no value, or one that is there twice.

    >>> values_from_text("combine.factor=0.25,0.5")
    Values(field='combine.factor', values=('0.25', '0.5'))
    """
    field, equals, listed = text.partition("=")
    values = tuple(value.strip() for value in split(listed))
    if not equals or not field.strip() or not all(values):
        raise RefcoreError(f'--grid "{text}" is no axis; expected FIELD=VALUE,VALUE, as in referees.0.weight=0.5,1,2')
    if len(set(values)) < len(values):
        raise RefcoreError(f'--grid "{text}": a value is there twice')
    return Values(field.strip(), values)


def range_from_text(text: str) -> Range:
    """The axis of `--range FIELD=LOW..HIGH[,log][,int]`.

    Raises:
        RefcoreError: no field, no two numbers, or a logarithm of what is not positive.

    >>> range_from_text("referees.0.weight=0.1..3,log")
    Range(field='referees.0.weight', low=0.1, high=3.0, log=True, whole=False)
    """
    field, equals, rest = text.partition("=")
    bounds, *words = (word.strip() for word in rest.split(","))
    low, dots, high = bounds.partition("..")
    try:
        found = Range(field.strip(), float(low), float(high), "log" in words, "int" in words)
    except ValueError:
        found = None
    if not equals or not field.strip() or not dots or found is None or set(words) - {"log", "int"}:
        raise RefcoreError(
            f'--range "{text}" is no range; expected FIELD=LOW..HIGH with ,log or ,int, as in '
            "referees.0.weight=0.1..3,log"
        )
    if not (math.isfinite(found.low) and math.isfinite(found.high)):
        raise RefcoreError(f'--range "{text}": expected two finite numbers, as in {found.field}=0.1..3')
    if not found.low < found.high or (found.log and found.low <= 0):
        raise RefcoreError(f'--range "{text}": expected LOW below HIGH{", and above 0 for log" if found.log else ""}')
    if found.whole and not (found.low.is_integer() and found.high.is_integer()):
        raise RefcoreError(f'--range "{text}": expected whole numbers with int')
    return found


def text_of(axis: Axis) -> str:
    """An axis as the command line has it.

    >>> text_of(range_from_text("referees.0.weight=0.1..3,log")), text_of(values_from_text("steps=10,20"))
    ('referees.0.weight=0.1..3,log', 'steps=10,20')
    """
    if isinstance(axis, Values):
        return f"{axis.field}={','.join(axis.values)}"
    words = [word for word, said in (("log", axis.log), ("int", axis.whole)) if said]
    return ",".join([f"{axis.field}={axis.low!r}..{axis.high!r}".replace(".0..", "..").removesuffix(".0"), *words])


def refuse_twice(axes: Sequence[Axis]) -> None:
    """Refuses a field that is varied twice.

    Raises:
        RefcoreError: naming it.
    """
    fields = [axis.field for axis in axes]
    if twice := {field for field in fields if fields.count(field) > 1}:
        raise RefcoreError(f"{min(twice)} is varied twice; expected each field once")


def grid(axes: Sequence[Values]) -> list[Point]:
    """Every combination of the values, the last axis fastest.

    Raises:
        RefcoreError: there are more than `MOST_POINTS`.
    """
    number = 1
    for axis in axes:
        number *= len(axis.values)
    if number > MOST_POINTS:
        raise RefcoreError(f"the grid has {number:,} combinations; expected at most {MOST_POINTS:,}")
    fields = [axis.field for axis in axes]
    return [dict(zip(fields, values, strict=True)) for values in itertools.product(*(axis.values for axis in axes))]


def ends(axes: Sequence[Axis]) -> list[Point]:
    """For each axis, its values or its two ends, with the first ones of all other axes; each point once.

    >>> ends([Range("steps", 10, 20, whole=True), Values("ema", ("null", "{}"))])
    [{'steps': '10', 'ema': 'null'}, {'steps': '20', 'ema': 'null'}, {'steps': '10', 'ema': '{}'}]
    """
    return _in_turn({axis.field: _ends(axis) for axis in axes})


def largest(axes: Sequence[Axis]) -> list[Point]:
    """Points of which one takes the most memory: numbers at their largest, each value that is no number in turn.

    >>> largest([Range("optimizer.lr", 0.01, 0.3), Values("canvas.name", ("pixel", "latent"))])
    [{'optimizer.lr': '0.3', 'canvas.name': 'pixel'}, {'optimizer.lr': '0.3', 'canvas.name': 'latent'}]
    """
    found = {}
    for axis in axes:
        texts = _ends(axis)
        with contextlib.suppress(ValueError):
            texts = [max(texts, key=float)]
        found[axis.field] = texts
    return _in_turn(found)


def names(points: Sequence[Point]) -> list[str]:
    """A variant's name for each point, in words of its fields and values, all different.

    >>> names([{"referees.0.weight": "0.5", "combine.factor": "1"}, {"referees.0.weight": "2", "combine.factor": "1"}])
    ['weight-0.5+factor-1', 'weight-2+factor-1']
    """
    short = _short(list(points[0])) if points else {}
    found: list[str] = []
    for point in points:
        name = "+".join(f"{short[field]}-{_plain(value)}" for field, value in point.items())
        if len(name) > LONGEST:
            name = f"{name[: LONGEST - 9]}.{digest(point)[:8]}"
        again = sum(other == name or other.startswith(f"{name}.again") for other in found)
        found.append(f"{name}.again{again}" if again else name)
    return found


def assignments(point: Mapping[str, str]) -> list[str]:
    """A point as overrides of a config."""
    return [f"{field}={value}" for field, value in point.items()]


def _in_turn(texts: Mapping[str, Sequence[str]]) -> list[Point]:
    """Each value of each field, with the first ones of all other fields; each point once."""
    first = {field: own[0] for field, own in texts.items()}
    return [first, *({**first, field: value} for field, own in texts.items() for value in own[1:])]


def _ends(axis: Axis) -> Sequence[str]:
    if isinstance(axis, Values):
        return axis.values
    return [str(int(end) if axis.whole else float(end)) for end in (axis.low, axis.high)]


def _short(fields: Sequence[str]) -> dict[str, str]:
    """Field -> as many of its last parts as tell it from the others, joined by dots."""
    found = {}
    for field in fields:
        parts = field.split(".")
        for count in range(1, len(parts) + 1):
            end = parts[-count:]
            if sum(other.split(".")[-count:] == end for other in fields) == 1:
                break
        found[field] = _plain(".".join(parts[-count:]))
    return found


def _plain(text: str) -> str:
    """The text with only what the name of a variant may have."""
    return re.sub(r"[^A-Za-z0-9_.+-]+", "_", text).strip("_") or "x"
