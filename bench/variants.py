"""A variant: its name, its settings, and the referees that score its images; its hash changes with its definition."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from refcore.config import presets
from refcore.config.differences import differences
from refcore.config.run import RunConfig
from refcore.config.settings import override
from refcore.engine.build import resolve
from refcore.errors import RefcoreError, unknown
from refcore.explain import validated
from refcore_bench.checkpoint_hashes import hashes
from refcore_bench.labels import labels
from refcore_bench.option_text import split
from refcore_bench.samples import baselines
from refcore_bench.samples.choice import Choice
from refcore_bench.samples.pipelines import Pipeline, checked
from refcore_bench.samples.sampling import Sampling
from refcore_bench.scorers import Scorer, digest, identity, judged, witnesses
from refcore_bench.task import Task
from refcore_bench.tasks.playground import PLAYGROUND

NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")
DIFFUSERS = "diffusers:"
"""Prefix of a source that is a pipeline of diffusers: its folder or hub id, or a YAML file of settings."""
Method = Literal["inversion", "sampling", "pipeline", "images"]


@dataclass(frozen=True)
class Variant:
    """One line of a benchmark."""

    name: str
    method: Method
    settings: dict[str, Any]
    """Resolved settings: a RunConfig's without prompts and seeds, a Sampling's or a Pipeline's."""
    scorers: tuple[Scorer, ...]
    checkpoints: dict[str, str]
    """Checkpoint -> hash of its files."""

    @cached_property
    def hash(self) -> str:
        """Hash of everything but the name: two variants with the same hash make the same images."""
        definition = self.to_dict()
        del definition["name"]
        return digest(definition)

    @property
    def optimised(self) -> list[Scorer]:
        return [scorer for scorer in self.scorers if scorer.optimised]

    @property
    def labels(self) -> list[str]:
        """Labels of what makes or chooses its images, for the tables; the panel only scores and may use any parser."""
        own = {field: value for field, value in self.settings.items() if field != "budget"}  # it only says how much
        return labels([own, *(scorer.term for scorer in self.optimised)])

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "scorers": [asdict(scorer) for scorer in self.scorers]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Variant:
        return cls(**{**data, "scorers": tuple(Scorer(**scorer) for scorer in data["scorers"])})

    def difference(self, other: Variant) -> str:
        """The first few fields in which two definitions differ, with both values."""
        found = [each for each in differences([self.to_dict(), other.to_dict()]) if each[0] != "name"]
        shown = [f"{field} is {ours!r}, was {theirs!r}" for field, (ours, theirs) in found[:3]]
        return "; ".join(shown) + (f"; and {len(found) - 3} more" if len(found) > 3 else "")


def variant_from_text(text: str, task: Task = PLAYGROUND) -> Variant:
    """The variant of `NAME` or `NAME=SOURCE[,field=value...]`; SOURCE is a baseline, a preset, a YAML config's path, or
    `diffusers:` and the folder, hub id or YAML file of a pipeline.

    Overrides are those of `--set`. A baseline is derived from the overridden preset: `quick-sds=sds-alone,steps=50` is
    SDS alone with 50 steps. Commas inside brackets and quotes do not separate.

    Raises:
        RefcoreError: an unknown source, or invalid settings (a ConfigError).
    """
    name, equals, recipe = text.partition("=")
    name = name.strip()
    if not NAME.fullmatch(name):
        raise RefcoreError(
            f'--variant "{text}": "{name}" is not a valid name; expected NAME, or NAME=SOURCE,field=value with '
            "letters, digits, -, _, + and . in the name"
        )
    source, *overrides = split(recipe) if equals else [name]
    try:
        return _from_source(name, source.strip(), overrides, task)
    except RefcoreError as error:
        raise RefcoreError(f'--variant "{text}": {error}') from error


def variant_from_settings(name: str, settings: dict[str, Any], task: Task = PLAYGROUND) -> Variant:
    """The variant that inverts by the settings of a config.

    Raises:
        RefcoreError: invalid settings (a ConfigError), or such as the task refuses.
    """
    return _inversion(name, settings, task)


def _from_source(name: str, source: str, overrides: Sequence[str], task: Task) -> Variant:
    """A baseline, preset or YAML config with overrides; see `variant_from_text`."""
    base = presets.get(task.preset).settings
    samplings = task.samplings()
    if source in samplings:
        return _drawing(name, "sampling", samplings[source], overrides, task)
    if source in task.inversions(base):
        changed = override(base, overrides)
        recipes = task.inversions(changed)
        if source not in recipes:
            raise unknown("baseline", source, recipes)
        return _inversion(name, recipes[source](changed), task)
    if source.startswith(DIFFUSERS):
        model = source.removeprefix(DIFFUSERS)
        own = baselines.read(model) if Path(model).suffix in (".yaml", ".yml") else {"model": model}
        return _drawing(name, "pipeline", own, overrides, task)
    if source in baselines.names():
        return _drawing(name, "pipeline", baselines.settings_of(source), overrides, task)
    if source in presets.names():
        return _inversion(name, override(presets.get(source).settings, overrides), task)
    if Path(source).suffix in (".yaml", ".yml") or Path(source).is_file():
        return _inversion(name, override(presets.load(source), overrides), task)
    raise unknown("variant", source, {*task.names(), *presets.names(), *baselines.names()})


def _inversion(name: str, settings: dict[str, Any], task: Task) -> Variant:
    config = resolve(RunConfig.from_settings({**task.prepared(settings), "prompts": [], "seeds": [0]}))
    kept = {field: value for field, value in config.settings().items() if field not in ("prompts", "seeds")}
    if (why := task.refusal(kept)) is not None:
        raise RefcoreError(why)
    own = [(term, True) for term in judged(config)] + [(term, False) for term in witnesses(config)]
    return _variant(name, "inversion", kept, own, task)


def _drawing(name: str, method: Method, settings: dict[str, Any], overrides: Sequence[str], task: Task) -> Variant:
    """A variant that draws samples, of an embedded model or of a pipeline, and perhaps chooses among them."""
    own = [assignment for assignment in overrides if not assignment.startswith("budget.")]
    given = override(settings, own)
    drawing: Choice = checked(validated(Pipeline, given)) if method == "pipeline" else validated(Sampling, given)
    kept = drawing.model_dump(mode="json")
    if (why := task.refusal(kept)) is not None:
        raise RefcoreError(why)
    if drawing.choose:  # among as many samples as the preset's evaluations pay for
        reference = presets.get(drawing.budget_preset or task.preset).settings
        reference = override(reference, [a.removeprefix("budget.") for a in overrides if a not in own])
        config = resolve(RunConfig.from_settings(task.prepared(reference)))
        kept["budget"] = {f: value for f, value in config.settings().items() if f not in ("prompts", "seeds")}
    elif len(own) < len(overrides) or drawing.budget_preset or drawing.by_preset:
        field = "budget" if len(own) < len(overrides) else "budget_preset" if drawing.budget_preset else "by_preset"
        raise RefcoreError(f"only a variant that chooses among samples has a field {field}")
    choosers = _choosers(drawing.by_preset or drawing.budget_preset, task) if drawing.choose else []
    return _variant(name, method, kept, [(term, True) for term in choosers], task)


def _choosers(preset: str | None, task: Task) -> list[dict[str, Any]]:
    """Labelled `witnesses` entries of the referees that choose: those of a preset, or of the task's."""
    if preset is None:
        return task.referees()
    found = judged(resolve(RunConfig.from_settings(presets.get(preset).settings)))
    if not found:
        raise RefcoreError(f'preset "{preset}" has no referee that looks for the prompt, so none that could choose')
    return found


def _variant(
    name: str,
    method: Method,
    settings: dict[str, Any],
    own: Sequence[tuple[dict[str, Any], bool]],
    task: Task,
) -> Variant:
    """A variant scored by the network that gives the verdict, its own referees and witnesses, and the panel; each once.

    If two have the same label, the first keeps it and the other's gets a prefix.

    Args:
        name: the variant's name.
        method: how its images are made.
        settings: resolved settings.
        own: (`witnesses` entry, whether the variant optimises for it) of its referees and witnesses.
        task: the benchmark's task.
    """
    panel = task.panel()
    in_panel = {identity(term) for term in panel}
    scorers: dict[str, Scorer] = {}
    groups = [("", task.witnesses(), False), ("own", [term for term, optimised in own if optimised], True)]
    groups += [("own", [term for term, optimised in own if not optimised], False), ("panel", panel, False)]
    for prefix, terms, optimised in groups:
        for term in terms:
            key = identity(term)
            if key not in scorers:
                taken = {scorer.label for scorer in scorers.values()}
                label = term["label"] if term["label"] not in taken else f"{prefix}-{term['label']}"
                scorers[key] = Scorer(label, {**term, "label": label}, key, optimised, key in in_panel)
    return Variant(name, method, settings, tuple(scorers.values()), hashes([settings, panel, task.witnesses()]))
