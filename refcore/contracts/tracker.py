"""The contract of a tracker: a plugin that records runs in TensorBoard, Weights & Biases, MLflow and the like."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from refcore.plugin import Kind, Plugin, PluginConfig

if TYPE_CHECKING:
    from refcore.images import Levels

Outcome = Literal["finished", "interrupted", "failed"]
"""The three ways in which a run ends."""


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of a run before its first step."""

    name: str
    """Name of the run: that of its folder, or its first prompt where it has none."""
    folder: Path | None
    """The run's folder, where a tracker's own files may lie in a subfolder; None where the run writes nothing."""
    config: Mapping[str, Any]
    """The resolved config as plain values, nested, as `config.yaml` has it."""
    samples: Sequence[tuple[str, int]]
    """[B] prompt and seed of each sample."""
    first_step: int = 0
    """Number of the first step that is recorded: above 0 where an interrupted run goes on."""


class Tracker(Plugin):
    """Records a run elsewhere. It changes nothing of what the run computes.

    `start` is called once, then `scalars` after every step, `pictures` now and then, and `end` last, however the run
    ended. An exception ends the run as one of a referee does: what was made is kept.
    """

    kind: ClassVar[Kind] = "trackers"
    usage: ClassVar[str] = "refcore invert PROMPT --track NAME"
    shareable: ClassVar[bool] = False

    class Config(PluginConfig):
        pictures: int = Field(
            20, ge=0, description="Steps between two pictures of every sample; 0: those of the start and the end alone."
        )

    @abstractmethod
    def start(self, run: TrackedRun) -> None:
        """Opens the record of a run.

        Raises:
            RefcoreError: the record cannot be written, with what to do.
        """

    @abstractmethod
    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Records numbers of a step.

        Args:
            step: number of steps done, from 1.
            values: name -> number, such as `loss/clip`, the mean over the tracks that took part, and
                `loss/clip/sample_0`, that of the sample's tracks. NaN and infinity are left out.
        """

    @abstractmethod
    def pictures(self, step: int, pictures: Mapping[str, Levels]) -> None:
        """Records pictures.

        Args:
            step: number of steps done; at the start that of the steps before.
            pictures: name, such as `sample_0`, -> [H, W, 3] uint8, sRGB, as the run's images are saved.
        """

    @abstractmethod
    def end(self, outcome: Outcome) -> None:
        """Closes the record; nothing follows. Also called after an exception of `start`."""
