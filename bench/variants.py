"""A variant: a name, what it does with a prompt, and who scores the result; its hash tells a changed one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from refcore.config import presets
from refcore.config.run import RunConfig
from refcore.config.settings import load_yaml, override
from refcore.engine.build import resolve
from refcore.errors import RefcoreError, unknown
from refcore.explain import validated
from refcore_bench.checkpoint_hashes import hashes
from refcore_bench.labels import labels
from refcore_bench.sampling import Sampling
from refcore_bench.scorers import Scorer, digest, identity, judged, witnesses
from refcore_bench.task import World
from refcore_bench.tasks import baselines
from refcore_bench.tasks.playground import PLAYGROUND

NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")
Method = Literal["inversion", "sampling"]


@dataclass(frozen=True)
class Variant:
    """One line of a benchmark."""

    name: str
    method: Method
    settings: dict[str, Any]
    """Resolved: of a RunConfig without prompts and seeds, or of a Sampling."""
    scorers: tuple[Scorer, ...]
    checkpoints: dict[str, str]
    """Model -> hash of its files."""

    @cached_property
    def hash(self) -> str:
        """Of all but the name: two variants of one hash make the same images."""
        definition = self.to_dict()
        del definition["name"]
        return digest(definition)

    @property
    def optimised(self) -> list[Scorer]:
        return [scorer for scorer in self.scorers if scorer.optimised]

    @property
    def labels(self) -> list[str]:
        """What tables must say of what makes or chooses its images; the panel only scores, and may use any parser."""
        return labels([self.settings, *(scorer.term for scorer in self.optimised)])

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "scorers": [asdict(scorer) for scorer in self.scorers]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Variant:
        return cls(**{**data, "scorers": tuple(Scorer(**scorer) for scorer in data["scorers"])})

    def difference(self, other: Variant) -> str:
        """Which fields of two definitions differ, the first few, with both values."""
        ours, theirs = (dict(_flat(v.to_dict())) for v in (self, other))
        fields = [f for f in {**ours, **theirs} if f != "name" and ours.get(f) != theirs.get(f)]
        told = [f"{f} is {ours.get(f)!r}, was {theirs.get(f)!r}" for f in fields[:3]]
        return "; ".join(told) + (f"; and {len(fields) - 3} more" if len(fields) > 3 else "")


def parse(text: str, world: World = PLAYGROUND) -> Variant:
    """`NAME`, or `NAME=SOURCE[,field=value...]`: SOURCE is a baseline, a preset or the path of a YAML config.

    Overrides are those of `--set`. A baseline of the preset is made from the overridden preset, so that
    `quick-sds=sds-alone,steps=50` is SDS alone with 50 steps. Commas inside brackets and quotes do not separate.

    Raises:
        RefcoreError: an unknown source, or settings that are wrong (a ConfigError).
    """
    name, equals, recipe = text.partition("=")
    name = name.strip()
    if not NAME.fullmatch(name):
        raise RefcoreError(
            f'--variant "{text}": "{name}" is no name of a variant; expected NAME, or NAME=SOURCE,field=value with '
            "letters, digits, -, _, + and . in the name"
        )
    source, *overrides = _split(recipe) if equals else [name]
    try:
        return make(name, source.strip(), overrides, world)
    except RefcoreError as error:
        raise RefcoreError(f'--variant "{text}": {error}') from error


def make(name: str, source: str, overrides: Sequence[str] = (), world: World = PLAYGROUND) -> Variant:
    """A variant of a baseline, preset or file; see `parse`."""
    base = presets.get(world.name).settings
    samplings = world.samplings()
    if source in samplings:
        return _sampling(name, samplings[source], overrides, world)
    if source in world.inversions(base):
        changed = override(base, overrides)
        recipes = world.inversions(changed)
        if source not in recipes:
            raise unknown("baseline", source, recipes)
        return _inversion(name, recipes[source](changed), world)
    if source in presets.names():
        return _inversion(name, override(presets.get(source).settings, overrides), world)
    if Path(source).suffix in (".yaml", ".yml") or Path(source).is_file():
        return _inversion(name, override(load_yaml(source), overrides), world)
    raise unknown("variant", source, {*world.names(), *presets.names()})


def panel(world: World = PLAYGROUND) -> list[dict[str, Any]]:
    """The referees of the world's preset as `witnesses` entries: the ones that score every variant."""
    return judged(resolve(RunConfig.from_settings(presets.get(world.name).settings)))


def _inversion(name: str, settings: dict[str, Any], world: World) -> Variant:
    config = resolve(RunConfig.from_settings({**settings, "prompts": [], "seeds": [0]}))
    kept = {field: value for field, value in config.settings().items() if field not in ("prompts", "seeds")}
    if (why := world.refusal(kept)) is not None:
        raise RefcoreError(why)
    own = [(term, True) for term in judged(config)] + [(term, False) for term in witnesses(config)]
    return _variant(name, "inversion", kept, own, world)


def _sampling(name: str, settings: dict[str, Any], overrides: Sequence[str], world: World) -> Variant:
    own = [assignment for assignment in overrides if not assignment.startswith("budget.")]
    sampling = validated(Sampling, override(settings, own))
    kept = sampling.model_dump(mode="json")
    if sampling.choose:  # among as many as cost what the preset costs
        reference = presets.get(world.name).settings
        reference = override(reference, [a.removeprefix("budget.") for a in overrides if a not in own])
        config = resolve(RunConfig.from_settings(reference))
        kept["budget"] = {f: value for f, value in config.settings().items() if f not in ("prompts", "seeds")}
    elif len(own) < len(overrides):
        raise RefcoreError(f"budget is a field of {baselines.BEST_OF_N} alone")
    return _variant(name, "sampling", kept, [(term, sampling.choose) for term in panel(world)], world)


def _variant(
    name: str, method: Method, settings: dict[str, Any], own: Sequence[tuple[dict[str, Any], bool]], world: World
) -> Variant:
    """Scored by who gives the verdict, by its own referees and witnesses, and by the panel; each once.

    A label that two of them have stays with the first; the other one's gets a prefix.
    """
    whole = panel(world)
    in_panel = {identity(term) for term in whole}
    scorers: dict[str, Scorer] = {}
    asked = [("", world.witnesses(), False), ("own", [term for term, optimised in own if optimised], True)]
    asked += [("own", [term for term, optimised in own if not optimised], False), ("panel", whole, False)]
    for prefix, terms, optimised in asked:
        for term in terms:
            key = identity(term)
            if key not in scorers:
                taken = {scorer.label for scorer in scorers.values()}
                label = term["label"] if term["label"] not in taken else f"{prefix}-{term['label']}"
                scorers[key] = Scorer(label, {**term, "label": label}, key, optimised, key in in_panel)
    return Variant(name, method, settings, tuple(scorers.values()), hashes([settings, whole, world.witnesses()]))


def _flat(value: Any, path: str = "") -> list[tuple[str, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else None
    if items is None or not value:
        return [(path, value)]
    return [leaf for key, inner in items for leaf in _flat(inner, f"{path}.{key}" if path else str(key))]


def _split(text: str) -> list[str]:
    """At the commas outside brackets and quotes.

    >>> _split("playground,steps=2,ema.restarts=[1, 2]")
    ['playground', 'steps=2', 'ema.restarts=[1, 2]']
    """
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        else:
            depth += (letter in "[{") - (letter in "]}")
            if letter == "," and depth == 0:
                parts.append("")
                continue
        parts[-1] += letter
    return parts
