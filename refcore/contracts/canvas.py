"""The contract of a canvas: the parameters that a run optimises, and their decoding into pixels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from refcore.contracts.conditioning import Conditioning
from refcore.errors import RefcoreError
from refcore.moment import Moment
from refcore.plugin import Kind, Plugin
from refcore.rng import Rng

CanvasParams = dict[str, Tensor]
"""The tensors that a run optimises, float32, with first dimension B (samples)."""


@dataclass(frozen=True)
class LatentSpace:
    """Identity of a latent space, for latent priors: its autoencoder, and the scaling of its latents."""

    fingerprint: str
    """Hash of the autoencoder's weights and geometry."""
    channels: int
    scale: float
    shift: float = 0.0


class Canvas(Plugin):
    """A parameterisation of images. `decode` is differentiable, and samples do not interact in it."""

    kind: ClassVar[Kind] = "canvases"
    usage: ClassVar[str] = "canvas:\n  name: NAME\n  config: {}"
    latent_space: LatentSpace | None = None
    """None on canvases without latents, such as pixels."""
    reads_prompts: ClassVar[bool] = False
    """Whether an image depends on its prompt, too: such a canvas extends `PromptedCanvas`."""
    size: tuple[int, int]
    """(height, width) of the decoded images; set by `load`."""
    device: torch.device
    opens: ClassVar[tuple[str, ...]] = ()
    """Endings of the names of text files that `open` reads, such as ".svg"; lower case."""

    @abstractmethod
    def load(self, device: torch.device, dtype: torch.dtype, size: tuple[int, int] | None = None) -> None:
        """Loads its weights and sets `size` (None: its own default) and `device`.

        Raises:
            RefcoreError: a size that it does not support; the message names the nearest that it does.
            CheckpointError: a checkpoint is missing or corrupt.
        """

    @abstractmethod
    def init(self, rng: Rng) -> CanvasParams:
        """New float32 parameters on `device`, one row per sample of the rng, drawn from it alone."""

    @abstractmethod
    def decode(self, params: CanvasParams, at: Moment) -> Tensor:
        """[B, 3, H, W] in [0, 1], float32, differentiable in the params.

        Args:
            params: as from `init`.
            at: the step whose gradient is taken, or the end of the run for every finished picture. A canvas that is the
                same throughout ignores it; one that changes needs no memory of the steps before.
        """

    def encode(self, images: Tensor) -> CanvasParams:
        """Parameters that decode to approximately these images [B, 3, H, W] in [0, 1], for starts from an image.

        A canvas that changes over the run shows the images at step 0.

        Raises:
            RefcoreError: this canvas cannot start from an image.
        """
        raise RefcoreError(f"canvas {self.name!r} cannot start from an image: it has no encoder")

    def open(self, text: str) -> CanvasParams:
        """Parameters of one sample that show the document in a file of `opens`, for starts from it (`init`).

        The file may come from other people: whatever `text` holds is data.

        Args:
            text: the file's, in UTF-8; at most 64 MiB.

        Raises:
            RefcoreError: it cannot be read, or shows what this canvas cannot; the message says what and how to go on.
        """
        raise RefcoreError(f"canvas {self.name!r} opens no files; expected an image")

    def files(self, params: CanvasParams) -> list[dict[str, str]]:
        """[B] for each finished picture, what a run writes beside its PNG: ending -> text; here, nothing.

        An ending of ".svg" makes `image_0.svg` of the first sample. Allowed are those of `refcore.images.BESIDE`.

        Args:
            params: as from `init`, those of the finished pictures.
        """
        return [{} for _ in next(iter(params.values()))]

    def latent_name(self) -> str | None:
        """Name of the parameter that is the scaled latent [B, C, h, w], for latent priors; None without one."""
        return None


class PromptedCanvas(Canvas):
    """A canvas whose images depend on the prompt, as those of a generator do whose noise is optimised.

    The run's `canvas.prompt` is its prompt template, like a term's.
    """

    reads_prompts: ClassVar[bool] = True

    @abstractmethod
    def read(self, prompts: Sequence[str]) -> Conditioning:
        """The conditioning of P prompts; called once per run, after `load`."""

    @abstractmethod
    def decode(
        self, params: CanvasParams, at: Moment, conditioning: Conditioning | None = None, rng: Rng | None = None
    ) -> Tensor:
        """See `Canvas.decode`; neither of the other two is None in a run.

        Args:
            params: as from `init`.
            at: as there.
            conditioning: row b belongs to row b of `params`.
            rng: for noise that is not optimised: the same draws for a sample in every call of a run.
        """
