"""The contract of a prior: a gradient that keeps images natural, of a loss or of none."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from refcore.contracts.canvas import Canvas
from refcore.contracts.conditioning import Conditioning
from refcore.moment import Moment
from refcore.plugin import Kind, Plugin
from refcore.rng import Rng


class Prior(Plugin):
    """Pulls the canvas toward natural images. `space` is the space in which `gradient` works.

    latent: x is the canvas's scaled latent [B, C, h, w]; on a canvas without latents the engine encodes the image with
        the prior's own encoder (`encode`) and pulls the gradient back through it.
    image: x is the decoded image [B, 3, H, W] in [0, 1].
    params: x is a dict of the canvas's parameters, and so is the gradient.
    """

    kind: ClassVar[Kind] = "priors"
    facts: ClassVar[tuple[str, ...]] = ("space", "couples_samples")
    usage: ClassVar[str] = "priors:\n  - name: NAME\n    weight: 1.0\n    config: {}"
    space: ClassVar[Literal["latent", "image", "params"]] = "image"
    couples_samples: bool = False
    """Whether a sample depends on the rest of its batch, as with VSD's adapter per prompt; the run reports it."""
    learns: ClassVar[bool] = False
    """Whether it is trained during the run: `update` is called after each step in which it takes part."""
    can_sample: ClassVar[bool] = False
    """Whether it has a generative model: `sample` samples it, and `noise_to` adds its noise."""

    @abstractmethod
    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """Loads the weights, frozen, on `device` in `dtype`.

        Raises:
            CheckpointError: the checkpoint is missing or corrupt; the message names the remedy.
        """

    def accept(self, canvas: Canvas) -> None:
        """Raises RefcoreError, with the reason, if it cannot work on this (loaded) canvas."""

    def read(self, prompts: Sequence[str]) -> Conditioning:
        """The conditioning of P prompts; called once per run."""
        return Conditioning(tuple(prompts))

    def encode(self, images: Tensor) -> Tensor:
        """Latent priors only: scaled latents [B, C, h, w], differentiable in the images [B, 3, H, W] in [0, 1]."""
        raise NotImplementedError

    @abstractmethod
    def gradient(self, x: Tensor, conditioning: Conditioning, at: Moment, rng: Rng) -> tuple[Tensor, Tensor | None]:
        """The gradient to descend toward natural images, [B, ...] like `x` (float32, detached), and a value.

        The value is the loss [B], for logging, or None if the gradient is not that of a loss (SDS). Row i of the
        conditioning belongs to sample i. Randomness comes from `rng` alone. What changes over the run has its value of
        the step `at`: `at.of(guidance)`, `at.whole(timestep)`.
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
        """Latent priors with `can_sample` only: scaled latents [B, *shape] sampled from its model for the prompts.

        Args:
            shape: [C, h, w] of the canvas's latents.
            conditioning: row i belongs to sample i.
            rng: source of all randomness, with n = B.
            steps: number of sampler steps.
            guidance: classifier-free guidance scale; 1 for none.
            around: [B, *shape] latents to start from, noised; None for pure noise.
            strength: fraction of the steps, in (0, 1], run from the noised `around`; 1 for all.
        """
        raise NotImplementedError

    def noise_to(self, latents: Tensor, rng: Rng, steps: int, strength: float) -> Tensor:
        """Latent priors with `can_sample` only: latents with the noise that `sample` would give an `around`.

        Args:
            latents: [B, C, h, w], scaled.
            rng: source of the noise, with n = B.
            steps: number of sampler steps.
            strength: in (0, 1], as for `sample`; 1 for the most noise.
        """
        raise NotImplementedError

    def update(self, x: Any, conditioning: Conditioning, at: Moment, rng: Rng) -> None:
        """Priors that learn only: trains on the samples as they are after the step. Arguments as for `gradient`.

        Its `rng` differs from that of `gradient`.
        """

    @property
    def keeps_state(self) -> bool:
        """Whether something of a run stays in it, which is in `state_dict`: then each run loads its own."""
        return self.learns or type(self).state_dict is not Prior.state_dict

    def state_dict(self) -> dict[str, Any]:
        """State that a prior that learns, or that keeps something from step to step, needs in order to resume."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict`."""
