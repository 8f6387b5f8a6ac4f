"""Base of the referees with an image tower and a text tower: cosine of their features."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor

from refcore.contracts.conditioning import Conditioning
from refcore.contracts.referee import Referee
from refcore.plugin import PluginConfig
from refcore_plugins.models.feature_similarity import SimilarityLoss, similarity_loss
from refcore_plugins.models.preprocess import Fit
from refcore_plugins.models.reward_loss import RewardLoss, reward_loss

TextCleaning = Literal["own", "as_given"]
PROMPTS_AT_ONCE = 256
"""Prompts in one pass of a text tower, which bounds its memory."""


class Towers(Protocol):
    """An image tower and a text tower with a common feature space, as in every CLIP and SigLIP."""

    input_size: tuple[int, int]
    scale: Tensor
    """[] factor of the cosine in the model's logits."""
    bias: Tensor
    """[] bias of the model's logits; 0 for a CLIP."""
    fit: Fit
    """See `Referee.fit`."""
    remarks: tuple[str, ...]
    """See `Referee.remarks`."""

    def image(self, views: Tensor) -> Tensor:
        """[N, 3, H, W] in [0, 1] -> [N, D] unit features, float32 or wider, differentiable."""

    def text(self, prompts: Sequence[str]) -> Tensor:
        """P prompts -> [P, D] unit features, float32 or wider. No gradient."""

    def truncated(self, prompt: str) -> str:
        """Text at the end of the prompt that exceeds the context; "" if none."""

    def finish_reading(self) -> None:
        """Drops the text tower."""


class TwoTowers(Referee):
    """The cosine of image and prompt in the feature space of two towers. Subclasses load the towers.

    Wanted, the loss is 1 - cos (in [0, 2]) or half the squared angle (in [0, pi^2 / 2]). Not wanted, it is the
    part of the cosine above `absent_below` (correspondingly for the angle), which is bounded below by 0 and has no
    gradient once the prompt is absent from the image. A CLIP has no probability of a match and so no -log(1 - p), and
    1 + cos would keep pushing an image without a trace of the prompt, towards features of nothing.

    `linear` and `saturating` are the losses of the score s as published, gain times the cosine: best - s and
    softplus(best - s), its bend 1 wide in logits; not wanted, the softplus of s above gain times `absent_below`.
    """

    class Config(PluginConfig):
        loss: SimilarityLoss | RewardLoss = Field(
            "cosine",
            description="cosine: 1 - cos. spherical: half the squared angle. Of the published score s: linear: best - "
            "s, saturating: softplus(best - s).",
        )
        best: float | None = Field(
            None, description="Published score at which `linear` is 0 and `saturating` bends; null: as published."
        )
        absent_below: float = Field(
            0.0,
            ge=-1.0,
            lt=1.0,
            description="With wanted: false, the cosine up to which the prompt counts as absent and the loss is 0.",
        )

    bounded_above: ClassVar[bool] = True
    score_unit: ClassVar[str] = "cosine"
    published_best: ClassVar[float] = 100.0
    """`best` where the config leaves it open: that of ReNO (arXiv 2406.04312)."""
    towers: Towers

    @abstractmethod
    def open(self, device: torch.device, dtype: torch.dtype) -> Towers:
        """The towers that the config names, frozen, on `device` in `dtype`."""

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """See `Referee.load`. The model is in `dtype`; features are compared in float32 (float64 with float64)."""
        self.towers = self.open(device, dtype)
        self.input_size, self.device, self.dtype = self.towers.input_size, device, dtype
        self.fit, self.remarks = self.towers.fit, self.towers.remarks

    @torch.no_grad()
    def read(self, prompts: Sequence[str]) -> Conditioning:
        """Unit text features, `text` [P, D]."""
        truncated = tuple(self.towers.truncated(prompt) for prompt in prompts)
        return Conditioning(tuple(prompts), {"text": self.towers.text(prompts)}, truncated)

    def finish_reading(self) -> None:
        self.towers.finish_reading()

    def judge(self, views: Tensor, conditioning: Conditioning, prompt_index: Tensor, wanted: bool = True) -> Tensor:
        """See `Referee.judge`."""
        cosine = self.cosine(views, conditioning["text"].index_select(0, prompt_index))
        if self.config.loss not in ("linear", "saturating"):
            return similarity_loss(cosine, self.config.loss, wanted, self.config.absent_below)
        gain = self.gain()
        best = self.published_best if self.config.best is None else self.config.best
        width = gain / self.towers.scale
        return reward_loss(gain * cosine, self.config.loss, wanted, best, gain * self.config.absent_below, width)

    def gain(self) -> Tensor:
        """[] factor of the cosine in the published score: the model's logit scale."""
        return self.towers.scale

    @torch.no_grad()
    def score(self, images: Tensor, conditioning: Conditioning) -> Tensor:
        """The cosine of each image and its prompt, in [-1, 1]."""
        return self.cosine(images, conditioning["text"])

    def cosine(self, views: Tensor, text: Tensor) -> Tensor:
        """[N] cosines of views [N, 3, H, W] and unit text features [N, D]."""
        return (self.towers.image(views) * text).sum(-1)
