"""The contract of a canvas: where images live, and how its parameters become pixels."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from refcore.plugin import Plugin
from refcore.rng import Rng

CanvasParams = dict[str, Tensor]
"""The tensors that a run optimises, float32, first dimension B (samples)."""


@dataclass(frozen=True)
class LatentSpace:
    """What a latent prior must match: the encoder that made the latents, and how they are scaled."""

    fingerprint: str
    """Hash of the autoencoder's weights and geometry."""
    channels: int
    scale: float
    shift: float = 0.0


class Canvas(Plugin):
    """Where images live. `decode` is differentiable and treats every sample alone."""

    kind = "canvases"
    latent_space: LatentSpace | None = None
    """None for canvases without latents (pixels)."""
    size: tuple[int, int]
    """(height, width) of the decoded images; set by `load`."""
    device: torch.device

    @abstractmethod
    def load(self, device: torch.device, dtype: torch.dtype, size: tuple[int, int] | None = None) -> None:
        """Loads what it needs and settles `size` (None: its own default).

        Raises:
            RefcoreError: a size that it does not allow, with the nearest that it does; a CheckpointError.
        """

    @abstractmethod
    def init(self, rng: Rng) -> CanvasParams:
        """Fresh parameters for the rng's samples, drawn from it alone, on `device`, float32."""

    @abstractmethod
    def decode(self, params: CanvasParams) -> Tensor:
        """[B, 3, H, W] in [0, 1], float32, differentiable in the params."""

    def encode(self, images: Tensor) -> CanvasParams:
        """Parameters whose decoding is close to images [B, 3, H, W] in [0, 1]; for starts from an image.

        Raises:
            RefcoreError: this canvas cannot start from an image.
        """
        from refcore.errors import RefcoreError

        raise RefcoreError(f"canvas {self.name!r} cannot start from an image: it has no encoder")

    def latent(self, params: CanvasParams) -> Tensor | None:
        """The scaled latent [B, C, h, w] that latent priors work on (a tensor of `params`), or None."""
        return None

    def latent_name(self) -> str | None:
        """The key of `latent` in the params, so that a latent prior's gradient can be added there; None without one."""
        return None
