"""The `3-in-1` metric: T2I-CompBench's score of complex prompts, of BLIP-VQA, 2-D relations and CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any, Final

import torch
from pydantic import Field

from refcore.contracts.metric import BenchmarkPrompt, Measurement, Metric
from refcore.errors import RefcoreError
from refcore.images import Levels
from refcore.plugin import PluginConfig
from refcore_plugins.metrics.blip_vqa import BlipVqa
from refcore_plugins.metrics.clip_score import ClipScore
from refcore_plugins.metrics.spatial_2d import Spatial2d
from refcore_plugins.models.spacy_pipeline import REQUIRES

ATTRIBUTE, SPACE, ACTION = "attribute", "spatial", "action"
PARTS: Final = {
    "spatial": (ATTRIBUTE, SPACE),
    "action": (ATTRIBUTE, ACTION),
    "spatialaction": (ATTRIBUTE, SPACE, ACTION),
    "": (ATTRIBUTE, SPACE, ACTION),
}
"""The fact `kind` of a prompt -> what its score is the mean of."""


class ThreeInOne(Metric):
    """Mean of up to three measures of a complex prompt (T2I-CompBench, arXiv 2307.06350, 3_in_1.py).

    Attributes by BLIP-VQA, space by the 2-D score of the nouns around a preposition, actions by CLIP on the prompt
    without its adjectives. Which of them count depends on the list of the benchmark that has the prompt, its fact
    `kind`: "spatial" (complex_val_spatial): attribute and space; "action" (complex_val_action): attribute and action;
    "spatialaction", or no such fact: all three. The published 2-D score is by another detector.
    """

    class Config(PluginConfig):
        blip_vqa: BlipVqa.Config = Field(default_factory=BlipVqa.Config, description="Settings of blip-vqa.")
        spatial_2d: Spatial2d.Config = Field(
            default_factory=lambda: Spatial2d.Config(form="complex"),
            description="Settings of 2d-owlv2, whose form is complex whatever they say.",
        )
        clip_score: ClipScore.Config = Field(
            default_factory=lambda: ClipScore.Config(without_adjectives=True),
            description="Settings of clip-score, which leaves out adjectives whatever they say.",
        )

        def checkpoints(self) -> dict[str, str]:
            """See `PluginConfig.checkpoints`: those of all three."""
            inner: tuple[tuple[str, Any], ...] = (
                ("blip_vqa", self.blip_vqa),
                ("spatial_2d", self.spatial_2d),
                ("clip_score", self.clip_score),
            )
            return {f"{of}.{field}": name for of, one in inner for field, name in one.checkpoints().items()}

    name = "3-in-1"
    unit = "mean of probabilities, box scores and cosines, -0.5 to 1"
    requires = REQUIRES
    config: Config

    def __init__(self, config: Any = None, **fields: Any) -> None:
        super().__init__(config, **fields)
        c = self.config
        self.metrics: dict[str, Metric] = {
            ATTRIBUTE: BlipVqa(c.blip_vqa),
            SPACE: Spatial2d(c.spatial_2d.model_copy(update={"form": "complex"})),
            ACTION: ClipScore(c.clip_score.model_copy(update={"without_adjectives": True})),
        }

    def check(self, prompts: Sequence[str] = ()) -> None:
        """See `Plugin.check`, for each of the three."""
        super().check(prompts)
        for metric in self.metrics.values():
            metric.check(prompts)

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """See `Metric.load`."""
        for metric in self.metrics.values():
            metric.load(device, dtype)

    def measure(self, images: Sequence[Levels], prompts: Sequence[BenchmarkPrompt]) -> list[Measurement]:
        """See `Metric.measure`. The parts are the measures that count."""
        asked = [self.parts_of(prompt) for prompt in prompts]
        values: list[dict[str, float]] = [{} for _ in asked]
        for part, metric in self.metrics.items():
            rows = [i for i, parts in enumerate(asked) if part in parts]
            found = metric.measure([images[i] for i in rows], [prompts[i] for i in rows])
            for i, one in zip(rows, found, strict=True):
                values[i][part] = one.value
        return [Measurement(fmean(parts.values()), parts) for parts in values]

    def parts_of(self, prompt: BenchmarkPrompt) -> tuple[str, ...]:
        """Names of the measures that count for a prompt.

        Raises:
            RefcoreError: its fact `kind` is none of those.
        """
        kind = prompt.facts.get("kind", "")
        if kind not in PARTS:
            raise RefcoreError(
                f'3-in-1: the kind of "{prompt.text}" is {kind!r:.40}; expected spatial, action or spatialaction, by '
                "the list of the benchmark that has the prompt, or no such fact"
            )
        return PARTS[kind]

    def remarks(self, prompts: Sequence[BenchmarkPrompt]) -> list[str]:
        """How many prompts do not say which list they are on."""
        open_ones = sum("kind" not in prompt.facts for prompt in prompts)
        if not open_ones:
            return []
        return [
            f"{open_ones:,} of these {len(prompts):,} prompts do not say on which of the benchmark's lists they are "
            "(fact kind), and count as the mean of all three measures; published numbers know the lists"
        ]
