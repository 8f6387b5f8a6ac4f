"""Similarity of features as a loss: unit vectors, their cosine or angle, and the referee that two towers make of it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Protocol

import torch
from pydantic import Field
from torch import Tensor

from refcore.contracts.conditioning import Conditioning
from refcore.contracts.referee import Referee
from refcore.plugin import PluginConfig
from refcore_plugins.models.feature_similarity import SimilarityLoss, similarity_loss

PROMPTS_AT_ONCE = 256
"""Prompts in one pass of a text tower, which bounds its memory."""


class Towers(Protocol):
    """An image tower and a text tower that meet in one space, as every CLIP and SigLIP has them."""

    input_size: tuple[int, int]
    scale: Tensor
    """[] factor of the cosine in the model's own logits."""
    bias: Tensor
    """[] what is added to them: 0 for a CLIP."""

    def image(self, views: Tensor) -> Tensor:
        """[N, 3, H, W] in [0, 1] -> [N, D] unit features, float32 or wider, differentiable."""

    def text(self, prompts: Sequence[str]) -> Tensor:
        """P prompts -> [P, D] unit features, float32 or wider. No gradient."""

    def truncated(self, prompt: str) -> str:
        """The end of the prompt that does not fit into the context, "" where all of it does."""

    def finish_reading(self) -> None:
        """Drops the text tower."""


class TwoTowers(Referee):
    """The cosine of image and prompt in the space of two towers. Subclasses say where the towers come from.

    Wanted, the loss is 1 - cos (in [0, 2]) or half the squared angle (in [0, pi^2 / 2]). Not wanted, it is the
    part of the cosine above `absent_below` (or the angle's like): bounded below by 0, and with no gradient once the
    prompt is no longer seen in the image. A CLIP has no probability of a match, so there is no -log(1 - p) to take; and
    1 + cos would go on pushing an image without a trace of the prompt, towards features of nothing.
    """

    class Config(PluginConfig):
        loss: SimilarityLoss = Field("cosine", description="cosine: 1 - cos; spherical: half the squared angle")
        absent_below: float = Field(
            0.0,
            ge=-1.0,
            lt=1.0,
            description="with wanted: false, the cosine at which the prompt counts as absent and the loss is 0",
        )

    bounded_above: ClassVar[bool] = True
    score_unit: ClassVar[str] = "cosine"
    towers: Towers

    @abstractmethod
    def open(self, device: torch.device, dtype: torch.dtype) -> Towers:
        """The towers that the config names, frozen, on `device` in `dtype`."""

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """See `Referee.load`. The model is in `dtype`; features are compared in float32 (float64 with float64)."""
        self.towers = self.open(device, dtype)
        self.input_size, self.device, self.dtype = self.towers.input_size, device, dtype

    @torch.no_grad()
    def read(self, prompts: Sequence[str]) -> Conditioning:
        """Unit text features, tensor `text` [P, D], and the end of each prompt that is beyond the context."""
        truncated = tuple(self.towers.truncated(prompt) for prompt in prompts)
        return Conditioning(tuple(prompts), {"text": self.towers.text(prompts)}, truncated)

    def finish_reading(self) -> None:
        self.towers.finish_reading()

    def judge(self, views: Tensor, conditioning: Conditioning, prompt_index: Tensor, wanted: bool = True) -> Tensor:
        """See `Referee.judge`."""
        cosine = self.cosine(views, conditioning["text"].index_select(0, prompt_index))
        return similarity_loss(cosine, self.config.loss, wanted, self.config.absent_below)

    @torch.no_grad()
    def score(self, images: Tensor, conditioning: Conditioning) -> Tensor:
        """The cosine of each image and its prompt, in [-1, 1]."""
        return self.cosine(images, conditioning["text"])

    def cosine(self, views: Tensor, text: Tensor) -> Tensor:
        """[N] cosines of views [N, 3, H, W] and unit text features [N, D]."""
        return (self.towers.image(views) * text).sum(-1)
