"""The contract of a benchmark's task: its prompts, its named variants, and who gives the verdict."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from refcore.config import presets
from refcore.config.run import RunConfig
from refcore.contracts.judge import Verdict
from refcore.engine.build import resolve
from refcore.images import Levels
from refcore_bench.scorers import Scorer, judged

if TYPE_CHECKING:
    from refcore_bench.thresholds import Threshold

Row = Mapping[str, Any]
"""A row of the results."""
Score = Mapping[str, Any]
"""An entry of a row's `scores`: one referee's score of the image."""
Settings = dict[str, Any]
"""Nested plain dicts, as in a YAML file."""
Recipe = Callable[[Settings], Settings]
"""Turns the settings of a preset into those of a variant."""
Accepts = Callable[[Score], bool | None]
"""Whether a referee accepts an image; None where the question does not apply to it."""
Progress = Callable[[str], None]
"""Progress callback; receives one line."""
TUNING, REPORTING = "tuning", "reporting"
"""The prompts on which settings may be chosen, and those of reported numbers."""


@dataclass(frozen=True)
class TaskPrompt:
    """A prompt of a task, and its place in the tables."""

    prompt: str
    category: str
    split: str
    """The part of the prompt set it is reported with (seen or unseen); the set's name where there are no parts."""
    facts: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Plain data beside the prompt, for the metrics of published benchmarks; see `refcore.BenchmarkPrompt`."""

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; `facts` are left out where there are none."""
        own = {"prompt": self.prompt, "category": self.category, "split": self.split}
        return {**own, "facts": dict(self.facts)} if self.facts else own


@dataclass(frozen=True)
class Measure:
    """A further column of the tables: a share of images, or a mean."""

    title: str
    value: Callable[[Row], float]
    """Value for one image."""
    share: bool
    """Whether the value is yes or no."""


@dataclass(frozen=True)
class Wording:
    """A task's words in titles, tables and messages."""

    title: str
    prompts: str
    """Plural of the task's prompts: "prompts", "classes"."""
    source: str
    """Name of a prompt set; {} stands for its source."""
    judge: str | None = None
    """Who gives the verdict; None where nobody does, and the rest of these words is not needed."""
    right: str = ""
    """Column of images with verdict yes."""
    facts: str | None = None
    """Plural of single facts; None where the verdict is the only one."""
    hack: str = ""
    """Definition of a hack: what the referees say, and what the verdict is."""
    suffix: str = ""
    """Added to a column's name in titles."""


class Task(ABC):
    """A benchmark's prompts and how images of them are judged. Running, results, tables and galleries are shared."""

    name: ClassVar[str]
    """Name in the folder of results."""
    wording: ClassVar[Wording]
    categories: ClassVar[tuple[str, ...]]
    splits: ClassVar[tuple[str, ...]] = ()
    """The two parts of a prompt set that are compared with each other, or none."""
    measures: ClassVar[tuple[Measure, ...]] = ()
    in_given_order: ClassVar[bool] = False
    """Whether variants keep the order of the command line and are compared with the first; else the preset leads."""

    @property
    def preset(self) -> str:
        """Name of the preset that the baselines are derived from."""
        return self.name

    def referees(self) -> list[dict[str, Any]]:
        """The preset's referees as `witnesses` entries; by them a sampler chooses."""
        return judged(resolve(RunConfig.from_settings(presets.get(self.preset).settings)))

    def panel(self) -> list[dict[str, Any]]:
        """Labelled `witnesses` entries of those who score the images of every variant: here the preset's referees."""
        return self.referees()

    @abstractmethod
    def inversions(self, settings: Settings) -> dict[str, Recipe]:
        """Name -> recipe of every baseline that is an inversion; the referees are those of `settings`."""

    def samplings(self) -> dict[str, Settings]:
        """Name -> settings (see `refcore_bench.samples.sampling.Sampling`) of every baseline that samples."""
        return {}

    @abstractmethod
    def names(self) -> list[str]:
        """Every variant with a name of its own: the preset, then its baselines."""

    @abstractmethod
    def quick(self) -> list[str]:
        """The three variants of `--quick`."""

    @abstractmethod
    def set_of(self, source: int | str | None) -> str:
        """Name of the prompt set from a source: tuning, reporting, or other."""

    def clash(self, prompts: Sequence[Mapping[str, str]], before: Sequence[Mapping[str, str]]) -> str | None:
        """A prompt of an earlier run that is missing from a set of the same source; None if there is none."""
        return None

    def witnesses(self) -> list[dict[str, Any]]:
        """Labelled `witnesses` entries of the networks that give the verdict, if any."""
        return []

    def prepared(self, settings: Settings) -> Settings:
        """The settings of an inversion as this task runs it, whatever the variant."""
        return settings

    def refusal(self, settings: Settings) -> str | None:
        """Why resolved settings are no variant of this task; None: they are.

        An inversion's settings are those of a config, a sampling's those of `refcore_bench.samples.sampling.Sampling`,
        a pipeline's those of `refcore_bench.samples.pipelines.Pipeline`.
        """
        return None

    def measure_thresholds(self, scorers: Iterable[Scorer], progress: Progress) -> dict[str, Threshold]:
        """Identity -> threshold of each scorer, for tasks where accepting takes one."""
        return {}

    @abstractmethod
    def accepts(self, thresholds: Mapping[str, Threshold]) -> Accepts:
        """The rule by which a referee accepts an image, given the thresholds by identity."""

    @abstractmethod
    def judge(self, levels: Levels, prompt: str, scores: Sequence[Score]) -> Verdict | None:
        """The verdict on an image as it is saved, given its prompt and all scores; None where nobody gives one."""
