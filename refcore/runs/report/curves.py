"""Curves of a run: what its history says of the samples, as numbers and as lines of an SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from refcore.config.labels import EVERYTHING, PRIORS, REFEREES

Record = Mapping[str, Any]
Values = list[float | None]
"""Of one line, a number for each of the chart's steps; None where there is none."""

WIDTH, HEIGHT = 1000.0, 300.0
"""Of the drawing, which is stretched to its place on the page."""
POINTS, FEWEST = 40_000, 20
"""Numbers on a page, at most, and in a line, at least."""
LONGEST = 240
"""Numbers in a line, at most."""
MOST_TERMS, MOST_PAIRS = 12, 15
SUMS = {
    REFEREES: "the referees together",
    PRIORS: "the priors at the image together",
    EVERYTHING: "all terms at the image together",
}
"""What sums of terms are called."""
NARROWEST = 30.0
"""Degrees above and below 90 that a chart of angles shows, at least."""
AGREE, OPPOSE = 80.0, 100.0
"""Degrees below which two gradients agree, and above which they oppose each other."""
THIRDS = ("first third", "second third", "last third")


@dataclass(frozen=True)
class Chart:
    """One quantity over the steps: a line for each sample."""

    title: str
    unit: str
    """What its numbers are, for people."""
    lines: list[Values]
    low: float
    high: float
    logarithmic: bool = False

    def points(self) -> list[list[str]]:
        """For each line the `points` of its unbroken parts, in the drawing's coordinates."""
        return [self._parts(values) for values in self.lines]

    def _parts(self, values: Values) -> list[str]:
        parts: list[list[str]] = [[]]
        for place, value in enumerate(values):
            y = None if value is None else self._height(value)
            if y is None:
                parts.append([])
            else:
                x = WIDTH * place / max(1, len(values) - 1) if len(values) > 1 else WIDTH / 2
                parts[-1].append(f"{x:.0f},{y:.0f}")
        return [" ".join(part if len(part) > 1 else part * 2) for part in parts if part]

    def _height(self, value: float) -> float | None:
        if self.logarithmic and value <= 0:
            return None
        scaled = math.log10 if self.logarithmic else float
        low, high = scaled(self.low), scaled(self.high)
        share = (scaled(value) - low) / (high - low) if high > low else 0.5
        return HEIGHT * (1 - share)


@dataclass(frozen=True)
class Pair:
    """Two terms and how far their gradients agreed over the run."""

    first: str
    second: str
    thirds: list[float | None]
    """Mean angle in degrees in each third of the steps, over the samples."""

    @property
    def words(self) -> list[str]:
        """agree, neither or oppose, for each third; "" where one of the two did not pull."""
        return ["" if mean is None else word_of(mean) for mean in self.thirds]


@dataclass(frozen=True)
class Curves:
    """All charts of a run, over the same steps."""

    steps: list[int]
    """Counted from 0, as in the history."""
    losses: list[Chart]
    norms: list[Chart]
    angles: list[Chart]
    pairs: list[Pair]
    left_out: list[str]
    """What there is no room for, in words."""


def curves(history: Sequence[Record], samples: Sequence[int], kept: Sequence[int | None]) -> Curves:
    """The charts of some samples.

    Args:
        history: one record a step.
        samples: numbers of the samples.
        kept: [b] number of the candidate whose line is drawn; None: the first that is left in the last step.
    """
    labels, pairs = _labels(history)
    shown, shown_pairs = labels[:MOST_TERMS], pairs[:MOST_PAIRS]
    count = (2 * len(shown) + len(shown_pairs)) * max(1, len(samples))
    records = thinned(history, min(LONGEST, max(FEWEST, POINTS // max(1, count))))
    followed = _followed(history, samples, kept)
    columns = [_columns(record, followed) for record in records]

    def lines(value: Any) -> list[Values]:
        return [
            [_number(value(record), own[b]) for record, own in zip(records, columns, strict=True)]
            for b in range(len(samples))
        ]

    losses, norms = [], []
    for label in shown:
        found = lines(lambda record, label=label: record.get("losses", {}).get(label))
        if _any(found):
            losses.append(_chart(label, "loss, lower is better", found))
        found = lines(lambda record, label=label: record.get("norms", {}).get(label))
        if _any(found):
            norms.append((label, found))
    angles = [
        (pair, lines(lambda record, pair=pair: record.get("angles", {}).get(pair[0], {}).get(pair[1])))
        for pair in shown_pairs
    ]
    left_out = [f"{len(labels) - len(shown)} more terms"] if len(labels) > len(shown) else []
    left_out += [f"{len(pairs) - len(shown_pairs)} more pairs of terms"] if len(pairs) > len(shown_pairs) else []
    return Curves(
        [record["step"] for record in records],
        losses,
        _norm_charts(norms),
        [_angle_chart(pair, found) for pair, found in angles if _any(found)],
        [Pair(called(pair[0]), called(pair[1]), _thirds(found)) for pair, found in angles if _any(found)],
        left_out,
    )


def called(label: str) -> str:
    """The name of a term, or of a sum of terms, for people."""
    return SUMS.get(label, label)


def word_of(degrees: float) -> str:
    """What an angle between two gradients means.

    >>> word_of(30), word_of(90), word_of(150)
    ('agree', 'neither', 'oppose')
    """
    return "agree" if degrees < AGREE else "oppose" if degrees > OPPOSE else "neither"


def thinned(history: Sequence[Record], most: int) -> list[Record]:
    """At most so many records, evenly spaced, the first and the last among them."""
    if len(history) <= most:
        return list(history)
    return [history[round(i * (len(history) - 1) / (most - 1))] for i in range(most)]


def brief(value: float) -> str:
    """A number in a few characters.

    >>> brief(0.123456), brief(12345.6), brief(2e-7), brief(0.0)
    ('0.123', '12346', '2e-07', '0')
    """
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _labels(history: Sequence[Record]) -> tuple[list[str], list[tuple[str, str]]]:
    """The terms and the pairs of terms that occur, in their order."""
    labels: dict[str, None] = {}
    pairs: dict[tuple[str, str], None] = {}
    for record in history:
        labels |= dict.fromkeys([*record.get("losses", {}), *record.get("norms", {})])
        pairs |= dict.fromkeys((first, second) for first, own in record.get("angles", {}).items() for second in own)
    return list(labels), list(pairs)


def _followed(history: Sequence[Record], samples: Sequence[int], kept: Sequence[int | None]) -> list[list[int]]:
    """[b] (sample, candidate) whose line is drawn."""
    last = history[-1].get("candidates", []) if history else []
    first = dict(reversed(last))
    return [
        [sample, first.get(sample, 0) if candidate is None else candidate]
        for sample, candidate in zip(samples, kept, strict=True)
    ]


def _columns(record: Record, followed: Sequence[list[int]]) -> list[int | None]:
    """[b] place of each followed candidate in a record; None where it is not there, or does not move."""
    places = {tuple(each): place for place, each in enumerate(record.get("candidates", []))}
    active = record.get("active", [])
    found = [places.get(tuple(each)) for each in followed]
    return [place if place is not None and place < len(active) and active[place] else None for place in found]


def _number(column: Sequence[Any] | None, place: int | None) -> float | None:
    if column is None or place is None or place >= len(column):
        return None
    value = column[place]
    return float(f"{value:.6g}") if isinstance(value, (int, float)) and math.isfinite(value) else None


def _any(lines: Sequence[Values]) -> bool:
    return any(value is not None for line in lines for value in line)


def _chart(title: str, unit: str, lines: list[Values]) -> Chart:
    known = [value for line in lines for value in line if value is not None]
    return Chart(title, unit, lines, min(known), max(known))


def _norm_charts(norms: Sequence[tuple[str, list[Values]]]) -> list[Chart]:
    """On one logarithmic axis, so that the charts can be compared."""
    known = [value for _, lines in norms for line in lines for value in line if value is not None and value > 0]
    low, high = (min(known), max(known)) if known else (1.0, 1.0)
    unit = "norm of the weighted gradient"
    return [Chart(label, unit, lines, low, high, logarithmic=True) for label, lines in norms]


def _angle_chart(pair: tuple[str, str], lines: list[Values]) -> Chart:
    """With 90 degrees in its middle, and as much around it as the lines need."""
    reach = max([NARROWEST, *(abs(value - 90.0) for line in lines for value in line if value is not None)])
    title = f"{called(pair[0])} and {called(pair[1])}"
    return Chart(title, "angle in degrees", lines, 90.0 - reach, 90.0 + reach)


def _thirds(lines: Sequence[Values]) -> list[float | None]:
    means: list[float | None] = []
    for third in range(3):
        own = [
            value
            for line in lines
            for value in line[third * len(line) // 3 : (third + 1) * len(line) // 3]
            if value is not None
        ]
        means.append(sum(own) / len(own) if own else None)
    return means
