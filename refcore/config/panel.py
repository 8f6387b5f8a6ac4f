"""The config of a panel of referees: the judging part of a run's config, or terms without a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from refcore.config.terms import Autocast, RefereeTerm, Weights, Witness
from refcore.config.views import CLEAN, ViewGroup

Term = TypeVar("Term", RefereeTerm, Witness)


@dataclass(frozen=True)
class Labelled(Generic[Term]):
    """A term, the label of its losses and scores, and the field that names it in messages."""

    label: str
    term: Term
    field: str
    """Dotted path in the config, "referees.0", or the option that gave it."""


@dataclass(frozen=True)
class PanelConfig:
    """Referees, witnesses, the samples that they judge, and settings: all that judging needs, without a canvas."""

    samples: Sequence[tuple[str, int]]
    """(prompt, seed) of each of the B samples."""
    referees: Sequence[Labelled[RefereeTerm]] = ()
    witnesses: Sequence[Labelled[Witness]] = ()
    views: Mapping[str, ViewGroup] = field(default_factory=dict)
    """Named view groups; "clean" always exists."""
    steps: int = 1
    """Number of steps of the run, for scheduled weights."""
    chunk: int | Mapping[str, int] | None = None
    """Views judged at a time; see `RunConfig.chunk`."""
    device: str = "auto"
    dtype: str = "float32"
    autocast: Autocast | None = None
    weights: Weights | None = None
    offload: Literal["cpu"] | None = None
    strict: bool = False

    @property
    def view_groups(self) -> dict[str, ViewGroup]:
        """`views` and the clean group."""
        return {CLEAN: ViewGroup(count=1), **self.views}
