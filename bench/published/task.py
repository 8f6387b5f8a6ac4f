"""A published benchmark as a task: public prompts, a metric for each group of them, and nobody who gives a verdict."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from refcore.contracts.judge import Verdict
from refcore.errors import RefcoreError
from refcore.images import Levels
from refcore_bench.published.public_files import PublicFile, brought
from refcore_bench.task import Accepts, Score, TaskPrompt
from refcore_bench.tasks.playground_baselines import WithBaselines
from refcore_bench.thresholds import Threshold

SMALL = "small"
"""Source of the prompts of `--quick`: a few of our own, for checkpoints whose numbers mean nothing."""
QUICK = ("inversion=clip-alone,steps=10,init=null,candidates={count: 1}", "sampling=sampling-7.5,steps=10")
"""Variants of `--quick`: a short inversion and a short sampling of the embedded models."""
Prompted = Mapping[str, Any]
"""A row of results, or an entry of `Results.prompts`: prompt, category and split."""


@dataclass(frozen=True)
class MetricUse:
    """A metric of a benchmark, with the settings that differ from its defaults."""

    name: str
    """Registered name."""
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Elsewhere:
    """An image file that was made elsewhere, and what it is an image of."""

    path: Path
    prompt: TaskPrompt
    number: int
    """Place among the images of its prompt, from 0, or its seed."""
    quarter: int | None = None
    """Place of the image in a file of 2 x 2 images, 0 to 3, row by row; None: it is the whole file."""


class PublishedTask(WithBaselines):
    """Prompts that a paper published, images measured as it defines it; variants are compared with the first one."""

    categories = ()
    in_given_order = True
    licence: ClassVar[str]
    """Licence of the prompts, and whose they are."""
    files: ClassVar[tuple[PublicFile, ...]]
    """The public files that hold the prompts."""
    metrics: ClassVar[Mapping[str, MetricUse]]
    """Label -> metric; the first is that of an image whose group names no other."""
    seeds: ClassVar[str]
    """Seeds of the images of a prompt, as in the publication, in the notation of `--seeds`."""
    as_published: ClassVar[frozenset[str]] = frozenset()
    """Groups whose metric is the published one, weights included, so that their columns are comparable."""
    overall: ClassVar[Literal["groups", "images"] | None] = None
    """What the one number of the benchmark is a mean of; None: it has none."""
    quick_prompts: ClassVar[tuple[TaskPrompt, ...]]
    """Prompts of `--quick`, which are not from the publication."""

    @abstractmethod
    def read(self, folder: Path) -> list[TaskPrompt]:
        """The prompts, from a folder that holds the public files.

        Raises:
            RefcoreError: a file is missing, or is not what it should be.
        """

    @abstractmethod
    def groups(self) -> tuple[str, ...]:
        """Columns of the table, in the order of the publication."""

    @abstractmethod
    def groups_of(self, prompt: Prompted) -> tuple[str, ...]:
        """The columns in which a prompt counts."""

    def metric_of(self, group: str) -> str:
        """Label of the metric whose values a column shows."""
        return next(iter(self.metrics))

    @abstractmethod
    def made_elsewhere(self, folder: Path, prompts: Sequence[TaskPrompt]) -> list[Elsewhere]:
        """The image files in a folder whose names are those of the benchmark's public code.

        Raises:
            RefcoreError: no file is named so, or one is of no prompt.
        """

    def prompts(self, folder: Path | None) -> list[TaskPrompt]:
        """The prompts, from a folder, or from the public files, downloaded once and checked by their hashes."""
        return self.read(folder if folder is not None else brought(self.name, self.files))

    def metrics_of(self, prompt: Prompted) -> tuple[str, ...]:
        """Labels of the metrics that measure images of a prompt."""
        return tuple(dict.fromkeys(self.metric_of(group) for group in self.groups_of(prompt)))

    def quick(self) -> list[str]:
        return [*QUICK]

    def set_of(self, source: int | str | None) -> str:
        return str(source)

    def accepts(self, thresholds: Mapping[str, Threshold]) -> Accepts:
        return lambda score: None

    def judge(self, levels: Levels, prompt: str, scores: Sequence[Score]) -> Verdict | None:
        return None

    def panel(self) -> list[dict[str, Any]]:
        return []


def only(prompts: Sequence[TaskPrompt], categories: Sequence[str], per_category: int | None) -> list[TaskPrompt]:
    """The prompts of some categories, the first so many of each; all without a choice. Each prompt is there once.

    Raises:
        RefcoreError: there is no prompt, or no such category.
    """
    if not prompts:
        raise RefcoreError("--prompts: the files hold no prompt; expected those of the public repository")
    prompts = list({(one.split, one.category, one.prompt): one for one in reversed(prompts)}.values())[::-1]
    known = list(dict.fromkeys(one.category for one in prompts))
    for name in categories:
        if name not in known:
            raise RefcoreError(f'--category "{name}": there is none of this name; expected one of {", ".join(known)}')
    chosen: list[TaskPrompt] = []
    for category in known:
        if not categories or category in categories:
            own = [one for one in prompts if one.category == category]
            chosen += own[:per_category]
    return chosen


def of_ids(
    folder: Path, suffixes: Sequence[str], by_id: Mapping[str, TaskPrompt]
) -> Iterator[tuple[Path, TaskPrompt, int]]:
    """(file, prompt, place) of the files that are called by ids; place counts the ids of one prompt, from 0."""
    places: dict[str, list[str]] = {}
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes and path.stem in by_id):
        one = by_id[path.stem]
        ids = places.setdefault(one.prompt, [])
        if path.stem not in ids:
            ids.append(path.stem)
        yield path, one, ids.index(path.stem)


def lines(folder: Path, name: str) -> list[str]:
    """The lines of a text file in a folder, without spaces around them and without empty ones.

    Raises:
        RefcoreError: there is no such file, or it cannot be read.
    """
    return [line.strip() for line in text(folder, name).split("\n") if line.strip()]


def text(folder: Path, name: str) -> str:
    """A text file in a folder, without a byte order mark.

    Raises:
        RefcoreError: there is no such file, or it cannot be read.
    """
    from refcore.text_files import read_text

    try:
        return read_text(folder / name).removeprefix("\ufeff")
    except (OSError, ValueError) as error:
        raise RefcoreError(
            f'--prompts "{folder}": {name} cannot be read ({error}); expected the files of the public repository'
        ) from error
