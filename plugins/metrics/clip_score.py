"""The `clip-score` metric: T2I-CompBench's cosine of CLIP B/32, and the CLIPScore of Hessel et al."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field

from refcore.contracts.metric import BenchmarkPrompt, Measurement, Metric
from refcore.errors import shortened
from refcore.images import Levels
from refcore.plugin import PluginConfig
from refcore_plugins.models.finished_images import covering
from refcore_plugins.models.noun_phrases import NounPhrases
from refcore_plugins.models.spacy_pipeline import ENGLISH, refuse_missing
from refcore_plugins.models.transformers_towers import CLIP, TransformersTowers

WEIGHT = 2.5
"""w of CLIPScore (arXiv 2104.08718, eq. 1), which brings most cosines to [0, 1]."""


class ClipScore(Metric):
    """Cosine of image and prompt in OpenAI's CLIP ViT-B/32, neither clipped nor scaled, as in T2I-CompBench.

    With `scale: clipscore` it is CLIPScore (arXiv 2104.08718, eq. 1), 2.5 max(cos, 0), whose authors put `prefix: "A
    photo depicts "` before the prompt.
    """

    class Config(PluginConfig):
        model: str = Field(
            "openai/clip-vit-base-patch32",
            description=f"A {CLIP} of transformers with its tokenizer: hub id or folder.",
        )
        scale: Literal["cosine", "clipscore"] = Field(
            "cosine", description="cosine: as T2I-CompBench's tables. clipscore: 2.5 max(cos, 0)."
        )
        prefix: str = Field("", description="Text before each prompt.")
        without_adjectives: bool = Field(
            False,
            description="The prompt's adjectives (spaCy's ADJ) are left out, as in 3-in-1, and a space stands between "
            "each two tokens.",
        )
        parser: str = Field(ENGLISH, description="An English pipeline of spaCy, or its folder, for that.")
        batch: int = Field(64, ge=1, description="Most images at a time.")

    name = "clip-score"
    unit: ClassVar[str] = "cosine, -1 to 1, or with scale: clipscore, 0 to 2.5"
    config: Config

    def check(self, prompts: Sequence[str] = ()) -> None:
        """See `Plugin.check`: the spaCy model is looked for, too, where adjectives are left out."""
        super().check(prompts)
        if self.config.without_adjectives:
            refuse_missing(self.config.parser)

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """See `Metric.load`. The model is in `dtype`; features are compared in float32 or wider."""
        self.towers = TransformersTowers(self.name, self.config.model, [CLIP], device, dtype)
        self._device = device
        if self.config.without_adjectives:
            assert self.phrases.pipeline is not None  # a missing one is told before anything is measured

    @property
    def phrases(self) -> NounPhrases:
        """The parse of prompts."""
        if not hasattr(self, "_phrases"):
            self._phrases = NounPhrases(f'the metric "{self.name}"', self.config.parser)
        return self._phrases

    def text_of(self, prompt: str) -> str:
        """What CLIP reads of a prompt."""
        read = self.phrases.without_adjectives(prompt) if self.config.without_adjectives else prompt
        return f"{self.config.prefix}{read}"

    @torch.no_grad()
    def measure(self, images: Sequence[Levels], prompts: Sequence[BenchmarkPrompt]) -> list[Measurement]:
        """See `Metric.measure`. Parts: the text that CLIP read -> cosine."""
        found: list[Measurement] = []
        side = self.towers.input_size[0]
        for start in range(0, len(images), self.config.batch):
            views = torch.stack([covering(image, side) for image in images[start : start + self.config.batch]])
            texts = [self.text_of(prompt.text) for prompt in prompts[start : start + self.config.batch]]
            cosines = (self.towers.image(views.to(self._device)) * self.towers.text(texts)).sum(-1)
            for text, cosine in zip(texts, cosines.tolist(), strict=True):
                value = WEIGHT * max(cosine, 0.0) if self.config.scale == "clipscore" else cosine
                found.append(Measurement(value, {text: cosine}))
        return found

    def remarks(self, prompts: Sequence[BenchmarkPrompt]) -> list[str]:
        """See `Metric.remarks`."""
        texts = list(dict.fromkeys(prompt.text for prompt in prompts))
        if not hasattr(self, "towers"):
            return []
        if not (long := [text for text in texts if self.towers.truncated(self.text_of(text))]):
            return []
        return [
            f"{len(long)} of {len(texts)} prompts exceed CLIP's {self.towers.context} tokens and are read without "
            f'their ends (OpenAI\'s code refuses them): "{shortened(long[0])}"'
        ]
