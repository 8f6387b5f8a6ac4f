"""The `2d-owlv2` metric: T2I-CompBench's spatial relations in the picture, with an open-vocabulary detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from refcore.contracts.metric import BenchmarkPrompt, Measurement
from refcore.images import Levels
from refcore_plugins.metrics.box_metric import STAND_IN
from refcore_plugins.metrics.box_scores import (
    CUT,
    SPATIAL_WORDS,
    Relation,
    highest,
    position,
    relation_of,
    spatial_2d,
)
from refcore_plugins.metrics.complex_prompts import things_around
from refcore_plugins.metrics.nouns import PEOPLE, UNLISTED_2D, scorable
from refcore_plugins.metrics.two_things import TwoThings


class Spatial2d(TwoThings):
    """Whether two things are where a prompt says: T2I-CompBench's 2-D score (arXiv 2307.06350), by another detector.

    The things are the first and the last noun of the prompt. Score = 0.25 s1 + 0.25 s2 + 0.5 position, with the scores
    of the best box of each; below 0.5 it is 0. See `box_scores.position` and `box_scores.spatial_2d`.
    """

    class Config(TwoThings.Config):
        cut: float = Field(CUT, ge=0.0, le=1.0, description="Score below which an image counts 0; 0 cuts nothing.")
        near: Literal["either", "both"] = Field(
            "either",
            description="Axes along which things near each other are less than 150 pixels apart; either, as published, "
            "also has things at opposite ends of a row.",
        )
        on_top_of: bool = Field(
            False,
            description='Whether "on top of" is scored as "on the top of"; the published code has no branch for it: 0.',
        )
        distinct: bool = Field(
            False,
            description="Whether two things of one name need two boxes: a girl and a boy, both persons; as published, "
            "both are the same box.",
        )
        form: Literal["2d", "complex"] = Field(
            "2d",
            description="2d: first and last noun of the prompt. complex: the nouns before and after a preposition, as "
            "in the 3-in-1 score; a prompt without exactly two counts 0.",
        )

    name = "2d-owlv2"
    unit = "share of boxes and position, 0 to 1"
    renamed: ClassVar[Mapping[str, str]] = PEOPLE
    unlisted: ClassVar[Mapping[str, int]] = UNLISTED_2D

    def one(self, image: Levels, prompt: BenchmarkPrompt) -> Measurement:
        """See `BoxMetric.one`."""
        things, relation = self.read(prompt)
        if things is None:
            return Measurement(0.0, {"things around a preposition": 0.0})
        found = self.look_for(image, things)
        labels = [self.name_of(noun) for noun in things]
        a = highest(found, labels[0])
        b = highest(found, labels[1], rank=int(self.config.distinct and labels[0] == labels[1]))
        meant: Relation | None = "top" if relation == "on top of" and self.config.on_top_of else relation
        value = spatial_2d(a, b, meant, cut=self.config.cut, near=self.config.near)
        parts = {f"{things[0]} (first)": a.score if a else 0.0, f"{things[1]} (last)": b.score if b else 0.0}
        if relation is not None:
            both = a is not None and b is not None
            parts[relation] = position(a.box, b.box, meant, self.config.near) if both else 0.0  # type: ignore[union-attr, arg-type]
        return Measurement(value, parts)

    def read(self, prompt: BenchmarkPrompt) -> tuple[tuple[str, str] | None, Relation | None]:
        """The two things of a prompt, and the relation of the first to the second; in the complex form perhaps None.

        Raises:
            RefcoreError: in the 2-D form, where it has no noun or no relation.
        """
        relation = relation_of(prompt.text)
        if self.config.form == "complex":
            return things_around(self.parse(prompt.text)), relation
        if relation is None:
            raise self.cannot(prompt, f"expected one of {', '.join(word for word, _ in SPATIAL_WORDS)}")
        return self.first_and_last(prompt), relation

    def remarks(self, prompts: Sequence[BenchmarkPrompt]) -> list[str]:
        """How many of the prompts the published detector's list of labels could score."""
        if not prompts or self.config.form == "complex":
            return []
        can = scorable([self.first_and_last(prompt) for prompt in prompts], self.unlisted)
        here = (
            "they are not looked for here, either"
            if self.config.label_list == "official"
            else "here they are looked for"
        )
        return [
            f"the label list of the published detector can score {can:,} of these {len(prompts):,} prompts at all: it "
            f"has no label that equals {', '.join(self.unlisted)}, and a missing thing leaves at most 0.25, which is "
            f"cut to 0; {here}",
            STAND_IN,
        ]
