"""The contract of a prior: a gradient that keeps images natural, with or without a loss behind it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from refcore.contracts.canvas import Canvas
from refcore.contracts.conditioning import Conditioning
from refcore.plugin import Plugin
from refcore.rng import Rng


class Prior(Plugin):
    """Pulls the canvas toward natural images. `space` says what `gradient` is given and returns a gradient for.

    latent: x is the canvas's scaled latent [B, C, h, w]; on a canvas without latents the engine encodes the image with
        the prior's own encoder (`encode`) and pulls the gradient back through it.
    image: x is the decoded image [B, 3, H, W] in [0, 1].
    params: x is a dict of the canvas's parameters, and so is the gradient.
    """

    kind = "priors"
    space: ClassVar[Literal["latent", "image", "params"]] = "image"
    couples_samples: bool = False
    """Whether a sample's path depends on its batch mates (VSD's adapter of a prompt does). The run then says so."""
    learns: ClassVar[bool] = False
    """Whether it learns on the way: `update` is then called after each step in which it takes part."""
    can_sample: ClassVar[bool] = False
    """Whether it has a generative model of its own that `sample` samples."""

    @abstractmethod
    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """Loads the weights, frozen, on `device` in `dtype`.

        Raises:
            CheckpointError: with the remedy.
        """

    def accept(self, canvas: Canvas) -> None:
        """Raises RefcoreError, with the reason, where it cannot work on this (loaded) canvas."""

    def read(self, prompts: Sequence[str]) -> Conditioning:
        """The text work for P prompts, once a run."""
        return Conditioning(tuple(prompts))

    def encode(self, images: Tensor) -> Tensor:
        """Latent priors: differentiable scaled latents [B, C, h, w] of images [B, 3, H, W] in [0, 1]."""
        raise NotImplementedError

    @abstractmethod
    def gradient(self, x: Tensor, conditioning: Conditioning, step: int, rng: Rng) -> tuple[Tensor, Tensor | None]:
        """The gradient that descends toward natural images, [B, ...] like `x` (float32, detached), and a value.

        The value is [B] for logging where the gradient is that of a loss, and None where it is not (SDS).
        Conditioning row i belongs to sample i. Randomness comes from `rng` alone.
        """

    def sample(
        self,
        shape: Sequence[int],
        conditioning: Conditioning,
        rng: Rng,
        steps: int,
        guidance: float,
        around: Tensor | None = None,
        strength: float = 1.0,
    ) -> Tensor:
        """Latent priors with `can_sample`: scaled latents [B, *shape] that its model makes of the prompts.

        Args:
            shape: [C, h, w] of the canvas's latents.
            conditioning: row i belongs to sample i.
            rng: all randomness; its n is B.
            steps: of the sampler.
            guidance: classifier-free guidance scale; 1 is none.
            around: [B, *shape] latents to sample near; None starts from noise alone.
            strength: share of the steps, in 0..1, that are done again from `around` with noise added; 1 are all.
        """
        raise NotImplementedError

    def update(self, x: Any, conditioning: Conditioning, step: int, rng: Rng) -> None:
        """Priors that learn: takes in the samples as the step has left them. Arguments as for `gradient`.

        rng has other numbers than the one that `gradient` was given.
        """

    def state_dict(self) -> dict[str, Any]:
        """What a prior that learns must keep to resume."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict`."""
