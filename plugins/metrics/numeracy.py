"""The `numeracy-owlv2` metric: T2I-CompBench++'s numbers of things, with an open-vocabulary detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os.path import expanduser
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Literal

import torch
from pydantic import Field

from refcore.contracts.metric import BenchmarkPrompt, Measurement
from refcore.images import Levels
from refcore_plugins.metrics.box_metric import STAND_IN, BoxMetric
from refcore_plugins.metrics.box_scores import merged, numbers_of, numeracy
from refcore_plugins.metrics.counted_things import counted_by_parse, counted_by_vocabulary, read_vocabulary
from refcore_plugins.metrics.nouns import RENAMED


class Numeracy(BoxMetric):
    """Whether things are as many as a prompt says: T2I-CompBench++'s numeracy (arXiv 2307.06350), by another detector.

    Each of the prompt's n things gives 0.5 / n if it is there at all, and as much again if their number is right.
    Things come from the parse of the prompt, or from a vocabulary like that of the public repository.
    """

    class Config(BoxMetric.Config):
        local_fields: ClassVar[Mapping[str, str]] = MappingProxyType(
            {"vocabulary": "the public repository has one, examples/dataset/new_objects.txt; null: the prompt's parse"}
        )
        vocabulary: str | None = Field(
            None, description='File of lines "singular - plural"; null: things come from the parse of the prompt.'
        )
        matching: Literal["contains", "equal"] = Field(
            "contains",
            description="contains: where no label equals a thing, labels that contain it are counted, as published. "
            "equal: none are.",
        )
        whole_pixels: bool = Field(
            True,
            description="Whether sides of boxes are a pixel longer where repeats are merged, as in the published code.",
        )

    name = "numeracy-owlv2"
    unit = "share of things there, and in number, 0 to 1"
    renamed: ClassVar[Mapping[str, str]] = RENAMED

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """See `Metric.load`."""
        super().load(device, dtype)
        self._words()

    def one(self, image: Levels, prompt: BenchmarkPrompt) -> Measurement:
        """See `BoxMetric.one`."""
        wanted = self.read(prompt)
        names = [self.name_of(noun) for noun in wanted]
        found = merged(self.look_for(image, wanted), self.config.whole_pixels)
        numbers = numbers_of(found, names, exact=self.config.matching == "equal")
        shares = numeracy(numbers, list(wanted.values()))
        parts: dict[str, float] = {}
        for (noun, asked), number, share in zip(wanted.items(), numbers, shares, strict=True):
            parts |= {f"{asked} {noun}": share, f"{noun} found": float(number)}
        return Measurement(sum(shares), parts)

    def read(self, prompt: BenchmarkPrompt) -> dict[str, int]:
        """Thing in the singular -> number.

        Raises:
            RefcoreError: the prompt counts nothing.
        """
        words = self._words()
        things = (
            counted_by_parse(self.parse(prompt.text)) if words is None else counted_by_vocabulary(prompt.text, words)
        )
        if not things:
            raise self.cannot(prompt, "expected a number, a, an or one to eight, and a thing that it counts")
        return things

    def remarks(self, prompts: Sequence[BenchmarkPrompt]) -> list[str]:
        """Where the things come from."""
        if not prompts:
            return []
        parsed = "things and numbers come from the parse of the prompt, not from the published vocabulary of 88 nouns"
        return [STAND_IN] if self.config.vocabulary is not None else [parsed, STAND_IN]

    def _words(self) -> dict[str, str] | None:
        if self.config.vocabulary is None:
            return None
        if not hasattr(self, "_vocabulary"):
            self._vocabulary = read_vocabulary(Path(expanduser(self.config.vocabulary)))
        return self._vocabulary
