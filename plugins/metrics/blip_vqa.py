"""The `blip-vqa` metric: T2I-CompBench's disentangled BLIP-VQA."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field

from refcore.contracts.metric import BenchmarkPrompt, Measurement, Metric
from refcore.errors import CheckpointError, RefcoreError, shortened
from refcore.images import Levels
from refcore.plugin import PluginConfig
from refcore_plugins.models.blip_checkpoint import convert_vqa
from refcore_plugins.models.caption_text import blip_question
from refcore_plugins.models.finished_images import stretched
from refcore_plugins.models.noun_phrases import MOST, NounPhrases
from refcore_plugins.models.question_answering.answering import log_probabilities
from refcore_plugins.models.question_answering.asking import answered
from refcore_plugins.models.question_answering.blip import BLIP, BlipAnswering
from refcore_plugins.models.spacy_pipeline import ENGLISH, REQUIRES, refuse_missing
from refcore_plugins.models.transformers_folder import TransformersFolder

TOKENS = 35
"""Tokens of a question, [ENC] and [SEP] among them; the rest is cut."""
SIDE = 480
"""Pixels at which the authors trained and ask their model, whatever the picture's proportions."""
DIGITS = 4


class BlipVqa(Metric):
    """Disentangled BLIP-VQA (T2I-CompBench, arXiv 2307.06350, section 4.1): product over noun phrases of p(yes).

    A BLIP is asked "a green bench?" for every noun phrase of the prompt. p is p("yes") / (p("yes") + p("no")) of the
    first token that it writes. The value of an image is the product. Both are rounded to 4 digits.
    """

    class Config(PluginConfig):
        model: str = Field(
            "Salesforce/blip-vqa-capfilt-large",
            description=f"A {BLIP}: hub id or folder. Published numbers are of this one, at 480 pixels.",
        )
        size: int = Field(
            SIDE,
            ge=32,
            description="Side in pixels of what the model sees. The positions of patches are interpolated where the "
            "checkpoint has another size: the hub's has the authors' table of 480, resampled to 384, and here back. "
            "`refcore convert blip-vqa-checkpoint` makes one of 480.",
        )
        phrases: int = Field(
            MOST,
            ge=1,
            description="Most noun phrases that are asked about, the first ones: 8 as published, 2 by default before 2 "
            "December 2023, with higher values. Never compare the two.",
        )
        rounding: bool = Field(
            True, description="Whether each probability, and the product, is rounded to 4 digits, as published."
        )
        parser: str = Field(
            ENGLISH, description="An English pipeline of spaCy, or its folder; published numbers are of en_core_web_sm."
        )
        batch: int = Field(32, ge=1, description="Most questions at a time.")

    name = "blip-vqa"
    unit: ClassVar[str] = "product of probabilities, 0 to 1"
    requires = REQUIRES
    conversions = MappingProxyType({"checkpoint": convert_vqa})
    config: Config

    def check(self, prompts: Sequence[str] = ()) -> None:
        """See `Plugin.check`: the spaCy model is looked for, too, and not loaded."""
        super().check(prompts)
        refuse_missing(self.config.parser)

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """See `Metric.load`. The model is in `dtype`; probabilities are float32 or wider."""
        config = self.config
        folder = TransformersFolder(self.name, config.model, f"expected a {BLIP}, such as {type(config)().model}")
        folder.require([BLIP])
        self._answering = BlipAnswering(folder, "yes", "no", config.size, device, dtype)
        if self._answering.encoder_token is None:
            raise CheckpointError(
                f'{self.name}: the vocabulary of model "{config.model}" has no [ENC], with which a published question '
                f"begins; expected a {BLIP} as the hub has it, whose text_config has 2 tokens more than its tokenizer"
            )
        self._answering.context = min(TOKENS, self._answering.context)
        self._device = device
        assert self.phrases.pipeline is not None  # a missing one is told before anything is measured

    @property
    def phrases(self) -> NounPhrases:
        """The noun phrases of prompts."""
        if not hasattr(self, "_phrases"):
            self._phrases = NounPhrases(f'the metric "{self.name}"', self.config.parser, self.config.phrases)
        return self._phrases

    def questions(self, prompt: str) -> list[str]:
        """What the model is asked about a prompt, as written, before `blip_question` cleans it.

        Raises:
            RefcoreError: the prompt has no noun phrase.
        """
        phrases = self.phrases.of(prompt)
        if not phrases:
            raise RefcoreError(
                f'{self.name}: "{shortened(prompt)}" has no noun phrase by spaCy\'s parse, so there is nothing to ask; '
                "expected a prompt that names a thing"
            )
        return [f"{phrase}?" for phrase in phrases]

    def measure(self, images: Sequence[Levels], prompts: Sequence[BenchmarkPrompt]) -> list[Measurement]:
        """See `Metric.measure`. Parts: question -> probability."""
        asked = [self.questions(prompt.text) for prompt in prompts]
        found: list[list[float]] = [[0.0] * len(questions) for questions in asked]
        for (i, j), log_p in answered(
            self._answering,
            partial(stretched, size=self._answering.input_size),
            images,
            [[blip_question(question) for question in questions] for questions in asked],
            lambda *inputs: log_probabilities(*inputs)[0],
            self.config.batch,
            self._device,
        ):
            p = float(log_p.exp())
            found[i][j] = round(p, DIGITS) if self.config.rounding else p
        digits = DIGITS if self.config.rounding else None
        return [product(questions, each, digits) for questions, each in zip(asked, found, strict=True)]

    def remarks(self, prompts: Sequence[BenchmarkPrompt]) -> list[str]:
        """See `Metric.remarks`."""
        texts = list(dict.fromkeys(prompt.text for prompt in prompts))
        found = []
        if merged := [text for text in texts if self.phrases.merged(text)]:
            found.append(
                f"{len(merged)} of {len(texts)} prompts are asked as ONE question, although they seem to name more: of "
                f'"{shortened(merged[0])}", the only question is "{self.questions(merged[0])[0]}"'
            )
        if cut := [text for text in texts if len(self.phrases.all_of(text)) > self.config.phrases]:
            found.append(
                f"{len(cut)} of {len(texts)} prompts have more than {self.config.phrases} noun phrases, of which the "
                "first are asked about"
            )
        if none := [text for text in texts if not self.phrases.all_of(text)]:
            found.append(
                f"{len(none)} of {len(texts)} prompts have no noun phrase and cannot be measured: "
                f'"{shortened(none[0])}"'
            )
        if hasattr(self, "_answering") and self._answering.interpolates:
            found.append(
                f"the checkpoint's positions of patches are interpolated to {self.config.size} pixels; published "
                f"numbers are of a checkpoint of {SIDE}: refcore convert blip-vqa-checkpoint makes one"
            )
        return found


def product(names: Sequence[str], factors: Sequence[float], digits: int | None = None) -> Measurement:
    """The product of named factors; a name that is there again is told by its number, "a cat? (2)".

    `digits`: of the value, multiplied in float32 as in the public code, which decides between two of them.
    """
    value = math.prod(factors) if digits is None else round(float(np.prod(factors, dtype=np.float32)), digits)
    parts = dict[str, float]()
    for name, factor in zip(names, factors, strict=True):
        again = sum(part == name or part.startswith(f"{name} (") for part in parts)
        parts[f"{name} ({again + 1})" if again else name] = factor
    return Measurement(value, parts)
