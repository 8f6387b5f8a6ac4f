"""What a panel of referees is loaded from: the judging part of a run's config, or terms without a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from refcore.config.terms import Autocast, RefereeTerm, Witness
from refcore.config.views import CLEAN, ViewGroup

Term = TypeVar("Term", RefereeTerm, Witness)


@dataclass(frozen=True)
class Labelled(Generic[Term]):
    """A term with the label of its losses and scores, and the field that messages name it by."""

    label: str
    term: Term
    field: str
    """Dotted place in the config, "referees.0", or the option that gave it."""


@dataclass(frozen=True)
class PanelConfig:
    """Referees and witnesses, the samples that they judge, and how: all that judging takes, and no canvas."""

    samples: Sequence[tuple[str, int]]
    """(prompt, seed) of each of the B samples."""
    referees: Sequence[Labelled[RefereeTerm]] = ()
    witnesses: Sequence[Labelled[Witness]] = ()
    views: Mapping[str, ViewGroup] = field(default_factory=dict)
    """Named view groups; "clean" is always there."""
    steps: int = 1
    """Steps of the run, for weights that are scheduled."""
    chunk: int | Mapping[str, int] | None = None
    """Views judged at a time, as `RunConfig.chunk`."""
    device: str = "auto"
    dtype: str = "float32"
    autocast: Autocast | None = None
    strict: bool = False

    @property
    def view_groups(self) -> dict[str, ViewGroup]:
        """`views` with the clean group."""
        return {CLEAN: ViewGroup(count=1), **self.views}
