"""The world of real networks: ImageNet classes, and a witness that says whether the class is there.

The truth is not known. A third classifier, which nothing optimises for and which sees a coarse copy, stands for it.
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
from refcore_bench.hacks import accepted
from refcore_bench.scorers import witnesses
from refcore_bench.task import (
    REPORTING,
    TUNING,
    Accepts,
    Asked,
    Measure,
    Recipe,
    Row,
    Score,
    Settings,
    Words,
    World,
)
from refcore_bench.tasks import baselines
from refcore_bench.thresholds import Threshold
from refcore_plugins.models.imagenet_classes import ClassNames

CLASSES = Path(__file__).with_name("natural-classes.yaml")
GROUPS = ("animals", "objects", "scenes")
OTHER = "other"
"""The group of classes that are in no list."""
VIEWS = (0, 1, 4, 16)
"""Views a step and referee of the variants `views-N`; without any, the referees see the image as it is."""
WITNESS = "witness"
"""Label of who gives the verdict, in the preset and in every row."""
FIRST_FEW = 5
QUICK_REFEREES = 2


class Natural(World):
    """ImageNet classes; a referee accepts what it ranks first among the 1,000, and so does the witness."""

    name = "natural"
    words = Words(
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
        Measure(f"in its first {FIRST_FEW}", lambda row: witness_of(row)["rank"] <= FIRST_FEW, share=True),
        Measure("its p", lambda row: witness_of(row)["score"], share=False),
        Measure("referees rank first", lambda row: accepted(row, by_rank, "optimised"), share=True),
    )

    def inversions(self, settings: Settings) -> dict[str, Recipe]:
        alone: dict[str, Recipe] = {f"{label}-alone": partial(only, label=label) for label in _networks(settings)}
        views: dict[str, Recipe] = {f"views-{count}": partial(with_views, count=count) for count in VIEWS}
        canvases: dict[str, Recipe] = {"pixels": partial(on, canvas="pixel"), "fourier": partial(on, canvas="fourier")}
        return {**alone, "no-prior": baselines.without_prior, **views, **canvases}

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
            for i, term in enumerate(settings[field]):
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
    """Accepting is ranking the class first; a referee that is no classifier cannot be asked that."""
    return None if score["rank"] is None else score["rank"] == 1


def witness_of(row: Row) -> Score:
    """What the witness says of a row's image."""
    return _labelled(row["scores"])


def draw(
    chosen: str = TUNING, groups: Sequence[str] = (), names: Sequence[str] = (), count: int | None = None
) -> list[Asked]:
    """The classes of a list, in turn of its groups, so that any number of them is spread over all.

    Args:
        chosen: "tuning" or "reporting".
        groups: only these; all, if none is named.
        names: only these classes; with "tuning" also any other that is not in the list of "reporting".
        count: only so many.

    Raises:
        RefcoreError: an unknown list, group or class, a class of the other list, or groups and classes at once.

    >>> [one.prompt for one in draw(count=4)]
    ['jellyfish', 'sports car', 'volcano', 'macaw']
    """
    listed = _listed()
    if chosen not in listed:
        raise unknown("list of classes", chosen, listed, "--set")
    for group in groups:
        if group not in GROUPS:
            raise unknown("group", group, GROUPS, "--group")
    if groups and names:
        raise RefcoreError("--group and --class were both given; expected one of them")
    wanted = [group for group in GROUPS if group in (groups or GROUPS)]
    columns = [[Asked(name, group, chosen) for name in listed[chosen][group]] for group in wanted]
    asked = [one for turn in zip_longest(*columns) for one in turn if one is not None]
    return ([_named(name, chosen, asked) for name in dict.fromkeys(names)] if names else asked)[:count]


def only(settings: Settings, label: str) -> Settings:
    """One network of the referees, which takes the views of all, so that a step has as many model evaluations.

    Terms that take turns do so in views of their own; those of one view group are taken to judge at the same steps.

    Raises:
        RefcoreError: the views of all cannot be shared equally by its terms.
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
                        f'"{label}" alone cannot take the {total} views of "{name}" in equal parts; make views.{name}.'
                        f"{field} a number that can be divided"
                    )
    return changed


def with_views(settings: Settings, count: int) -> Settings:
    """So many views a step for every referee; 0 is the image as it is, without augmentation."""
    changed = copy.deepcopy(settings)
    if not count:
        changed["referees"] = [{**term, "views": CLEAN} for term in changed["referees"]]
        changed["views"] = {}
    for group in changed["views"].values():
        group.update(count=count, hardest=None)
    return changed


def on(settings: Settings, canvas: str) -> Settings:
    """Another canvas, as it comes, with everything else as it was."""
    return {**copy.deepcopy(settings), "canvas": {"name": canvas}}


def _networks(settings: Settings) -> dict[str, list[int]]:
    """Label of its first term -> places of the terms that ask the same referee, whatever their views and steps."""
    config = RunConfig.from_settings(settings)
    labels: dict[str, str] = {}
    places: dict[str, list[int]] = {}
    for i, (label, term) in enumerate(zip(config.referee_labels, config.referees, strict=True)):
        asked = json.dumps([term.name, term.config], sort_keys=True)
        places.setdefault(labels.setdefault(asked, label), []).append(i)
    return places


def _labelled(scores: Sequence[Score]) -> Score:
    (found,) = [score for score in scores if score["referee"] == WITNESS]
    return found


@cache
def _listed() -> dict[str, dict[str, list[str]]]:
    """reporting, tuning -> group -> classes."""
    listed: dict[str, dict[str, list[str]]] = yaml.safe_load(CLASSES.read_text("utf-8"))
    return listed


def _named(name: str, chosen: str, asked: Sequence[Asked]) -> Asked:
    """The class of a list that `name` means, or one of no list."""
    index = _index(name)
    for one in asked:
        if _index(one.prompt) == index:
            return one
    if chosen == REPORTING:
        raise unknown("class", name, [one.prompt for one in asked], f"--class with --set {REPORTING}")
    if index in {_index(each) for names in _listed()[REPORTING].values() for each in names}:
        raise RefcoreError(f'--class "{name}" is one of those that are reported on; ask for it with --set {REPORTING}')
    return Asked(name, OTHER, chosen)


def _index(name: str) -> int:
    """Which of the 1,000 classes a name means.

    Raises:
        RefcoreError: none, or several.
    """
    known = ClassNames.known()
    found = known.find(name)
    if not found:
        guess = nearest(name, [*known.names, *(word for words in known.synonyms for word in words)])
        hint = f'; did you mean "{guess}"?' if guess else "; docs/natural.md says which names there are"
        raise RefcoreError(f'--class "{name}" is no ImageNet class{hint}')
    if len(found) > 1:
        raise RefcoreError(
            f'--class "{name}" is the name of {len(found)} ImageNet classes; expected one of '
            + ", ".join(f'"{known.names[i]}"' for i in found)
        )
    return found[0]


NATURAL = Natural()
