"""Base of the metrics that detect the things a prompt names and score their boxes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field, field_validator

from refcore.contracts.metric import BenchmarkPrompt, Measurement, Metric
from refcore.errors import RefcoreError
from refcore.images import Levels
from refcore.plugin import PluginConfig
from refcore_plugins.metrics.nouns import names_of
from refcore_plugins.models.detections import Detection, resized_to
from refcore_plugins.models.open_vocabulary_detector import load_detector
from refcore_plugins.models.spacy_pipeline import ENGLISH, REQUIRES, load_pipeline, refuse_missing

if TYPE_CHECKING:
    from spacy.tokens import Doc

STAND_IN = "boxes are not by the published detector: values are not comparable with published ones"
"""What every table of these metrics says."""
SHORTER, LONGER = 479, 480
"""Pixels of the sides of the image in which boxes are measured, as the published detectors resize it."""


class BoxMetric(Metric):
    """Detects the things that a prompt names and scores their boxes by a formula.

    The published detectors (UniDet, of a closed list of labels) are not in transformers. An open-vocabulary detector
    stands in: formulas are the published ones, numbers are not comparable, and the names of these metrics say so.
    Boxes are in pixels of the image resized to 479 x 480 at most, as the published ones are; the detector itself sees
    the image as it is.
    """

    class Config(PluginConfig):
        model: str = Field(
            "google/owlv2-base-patch16-ensemble",
            description="An OWLv2 or a Grounding DINO of transformers: hub id or folder.",
        )
        threshold: float = Field(
            0.5, ge=0.0, lt=1.0, description="Lowest score of a box; the published detectors' 0.5 is of another scale."
        )
        overlap: float = Field(
            0.5,
            gt=0.0,
            le=1.0,
            description="IoU with a better box of the same name above which a box is dropped; 1 keeps all.",
        )
        query: str = Field("a photo of a {}", description="What an OWLv2 is asked, with {} for the name.")
        rename: bool = Field(
            True, description="Whether nouns are renamed as in the published code: a girl or a man is a person."
        )
        synonyms: bool = Field(
            False, description="Whether a thing is looked for by its other names, too: a sofa as a couch."
        )
        parser: str = Field(ENGLISH, description="An English pipeline of spaCy, or its folder.")

        @field_validator("query")
        @classmethod
        def _has_a_place(cls, query: str) -> str:
            if query.count("{}") != 1 or query.replace("{}", "").count("{"):
                raise ValueError("expected a text with {} once, where the name stands, such as 'a photo of a {}'")
            return query

    requires = REQUIRES
    renamed: ClassVar[Any] = {}
    """Noun -> the name that the published code looks for instead."""

    def check(self, prompts: Sequence[str] = ()) -> None:
        """See `Plugin.check`, for the pipeline of spaCy, too."""
        super().check(prompts)
        refuse_missing(self.config.parser)

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """See `Metric.load`."""
        c = self.config
        self.detector = load_detector(self.name, c.model, device, dtype, c.query, c.overlap)
        self._parser()

    @torch.no_grad()
    def measure(self, images: Sequence[Levels], prompts: Sequence[BenchmarkPrompt]) -> list[Measurement]:
        """See `Metric.measure`."""
        return [self.one(image, prompt) for image, prompt in zip(images, prompts, strict=True)]

    @abstractmethod
    def one(self, image: Levels, prompt: BenchmarkPrompt) -> Measurement:
        """The measurement of an image."""

    def parse(self, text: str) -> Doc:
        """The text with spaCy's tags and dependencies."""
        return self._parser()(text)  # type: ignore[no-any-return]

    def look_for(self, image: Levels, nouns: Iterable[str]) -> list[Detection]:
        """Detections of things by their nouns, by falling score, in pixels of the image resized to 480."""
        names = names_of([self.name_of(noun) for noun in nouns], self.config.synonyms)
        factor = resized_to(image.shape[0], image.shape[1], SHORTER, LONGER)
        found = self.detector(image, list(names), self.config.threshold)
        return [Detection(names[one.label], one.score, one.box).scaled(factor) for one in found]

    def name_of(self, noun: str) -> str:
        """The name by which a noun is looked for."""
        return str(self.renamed.get(noun, noun)) if self.config.rename else noun

    def cannot(self, prompt: BenchmarkPrompt, why: str) -> RefcoreError:
        """The error on a prompt that cannot be measured."""
        return RefcoreError(f'{self.name} cannot measure "{prompt.text}": {why}')

    def _parser(self) -> Any:
        if not hasattr(self, "_pipeline"):
            who = f'the metric "{self.name}"'
            self._pipeline = load_pipeline(
                who, self.config.parser, ("tagger", "parser", "lemmatizer"), ("ner", "senter")
            )
        return self._pipeline
