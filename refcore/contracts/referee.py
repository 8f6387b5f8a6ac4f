"""The contract of a referee: a frozen model that judges whether an image matches a prompt."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from refcore.contracts.conditioning import Conditioning
from refcore.plugin import Kind, Plugin, PluginConfig


class Referee(Plugin):
    """A frozen judge of images. Subclasses set the class attributes and implement `load`, `read`, `judge` and `score`.

    Views arrive in [0, 1] and at `input_size`; a referee does its own normalisation.
    """

    kind: ClassVar[Kind] = "referees"
    facts: ClassVar[tuple[str, ...]] = ("score_unit", "bounded_above")
    usage: ClassVar[str] = "referees:\n  - name: NAME\n    weight: 1.0\n    config: {}"

    class Config(PluginConfig):
        pass

    bounded_above: ClassVar[bool] = False
    """Whether the loss (with `wanted`) has an upper bound: 1 - cos does, -log p does not.

    A negative weight maximises the loss, and is refused without an upper bound.
    """
    score_unit: ClassVar[str] = "score"
    """Unit of `score` for display: "cosine", "probability"."""
    input_size: tuple[int, int]
    """(height, width) in pixels of the views that it judges; set by `load`."""
    fit: Callable[[Tensor], Tensor] | None = None
    """How finished images [B, 3, H, W] of any shape come to `input_size` before `score`: by the checkpoint's own rule,
    such as a centre crop; set by `load`. None: stretched, bicubic. A model that takes images of many shapes may keep
    another size. Views in a run come by the view group's `fit`."""
    remarks: tuple[str, ...] = ()
    """What the libraries warned of while the model was loaded, for the user; set by `load`."""
    beside: Tensor | None = None
    """[1, 3, h, w] in [0, 1], a picture that is shown in the same views as the image, for `judge_beside`; set by
    `load`. None: no picture, and `judge` is asked."""
    device: torch.device
    dtype: torch.dtype

    @abstractmethod
    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """Loads the weights, frozen and in eval mode, on `device` in `dtype`, and sets `input_size`, `device`, `dtype`.

        Raises:
            CheckpointError: the checkpoint is missing, corrupt or of the wrong kind; the message names the remedy.
        """

    @abstractmethod
    def read(self, prompts: Sequence[str]) -> Conditioning:
        """The conditioning of P prompts (tokens, text features), without gradient; called once per run."""

    @abstractmethod
    def judge(self, views: Tensor, conditioning: Conditioning, prompt_index: Tensor, wanted: bool = True) -> Tensor:
        """The loss of each view against its own prompt; lower is a better match.

        It knows no step: losses of different steps are compared, for the best image, for candidates and for early
        stopping. What changes over a run is the term's weight, a schedule, and the views.

        Args:
            views: [N, 3, H, W] in [0, 1] (noise may exceed the range slightly), with (H, W) = `input_size`.
            conditioning: of P prompts.
            prompt_index: [N] int64, the prompt of each view.
            wanted: False judges the negated question, by -log(1 - p) or similar, bounded below.

        Returns:
            [N] float32 losses, differentiable in `views`; no row depends on another row.
        """

    def judge_beside(
        self, views: Tensor, beside: Tensor, conditioning: Conditioning, prompt_index: Tensor, wanted: bool = True
    ) -> Tensor:
        """As `judge`, asked in its place where the referee has a picture `beside` the image.

        Args:
            beside: [N, 3, H, W], that picture in the same views, with the same random changes; no gradient.
        """
        raise NotImplementedError

    @abstractmethod
    def score(self, images: Tensor, conditioning: Conditioning) -> Tensor:
        """[B] float32 scores of images [B, 3, H, W], as `fit` leaves them, in `score_unit`, higher for a better match.

        Image i is scored against prompt i of the conditioning, without gradient.
        """
