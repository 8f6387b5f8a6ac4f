"""The `hf-clip` referee: the cosine between image and prompt in a CLIP of transformers, such as PickScore."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field

from refcore_plugins.models.transformers_towers import CLIP, TransformersTowers
from refcore_plugins.models.two_towers import TwoTowers


class HfClip(TwoTowers):
    """Contrastive similarity (CLIP, arXiv 2103.00020) of any `CLIPModel` of transformers.

    PickScore (arXiv 2305.01569) is such a model, a CLIP-H fine-tuned on human preferences. Its published scores are the
    cosine times the model's logit scale, 100.

    Wanted, the loss is 1 - cos or half the squared angle; not wanted, the part of the cosine above `absent_below`.
    `linear` is 30 - s with the published score s, as ReNO (arXiv 2406.04312) uses PickScore.
    """

    class Config(TwoTowers.Config):
        model: str = Field(
            "yuvalkirstain/PickScore_v1", description=f"A {CLIP} of transformers with its tokenizer: hub id or folder."
        )

    name = "hf-clip"
    published_best: ClassVar[float] = 30.0

    def open(self, device: torch.device, dtype: torch.dtype) -> TransformersTowers:
        """See `TwoTowers.open`."""
        return TransformersTowers(self.name, self.config.model, [CLIP], device, dtype)
