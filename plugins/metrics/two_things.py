"""Base of the metrics of a relation between the first and the last noun of a prompt."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Literal

from pydantic import Field

from refcore.contracts.metric import BenchmarkPrompt
from refcore.images import Levels
from refcore_plugins.metrics.box_metric import BoxMetric
from refcore_plugins.metrics.nouns import nouns_of
from refcore_plugins.models.detections import Detection


class TwoThings(BoxMetric):
    """A relation between two things, which the published detector finds only if its list of labels has both."""

    class Config(BoxMetric.Config):
        label_list: Literal["open", "official"] = Field(
            "open",
            description="open: every noun is looked for. official: not those that the published detector has no label "
            "for, as far as they are known.",
        )

    unlisted: ClassVar[Any] = ()
    """Nouns of the public prompts that the published detector has no label for."""

    def look_for(self, image: Levels, nouns: Iterable[str]) -> list[Detection]:
        """See `BoxMetric.look_for`; with the official list of labels, without the nouns that it lacks."""
        official = self.config.label_list == "official"
        return super().look_for(image, [noun for noun in nouns if not (official and noun in self.unlisted)])

    def first_and_last(self, prompt: BenchmarkPrompt) -> tuple[str, str]:
        """First and last noun of a prompt; the same where it has one.

        Raises:
            RefcoreError: it has none.
        """
        nouns = nouns_of(self.parse(prompt.text))
        if not nouns:
            raise self.cannot(prompt, "expected two nouns, and spaCy finds none")
        return nouns[0], nouns[-1]
