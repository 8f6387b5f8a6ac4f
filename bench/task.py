"""What differs between benchmarks: what is asked, which variants have a name, and who says whether it was met."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from refcore.contracts.judge import Verdict
from refcore.errors import unknown
from refcore.images import Levels

if TYPE_CHECKING:
    from refcore_bench.scorers import Scorer
    from refcore_bench.thresholds import Threshold

Row = Mapping[str, Any]
"""A row of the results."""
Score = Mapping[str, Any]
"""An entry of a row's `scores`: what one referee says of the image."""
Settings = dict[str, Any]
"""Nested plain dicts, as in a YAML file."""
Recipe = Callable[[Settings], Settings]
"""Turns the settings of a preset into those of a variant."""
Accepts = Callable[[Score], bool | None]
"""Whether a referee accepts an image; None where it cannot be asked that."""
Tell = Callable[[str], None]
"""Is told, in a line, of what goes on."""
TUNING, REPORTING = "tuning", "reporting"
"""The prompts that settings may be chosen on, and those that reported numbers are of."""


@dataclass(frozen=True)
class Asked:
    """A prompt of the set."""

    prompt: str
    category: str
    split: str
    """A part of the set that is reported for itself (seen or unseen), or, where there are none, the set's name."""


@dataclass(frozen=True)
class Measure:
    """Something else that is told of images: a share of them, or a mean."""

    title: str
    value: Callable[[Row], float]
    """Of one image."""
    share: bool
    """Whether it is yes or no."""


@dataclass(frozen=True)
class Words:
    """How tables speak of a world."""

    title: str
    prompts: str
    """The plural of what is asked."""
    source: str
    """How a set of prompts is called; {} stands for what it is from."""
    right: str
    """The images of which the verdict is yes, as a column."""
    judge: str
    """Who gives it."""
    facts: str | None
    """What single facts are called; None where the verdict is the only one."""
    hack: str
    """What the referees do with a hack, and what the verdict is."""
    suffix: str = ""
    """What titles add to the name of a column."""


class World(ABC):
    """What a benchmark asks and how it is judged. Running, results, tables and galleries are the same for all."""

    name: ClassVar[str]
    """Of the command, and of the preset that the others are compared with."""
    words: ClassVar[Words]
    categories: ClassVar[tuple[str, ...]]
    splits: ClassVar[tuple[str, ...]] = ()
    """Two parts of a set that are held against each other, or none."""
    measures: ClassVar[tuple[Measure, ...]] = ()

    @abstractmethod
    def inversions(self, settings: Settings) -> dict[str, Recipe]:
        """Name -> recipe of every baseline that is an inversion; `settings` says which referees there are."""

    def samplings(self) -> dict[str, Settings]:
        """Name -> settings (see `refcore_bench.sampling.Sampling`) of every baseline that samples."""
        return {}

    @abstractmethod
    def names(self) -> list[str]:
        """Every variant that is known by name alone: the preset, then its baselines."""

    @abstractmethod
    def quick(self) -> list[str]:
        """The three variants of `--quick`."""

    @abstractmethod
    def set_of(self, source: int | str | None) -> str:
        """tuning, reporting, or other: which set of prompts comes from `source`."""

    def clash(self, asked: Sequence[Mapping[str, str]], before: Sequence[Mapping[str, str]]) -> str | None:
        """A prompt of an earlier run that should be in a set of the same source and is not; None where all is well."""
        return None

    def witnesses(self) -> list[dict[str, Any]]:
        """Labelled `witnesses` entries of who gives the verdict, where that takes a network."""
        return []

    def refusal(self, settings: Settings) -> str | None:
        """Why a resolved config cannot be judged here: it optimises for who gives the verdict. None: it can."""
        return None

    def calibrate(self, scorers: Iterable[Scorer], tell: Tell) -> dict[str, Threshold]:
        """Identity -> threshold of each scorer, where accepting takes one; `tell` is told of what takes time."""
        return {}

    @abstractmethod
    def accepts(self, thresholds: Mapping[str, Threshold]) -> Accepts:
        """Who accepts what, given the thresholds by identity."""

    @abstractmethod
    def judge(self, levels: Levels, prompt: str, scores: Sequence[Score]) -> Verdict:
        """The verdict on an image as it is saved, given the prompt and what everybody says of it."""


def get(name: str) -> World:
    """The world of a name.

    Raises:
        RefcoreError: there is none.
    """
    from refcore_bench.tasks.natural import NATURAL
    from refcore_bench.tasks.playground import PLAYGROUND

    worlds: dict[str, World] = {world.name: world for world in (PLAYGROUND, NATURAL)}
    if name not in worlds:
        raise unknown("benchmark", name, worlds)
    return worlds[name]
