"""A variant: a name, what it does with a prompt, and who scores the result; its hash tells a changed one."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from refcore import preset
from refcore.build import resolve
from refcore.config import PROMPT, RefereeTerm, RunConfig, Witness
from refcore.fields import parse as parse_fields
from refcore.names import unknown
from refcore.plugin import RefcoreError
from refcore_playground.bench import baselines
from refcore_playground.bench.checkpoints import hashes
from refcore_playground.bench.labels import labels
from refcore_playground.bench.sampling import Sampling

NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")
QUICK = ("sampling-7.5", "{first}-alone")
"""Baselines of `--quick`, beside the preset; {first} is its first referee."""
Method = Literal["inversion", "sampling"]


@dataclass(frozen=True)
class Scorer:
    """A referee that scores the images of a variant."""

    label: str
    term: dict[str, Any]
    """The `witnesses` entry that asks it: as the variant, or the preset, asks it."""
    identity: str
    """Hash of what decides its scores, its checkpoint included; equal identities give equal scores."""
    optimised: bool
    """Whether the variant optimises for it, or chooses by it."""
    panel: bool
    """Whether it is a referee of the default preset: those score every variant."""


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
        return _digest(definition)

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


def parse(text: str) -> Variant:
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
        return make(name, source.strip(), overrides)
    except RefcoreError as error:
        raise RefcoreError(f'--variant "{text}": {error}') from error


def make(name: str, source: str, overrides: Sequence[str] = ()) -> Variant:
    """A variant of a baseline, preset or file; see `parse`."""
    base = preset.get(preset.DEFAULT).settings
    if source in baselines.samplings():
        return _sampling(name, baselines.samplings()[source], overrides)
    if source in baselines.inversions(base):
        changed = preset.override(base, overrides)
        recipes = baselines.inversions(changed)
        if source not in recipes:
            raise unknown("baseline", source, recipes)
        return _inversion(name, recipes[source](changed))
    if source in preset.names():
        return _inversion(name, preset.override(preset.get(source).settings, overrides))
    if Path(source).suffix in (".yaml", ".yml") or Path(source).is_file():
        return _inversion(name, preset.override(preset.load(source), overrides))
    raise unknown("variant", source, {*baselines.names(), *preset.names()})


def panel() -> list[dict[str, Any]]:
    """The referees of the default preset as `witnesses` entries: the ones that score every variant."""
    return [term for _, term in _judged(resolve(RunConfig.parse(preset.get(preset.DEFAULT).settings)))]


def quick() -> list[str]:
    """The three variants of `--quick`."""
    first = RunConfig.parse(preset.get(preset.DEFAULT).settings).referee_labels[0]
    return [preset.DEFAULT, *(name.format(first=first) for name in QUICK)]


def _inversion(name: str, settings: dict[str, Any]) -> Variant:
    config = resolve(RunConfig.parse({**settings, "prompts": [], "seeds": [0]}))
    kept = {field: value for field, value in config.settings().items() if field not in ("prompts", "seeds")}
    own = [(label, term, True) for label, term in _judged(config)]
    own += [
        (label, term.model_dump(mode="json"), False)
        for label, term in zip(config.witness_labels, config.witnesses, strict=True)
    ]
    return _variant(name, "inversion", kept, own)


def _sampling(name: str, settings: dict[str, Any], overrides: Sequence[str]) -> Variant:
    own = [assignment for assignment in overrides if not assignment.startswith("budget.")]
    sampling = parse_fields(Sampling, preset.override(settings, own))
    kept = sampling.model_dump(mode="json")
    if sampling.choose:  # among as many as cost what the preset costs
        reference = preset.get(preset.DEFAULT).settings
        reference = preset.override(reference, [a.removeprefix("budget.") for a in overrides if a not in own])
        config = resolve(RunConfig.parse(reference))
        kept["budget"] = {f: value for f, value in config.settings().items() if f not in ("prompts", "seeds")}
    elif len(own) < len(overrides):
        raise RefcoreError(f"budget is a field of {baselines.BEST_OF_N} alone")
    return _variant(name, "sampling", kept, [(term["label"], term, sampling.choose) for term in panel()])


def _variant(
    name: str, method: Method, settings: dict[str, Any], own: Sequence[tuple[str, dict[str, Any], bool]]
) -> Variant:
    whole = panel()
    checkpoints = hashes([settings, whole])
    panel_identities = {_identity(term): term for term in whole}
    scorers: dict[str, Scorer] = {}
    for label, term, optimised in own:
        identity = _identity(term)
        if identity not in scorers or optimised:
            scorers[identity] = Scorer(
                label, {**term, "label": label}, identity, optimised, identity in panel_identities
            )
    taken = {scorer.label for scorer in scorers.values()}
    for identity, term in panel_identities.items():
        if identity not in scorers:
            label = term["label"] if term["label"] not in taken else f"panel-{term['label']}"
            scorers[identity] = Scorer(label, {**term, "label": label}, identity, False, True)
    return Variant(name, method, settings, tuple(scorers.values()), checkpoints)


def _judged(config: RunConfig) -> list[tuple[str, dict[str, Any]]]:
    """(label, `witnesses` entry) of the referees that a run is optimised for and that look for the prompt itself."""
    found = []
    for label, term in zip(config.referee_labels, config.referees, strict=True):
        if term.wanted and PROMPT in term.prompt and term.largest_weight(config.steps) > 0:
            found.append((label, _as_witness(label, term, config).model_dump(mode="json")))
    return found


def _as_witness(label: str, term: RefereeTerm, config: RunConfig) -> Witness:
    """Asked as the run asks it, the run's dtypes written out, so that it scores alike on its own."""
    return Witness(
        name=term.name,
        config=term.config,
        label=label,
        prompt=term.prompt,
        dtype=term.dtype or config.dtype,
        autocast=term.autocast or config.autocast or "off",
    )


def _identity(term: dict[str, Any]) -> str:
    asked = {field: value for field, value in term.items() if field != "label"}
    return _digest([asked, hashes(asked)])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


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
