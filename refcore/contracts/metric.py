"""The contract of a metric: a plugin that measures finished images against their prompts, as a benchmark defines it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from refcore.plugin import Kind, Plugin

if TYPE_CHECKING:
    import torch

    from refcore.images import Levels


@dataclass(frozen=True)
class BenchmarkPrompt:
    """A prompt, and what its benchmark's own file says of it."""

    text: str
    category: str = ""
    """Category, or tag, of the prompt in its benchmark."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Plain data beside the prompt: the classes, counts and colours of GenEval, the questions of DPG-Bench."""


@dataclass(frozen=True)
class Measurement:
    """The value of an image, and the numbers that it was made of."""

    value: float
    parts: Mapping[str, float] = field(default_factory=dict)
    """Name -> number, such as `"a green bench?" -> 0.98`, in the order of the formula."""

    def to_dict(self) -> dict[str, Any]:
        """`{"value": float, "parts": {name: float}}`, ready for JSON."""
        return {"value": self.value, "parts": dict(self.parts)}


class Metric(Plugin):
    """Measures how well finished images match their prompts. Nothing optimises it; a referee does that.

    `measure` is called for any number of images after `load`, and an image's value depends on no other image.
    """

    kind: ClassVar[Kind] = "metrics"
    usage: ClassVar[str] = "refcore bench score FOLDER --task t2i-compbench --out DIR --metric NAME"
    facts: ClassVar[tuple[str, ...]] = ("unit", "needs")
    unit: ClassVar[str] = ""
    """What a value is, and its range: "product of probabilities, 0 to 1". Higher is better."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Keys of `BenchmarkPrompt.facts` without which an image cannot be measured."""

    @abstractmethod
    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """Loads the models, frozen and in eval mode.

        Raises:
            CheckpointError: a checkpoint is missing or of another kind.
        """

    @abstractmethod
    def measure(self, images: Sequence[Levels], prompts: Sequence[BenchmarkPrompt]) -> list[Measurement]:
        """Measures images; no gradient is kept.

        Args:
            images: [B] of [H, W, 3] uint8, sRGB, as saved; sizes may differ.
            prompts: [B] the prompt of each image.

        Raises:
            RefcoreError: a prompt lacks one of `needs`, or cannot be measured.
        """

    def remarks(self, prompts: Sequence[BenchmarkPrompt]) -> list[str]:
        """Sentences for the reader of a table about these prompts: how many of them can be measured at all, and why."""
        return []
