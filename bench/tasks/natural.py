"""The task on real networks: ImageNet classes, judged by a witness.

The truth is not known. A third classifier, which nothing optimises for and which sees a coarse copy, stands in for it.
It is of the first referee's family, so `refcore_bench.witnesses` asks others besides.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from functools import cache, partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import yaml

from refcore.config import presets
from refcore.config.run import RunConfig
from refcore.config.views import CLEAN
from refcore.contracts.judge import Fact, Verdict
from refcore.engine.build import resolve
from refcore.errors import RefcoreError, nearest, unknown
from refcore.images import Levels
from refcore_bench.scorers import witnesses
from refcore_bench.statistics.hacks import accepted
from refcore_bench.task import (
    REPORTING,
    TUNING,
    Accepts,
    Measure,
    Recipe,
    Row,
    Score,
    Settings,
    Task,
    TaskPrompt,
    Wording,
)
from refcore_bench.thresholds import Threshold
from refcore_plugins.models.imagenet_classes import ClassNames

CLASSES = Path(__file__).with_name("natural-classes.yaml")
GROUPS = ("animals", "objects", "scenes")
OTHER = "other"
"""Group of the classes that are in no list."""
VIEWS = (0, 4, 16)
"""Views per step and referee of the variants `views-N`; with 0, the referees see the image as it is."""
WITNESS = "witness"
"""Label of the classifier that gives the verdict, in the preset and in every row."""
TOP = 5
QUICK_REFEREES = 2
STRANGER = "squeezenet"
RELATIVE: dict[str, Any] = {"label": "lite1", "weight": 0.333, "config": {"weights": "lite1", "size": 240}}
"""What takes the stranger's place in the variant `relatives`: the other referee's next of kin, with its weight."""


class Natural(Task):
    """ImageNet classes; a referee accepts what it ranks first among the 1,000, and so does the witness."""

    name = "natural"
    wording = Wording(
        title="The benchmark on real networks",
        prompts="classes",
        source="{} classes",
        right="witness ranks first",
        judge="the witness",
        facts=None,
        hack="ranked first by every referee that the variant optimises for, on the whole picture, and not by the "
        "witness, on its coarse copy",
    )
    categories = (*GROUPS, OTHER)
    measures = (
        Measure(f"in its top {TOP}", lambda row: witness_of(row)["rank"] <= TOP, share=True),
        Measure("its p", lambda row: witness_of(row)["score"], share=False),
        Measure("referees rank first", lambda row: accepted(row, by_rank, "optimised"), share=True),
    )

    def inversions(self, settings: Settings) -> dict[str, Recipe]:
        alone: dict[str, Recipe] = {f"{label}-alone": partial(only, label=label) for label in _networks(settings)}
        views: dict[str, Recipe] = {f"views-{count}": partial(with_views, count=count) for count in VIEWS}
        canvases: dict[str, Recipe] = {
            "pixels": partial(on, canvas="pixel"),
            "multires": partial(on, canvas="multires"),
        }
        return {**alone, "relatives": relatives, **views, **canvases}

    def names(self) -> list[str]:
        return [self.name, *self.inversions(presets.get(self.name).settings)]

    def quick(self) -> list[str]:
        return self.names()[: 1 + QUICK_REFEREES]

    def set_of(self, source: int | str | None) -> str:
        return str(source)

    def witnesses(self) -> list[dict[str, Any]]:
        config = resolve(RunConfig.from_settings(presets.get(self.name).settings))
        return [entry for entry in witnesses(config) if entry["label"] == WITNESS]

    def refusal(self, settings: Settings) -> str | None:
        weights = {entry["config"].get("weights") for entry in self.witnesses()}
        for field in ("referees", "priors"):
            for i, term in enumerate(settings.get(field) or []):
                if term["config"].get("weights") in weights:
                    return (
                        f"{field}.{i}.config.weights is {term['config']['weights']}, the witness that gives the "
                        "verdict, so nothing may optimise for it; use another network"
                    )
        return None

    def accepts(self, thresholds: Mapping[str, Threshold]) -> Accepts:
        return by_rank

    def judge(self, levels: Levels, prompt: str, scores: Sequence[Score]) -> Verdict:
        witness = _labelled(scores)
        ok = witness["rank"] == 1
        found = "first" if ok else f"rank {witness['rank']}, first is {witness['first']}"
        return Verdict(ok, [Fact(f"{prompt} first", found, ok)])


def by_rank(score: Score) -> bool | None:
    """Accepts an image whose class the referee ranks first; None for referees that are not classifiers."""
    return None if score["rank"] is None else score["rank"] == 1


def witness_of(row: Row) -> Score:
    """The witness's score of a row's image."""
    return _labelled(row["scores"])


def draw(
    classes: str = TUNING, groups: Sequence[str] = (), names: Sequence[str] = (), count: int | None = None
) -> list[TaskPrompt]:
    """The classes of a list, cycling through its groups, so that any number of them covers all groups.

    Args:
        classes: the list, "tuning" or "reporting".
        groups: only these groups; by default all.
        names: only these classes; with "tuning", any class outside the reporting list.
        count: maximum number of classes.

    Raises:
        RefcoreError: an unknown list, group or class, a class of the other list, or groups and classes at once.

    >>> [one.prompt for one in draw(count=4)]
    ['jellyfish', 'sports car', 'volcano', 'macaw']
    """
    listed = _listed()
    if classes not in listed:
        raise unknown("list of classes", classes, listed, "--classes")
    for group in groups:
        if group not in GROUPS:
            raise unknown("group", group, GROUPS, "--group")
    if groups and names:
        raise RefcoreError("--group and --class were both given; expected one of them")
    wanted = [group for group in GROUPS if group in (groups or GROUPS)]
    columns = [[TaskPrompt(name, group, classes) for name in listed[classes][group]] for group in wanted]
    drawn = [one for turn in zip_longest(*columns) for one in turn if one is not None]
    return ([_named(name, classes, drawn) for name in dict.fromkeys(names)] if names else drawn)[:count]


def only(settings: Settings, label: str) -> Settings:
    """One of the referees' networks with the views of all, so that a step has as many model evaluations as before.

    Terms that take turns have view groups of their own; terms of one view group are assumed to judge at the same steps.

    Raises:
        RefcoreError: the views do not divide equally among the network's terms.
    """
    kept = _networks(settings)[label]
    changed = copy.deepcopy(settings)
    changed["referees"] = [changed["referees"][i] for i in kept]
    views = [term.views for term in RunConfig.from_settings(settings).referees]
    for name in {views[i] for i in kept} - {CLEAN}:
        group = changed["views"][name]
        for field in ("count", "hardest"):
            if group.get(field):
                total = group[field] * views.count(name)
                group[field], rest = divmod(total, sum(views[i] == name for i in kept))
                if rest:
                    raise RefcoreError(
                        f'"{label}" alone cannot divide the {total} views of "{name}" equally among its terms; choose '
                        f"another views.{name}.{field}"
                    )
    return changed


def relatives(settings: Settings) -> Settings:
    """EfficientNet-Lite 1 in the place of the stranger, so that both referees are of one family."""
    changed = copy.deepcopy(settings)
    changed["referees"] = [
        {**term, **RELATIVE} if term["config"].get("weights") == STRANGER else term for term in changed["referees"]
    ]
    return changed


def with_views(settings: Settings, count: int) -> Settings:
    """Every referee with `count` views per step; 0 is the image as it is, without augmentation."""
    changed = copy.deepcopy(settings)
    if not count:
        changed["referees"] = [{**term, "views": CLEAN} for term in changed["referees"]]
        changed["views"] = {}
    for group in changed["views"].values():
        group.update(count=count, hardest=None)
    return changed


def on(settings: Settings, canvas: str) -> Settings:
    """Another canvas with its default config; everything else is unchanged."""
    return {**copy.deepcopy(settings), "canvas": {"name": canvas}}


def _networks(settings: Settings) -> dict[str, list[int]]:
    """Label of a network's first term -> indices of all its terms, whatever their views and steps."""
    config = RunConfig.from_settings(settings)
    labels: dict[str, str] = {}
    places: dict[str, list[int]] = {}
    for i, (label, term) in enumerate(zip(config.referee_labels, config.referees, strict=True)):
        network = json.dumps([term.name, term.config], sort_keys=True)
        places.setdefault(labels.setdefault(network, label), []).append(i)
    return places


def _labelled(scores: Sequence[Score]) -> Score:
    (found,) = [score for score in scores if score["referee"] == WITNESS]
    return found


@cache
def _listed() -> dict[str, dict[str, list[str]]]:
    """reporting, tuning -> group -> classes."""
    listed: dict[str, dict[str, list[str]]] = yaml.safe_load(CLASSES.read_text("utf-8"))
    return listed


def _named(name: str, classes: str, drawn: Sequence[TaskPrompt]) -> TaskPrompt:
    """The class of the list that `name` refers to, or one outside both lists."""
    index = _index(name)
    for one in drawn:
        if _index(one.prompt) == index:
            return one
    if classes == REPORTING:
        raise unknown("class", name, [one.prompt for one in drawn], f"--class with --classes {REPORTING}")
    if index in {_index(each) for names in _listed()[REPORTING].values() for each in names}:
        raise RefcoreError(f'--class "{name}" is one of the reporting classes; add --classes {REPORTING}')
    return TaskPrompt(name, OTHER, classes)


def _index(name: str) -> int:
    """Index of the class, of ImageNet's 1,000, that a name refers to.

    Raises:
        RefcoreError: the name fits no class, or several.
    """
    known = ClassNames.known()
    found = known.find(name)
    if not found:
        guess = nearest(name, [*known.names, *(word for words in known.synonyms for word in words)])
        hint = f'; did you mean "{guess}"?' if guess else "; docs/natural.md lists the names"
        raise RefcoreError(f'--class "{name}" is not an ImageNet class{hint}')
    if len(found) > 1:
        raise RefcoreError(
            f'--class "{name}" is a name of {len(found)} ImageNet classes; expected one of '
            + ", ".join(f'"{known.names[i]}"' for i in found)
        )
    return found[0]


NATURAL = Natural()
