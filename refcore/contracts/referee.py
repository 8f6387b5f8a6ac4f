"""The contract of a referee: a frozen model that judges whether an image matches a prompt."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from refcore.contracts.conditioning import Conditioning
from refcore.plugin import Plugin, PluginConfig


class Referee(Plugin):
    """A frozen judge. Subclasses set the class attributes and implement `load`, `read`, `judge` and `score`.

    A referee normalises its input itself: it is always given views in [0, 1], already at `input_size`.
    """

    kind = "referees"

    class Config(PluginConfig):
        pass

    bounded_above: ClassVar[bool] = False
    """Whether the wanted loss has an upper bound: 1 - cos has, -log p has not.

    A negative weight pushes the loss up, which has an end only where there is a bound: elsewhere it is refused.
    """
    score_unit: ClassVar[str] = "score"
    """What `score` is, for people: "cosine", "probability"."""
    input_size: tuple[int, int]
    """(height, width) in pixels of the views that it judges; known after `load`."""
    device: torch.device
    dtype: torch.dtype

    @abstractmethod
    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """Loads the weights, frozen and in eval mode, on `device` in `dtype`, and sets `input_size`, `device`, `dtype`.

        Raises:
            CheckpointError: the checkpoint is missing, corrupt or of another kind; the message names the remedy.
        """

    @abstractmethod
    def read(self, prompts: Sequence[str]) -> Conditioning:
        """The text work for P prompts, once a run (tokens, text features). No gradient."""

    @abstractmethod
    def judge(self, views: Tensor, conditioning: Conditioning, prompt_index: Tensor, wanted: bool = True) -> Tensor:
        """The loss of each view against its own prompt; lower is a better match.

        Args:
            views: [N, 3, H, W] in [0, 1] (noise may leave the range a little), (H, W) = `input_size`.
            conditioning: of P prompts.
            prompt_index: [N] int64, the prompt of each view.
            wanted: False asks the negated question, -log(1 - p) or its like, bounded below.

        Returns:
            [N] float32 losses, differentiable in `views`; no row depends on another row.
        """

    @abstractmethod
    def score(self, images: Tensor, conditioning: Conditioning) -> Tensor:
        """[B] float32 scores of images [B, 3, H, W] (at `input_size`), natural unit, higher is better. No gradient.

        Image i is scored against prompt i of the conditioning.
        """
