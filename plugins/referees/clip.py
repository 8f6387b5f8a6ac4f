"""The `clip` referee: the cosine between image and prompt in a CLIP of open_clip."""

from __future__ import annotations

from types import MappingProxyType

import torch
from pydantic import Field

from refcore_plugins.models.checkpoint_conversion import convert_weights
from refcore_plugins.models.open_clip_towers import OpenClipTowers
from refcore_plugins.models.two_towers import TextCleaning, TwoTowers


class Clip(TwoTowers):
    """Contrastive language-image similarity (CLIP, arXiv 2103.00020); any model that open_clip can load.

    Wanted, the loss is 1 - cos (in [0, 2]) or half the squared angle; not wanted, the part of the cosine above
    `absent_below`, which is bounded below by 0 and has no gradient once the prompt is absent from the image.
    """

    class Config(TwoTowers.Config):
        model: str = Field(
            "playground:clip",
            description="An open_clip name (with `pretrained`), hf-hub:ORG/NAME, local-dir:FOLDER or playground:clip.",
        )
        pretrained: str | None = Field(
            None, description="Weights of a model given by name: a tag of open_clip, or a safetensors file."
        )
        text: TextCleaning = Field(
            "own", description="own: prompts are cleaned as by the checkpoint's tokenizer. as_given: they are not."
        )

    name = "clip"
    conversions = MappingProxyType({"weights": convert_weights})

    def open(self, device: torch.device, dtype: torch.dtype) -> OpenClipTowers:
        """See `TwoTowers.open`."""
        return OpenClipTowers(self.name, self.config.model, self.config.pretrained, device, dtype, self.config.text)
