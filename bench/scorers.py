"""The referees that score a variant's images, and when two of them are the same."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from refcore.config.run import RunConfig
from refcore.config.terms import PROMPT, RefereeTerm, Witness
from refcore_bench.checkpoint_hashes import hashes


@dataclass(frozen=True)
class Scorer:
    """A referee that scores the images of a variant."""

    label: str
    term: dict[str, Any]
    """Its `witnesses` entry, with the settings of the variant or of the preset."""
    identity: str
    """Hash of everything that determines its scores, the checkpoint included; equal identities give equal scores."""
    optimised: bool
    """Whether the variant optimises for it, or chooses by it."""
    panel: bool
    """Whether it is a referee of the task's preset: those score every variant."""


def judged(config: RunConfig) -> list[dict[str, Any]]:
    """Labelled `witnesses` entries of the referees that a run optimises for and that judge the prompt itself.

    Terms with the same referee and question (in turn, or in other views) become one entry, the first.
    """
    found: dict[str, dict[str, Any]] = {}
    for label, term in zip(config.referee_labels, config.referees, strict=True):
        if term.wanted and PROMPT in term.prompt and term.largest_weight(config.steps) > 0:
            entry = _as_witness(label, term, config).model_dump(mode="json")
            found.setdefault(identity(entry), entry)
    return list(found.values())


def witnesses(config: RunConfig) -> list[dict[str, Any]]:
    """Labelled entries of a config's own witnesses."""
    return [
        {**term.model_dump(mode="json"), "label": label}
        for label, term in zip(config.witness_labels, config.witnesses, strict=True)
    ]


def identity(term: dict[str, Any]) -> str:
    """Hash of a `witnesses` entry without its label, and of its checkpoints."""
    unlabelled = {field: value for field, value in term.items() if field != "label"}
    return digest([unlabelled, hashes(unlabelled)])


def digest(value: Any) -> str:
    """Hash of nested plain data, 16 digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _as_witness(label: str, term: RefereeTerm, config: RunConfig) -> Witness:
    """The term as a witness, with the run's dtypes written out so that its scores are the same outside the run."""
    return Witness(
        name=term.name,
        config=term.config,
        label=label,
        prompt=term.prompt,
        dtype=term.dtype or config.dtype,
        autocast=term.autocast or config.autocast or "off",
        weights=term.weights or config.weights or "off",
    )
