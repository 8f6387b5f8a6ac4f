"""What a task is made of: questions about pictures, the rows that their scores fill, and measures of rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from refcore.errors import RefcoreError
from refcore.images import Levels
from refcore_bench.examinations.folder import DataFolder
from refcore_bench.statistics.intervals import Estimate
from refcore_bench.table import NONE, Table

Row = Mapping[str, Any]
"""The facts of an item and the scores of its questions, by column."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture that is read when it is scored, so that a data set need not fit into memory."""

    name: str
    """In messages: a file, or a cell of a table."""
    read: Callable[[], Levels]


class Question(NamedTuple):
    """A picture and a caption; the answer is the referee's score."""

    picture: Picture
    caption: str


@dataclass(frozen=True)
class Item:
    """One example of a task."""

    facts: Mapping[str, Any]
    """Column -> what is known of it: captions, labels, kinds."""
    questions: Mapping[str, Question]
    """Column of a score -> its question. Questions about the same picture follow one another: it is read once."""


class Measure(NamedTuple):
    """A number with its interval."""

    name: str
    estimate: Estimate
    chance: float | None = None
    """Its expected value for a referee whose scores are random and independent."""


@dataclass(frozen=True)
class Section:
    """Measures that belong together, as a table shows them."""

    title: str
    measures: Sequence[Measure]
    of: str
    """What is counted: "pairs", "images"."""
    share: bool = True
    """Whether the values are shares; else they are scores in the referee's unit."""
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        found = {
            each.name: {**each.estimate.to_dict(), **({} if each.chance is None else {"chance": each.chance})}
            for each in self.measures
        }
        return {"of": self.of, "measures": found, **({"note": self.note} if self.note else {})}

    def table(self) -> Table:
        """A row for each measure."""
        chance = any(each.chance is not None for each in self.measures)
        columns = ["", "value", "95 % interval", self.of, *(["chance"] if chance else [])]
        rows = [
            [
                each.name,
                self._shown(each.estimate.value),
                self._interval(each.estimate),
                f"{each.estimate.n:,}",
                *([NONE if each.chance is None else self._shown(each.chance)] if chance else []),
            ]
            for each in self.measures
        ]
        return Table(self.title, columns, rows, self.note)

    def _interval(self, estimate: Estimate) -> str:
        if math.isnan(estimate.low):
            return NONE
        return f"{self._shown(estimate.low)} to {self._shown(estimate.high)}"

    def _shown(self, value: float) -> str:
        if math.isnan(value):
            return NONE
        return f"{100 * value:.1f} %" if self.share else f"{value:+.3g}"


@dataclass(frozen=True)
class Asked:
    """What the command line asks of a task."""

    scenes: int = 24
    """Scenes that are drawn of each kind."""
    seed: int = 0
    """Random seed of the scenes."""
    count: int | None = None
    """Maximum number of examples that are read from a folder, or of each file that is a kind or a split; None: all."""
    words: Path | None = None
    """File with attribute words; None: the shipped one."""


@dataclass(frozen=True)
class Task:
    """A task: where its items come from, and what is measured."""

    name: str
    about: str
    """One sentence."""
    origin: str
    """Where the data are published and under which licence, and what of it could not be checked."""
    read: Callable[[DataFolder, Asked], Iterator[Item]]
    """The items in a folder. Files that say what is asked are checked before the first item; pictures as they come."""
    measure: Callable[[Sequence[Row]], list[Section]]
    """The sections of a result, from the rows alone."""
    draw: Callable[[Asked], list[Item]] | None = None
    """The same, of scenes of the playground; None: it needs a folder."""
    options: frozenset[str] = field(default_factory=frozenset)
    """Options of the command line that only this task knows."""

    def items(self, asked: Asked, data: Path | None) -> Iterator[Item]:
        """The items in a folder, or without one drawn from the playground.

        Raises:
            RefcoreError: the task has no scenes of its own and no folder is given, or the folder's data are wrong.
        """
        if data is not None:
            return self.read(DataFolder(data, self.name), asked)
        if self.draw is None:
            raise RefcoreError(
                f'the task "{self.name}" needs people\'s choices, which nothing here can draw; give the folder of its '
                f"data with --data FOLDER. {self.origin}"
            )
        return iter(self.draw(asked))
