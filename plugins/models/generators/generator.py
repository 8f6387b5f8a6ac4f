"""The base of all generators: what the `noise` canvas needs of one, and where its components are read from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from os.path import expanduser
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from diffusers.schedulers import (
    DDIMScheduler,
    DDPMScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
)
from huggingface_hub import hf_hub_download
from torch import Tensor, nn

from refcore.checkpoints import offline_error
from refcore.contracts.canvas import LatentSpace
from refcore.errors import CheckpointError, article
from refcore_plugins.models.autoencoder import Autoencoder, load_autoencoder
from refcore_plugins.models.canvas_size import check_multiples
from refcore_plugins.models.diffusers_folder import DiffusersFolder, diffusers_options, place
from refcore_plugins.models.score_distillation import guide

ModelT = TypeVar("ModelT", bound=nn.Module)
Text = dict[str, Tensor]
"""Features of prompts: tensors whose first dimension is P, or B in a batch."""


@dataclass(frozen=True)
class Sources:
    """Where the components of a generator are read from: a pipeline's folder, and what replaces parts of it."""

    folder: DiffusersFolder
    denoiser: str | None = None
    """Another folder or hub id with the UNet or transformer, or a file of its weights."""
    denoiser_file: str | None = None
    """File of weights in `denoiser`."""
    vae: str | None = None
    """Another folder or hub id with the autoencoder."""

    def network(self, cls: type[ModelT], component: str, dtype: torch.dtype) -> ModelT:
        """The UNet or transformer on the CPU: see `DiffusersFolder.load`.

        Args:
            cls: of diffusers.
            component: "unet" or "transformer".
            dtype: of its weights.
        """
        file = self._file()
        if file is not None:
            named = "/".join(part for part in (self.denoiser, self.denoiser_file) if part)
            return self.folder.load_with(cls, component, file, named, dtype)
        folder, place_ = self._of_network(component)
        return folder.load(cls, place_, dtype, **diffusers_options())

    def config(self, component: str) -> dict[str, Any]:
        """The config of the UNet or transformer."""
        folder, place_ = (self.folder, component) if self._file() is not None else self._of_network(component)
        return folder.config(place_)

    def schedule(self) -> dict[str, Any]:
        """The config of the scheduler: that of the folder which has the network, if it has one."""
        if self.denoiser is not None and self._file() is None:
            own = DiffusersFolder(self.denoiser).json("scheduler/scheduler_config.json")
            if own is not None:
                return own
        return self.folder.config("scheduler", "scheduler_config.json")

    def autoencoder(self) -> DiffusersFolder:
        """The folder that has the autoencoder."""
        return self.folder if self.vae is None else DiffusersFolder(self.vae)

    def _of_network(self, component: str) -> tuple[DiffusersFolder, str]:
        if self.denoiser is None:
            return self.folder, component
        other = DiffusersFolder(self.denoiser)
        return other, component if other.json(f"{component}/config.json") is not None else ""

    def _file(self) -> Path | None:
        """The file of weights on this machine; None if a whole folder has the network."""
        if self.denoiser is None:
            return None
        path = Path(expanduser(self.denoiser))
        if self.denoiser_file is None and not path.is_file():
            return None
        if self.denoiser_file is not None and path.is_dir():
            path /= self.denoiser_file
        elif self.denoiser_file is not None:
            try:
                path = Path(hf_hub_download(DiffusersFolder(self.denoiser).source, self.denoiser_file))
            except CheckpointError:
                raise
            except Exception as error:  # the hub's client raises many classes
                raise offline_error(f"{self.denoiser}/{self.denoiser_file}", error) from error
        if path.suffix != ".safetensors" or not path.is_file():
            raise CheckpointError(
                f'the denoiser\'s weights "{path}" are no file in safetensors; pickles can run code when they are read'
            )
        return path


class Generator(ABC):
    """A frozen text-to-image network with its text encoders, its autoencoder and the config of its scheduler.

    A sampler (`refcore_plugins.models.sampler`) makes images of its noise: it sets timesteps, scales the input, calls
    `denoise` and takes the scheduler's step. What is peculiar to a family of models is in its subclass.

    Raises:
        CheckpointError: a component is missing, corrupt or of another family.
        RefcoreError: a size that it does not support.
    """

    component: ClassVar[str] = "unet"
    """Folder of the network."""
    schedulers: ClassVar[tuple[Any, ...]] = (
        DDIMScheduler,
        EulerDiscreteScheduler,
        EulerAncestralDiscreteScheduler,
        LCMScheduler,
        DDPMScheduler,
    )
    """Classes of diffusers that can sample it."""
    own_alone: ClassVar[bool] = False
    """Whether only the folder's own scheduler can sample it, since the network predicts no noise."""

    network: Any
    """The UNet or transformer, on `device` in `dtype`."""
    autoencoder: Any
    """An `Autoencoder`, or one with the same `decode`, `decode_by_blocks`, `factor` and `space`."""

    def __init__(
        self,
        sources: Sources,
        device: torch.device,
        dtype: torch.dtype,
        size: tuple[int, int] | None = None,
        guidance: float = 1.0,
    ) -> None:
        """
        Args:
            sources: of its components.
            device: of the networks.
            dtype: of their weights.
            size: (height, width) of its images in pixels; None: that of its training.
            guidance: what a network with a guidance embedding is told; others ignore it.
        """
        self.sources, self.folder = sources, sources.folder
        self.device, self.dtype, self.guidance = torch.device(device), dtype, guidance
        self.schedule: dict[str, Any] = sources.schedule()
        self._load()
        self.size = size if size is not None else self.default_size
        self._check_size()
        self._prepare()

    @abstractmethod
    def _load(self) -> None:
        """Loads the components."""

    def _prepare(self) -> None:  # noqa: B027  # most have nothing of the kind
        """Makes what depends on the size, once, so that no step waits for a copy to the device."""

    @property
    def embeds_guidance(self) -> bool:
        """Whether the network is told the guidance scale, and needs no second prediction for it."""
        return False

    @property
    def channels(self) -> int:
        """C, the channels of the noise."""
        return int(self.network.config.in_channels)

    @property
    def multiple(self) -> int:
        """Number of pixels of which both sides are multiples."""
        return int(self.autoencoder.factor)

    @property
    def default_size(self) -> tuple[int, int]:
        """(height, width) in pixels of its training."""
        side = self.network.config.sample_size
        return (int(side) * int(self.autoencoder.factor),) * 2

    @property
    def space(self) -> LatentSpace:
        """The space of its noise, which is no picture's latent: no prior of pictures' latents accepts it."""
        own = self.autoencoder.space
        return LatentSpace(f"noise of {own.fingerprint}", own.channels, 1.0)

    def noise_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of the noise of an image."""
        height, width = (side // self.autoencoder.factor for side in self.size)
        return self.channels, height, width

    def spacing(self, steps: int) -> dict[str, Any]:
        """Arguments of the scheduler's `set_timesteps` for a number of steps."""
        return {"num_inference_steps": steps}

    @abstractmethod
    def encode(self, prompts: Sequence[str]) -> Text:
        """Features of P prompts: tensors [P, ...], among them "text" [P, T, D]."""

    def encode_negative(self, prompt: str) -> Text:
        """Features [1, ...] of the prompt that guidance leads away from."""
        return self.encode([prompt])

    @abstractmethod
    def truncated(self, prompt: str) -> str:
        """Text at the end of the prompt that exceeds the context of the text encoder; "" if none."""

    @abstractmethod
    def finish_reading(self) -> None:
        """Drops the text encoders."""

    @abstractmethod
    def denoise(self, noisy: Tensor, timesteps: Tensor, text: Text) -> Tensor:
        """The network's own output, without guidance of two predictions.

        Args:
            noisy: [B, C, h, w] noisy scaled latents, as the scheduler has scaled them.
            timesteps: [B], as the scheduler has them.
            text: of the B prompts, as from `encode`.

        Returns:
            [B, C, h, w] in the dtype of `noisy`.
        """

    def guided(self, noisy: Tensor, timesteps: Tensor, text: Text, negative: Text | None, guidance: float) -> Tensor:
        """`denoise` under classifier-free guidance; only one of the two predictions is made where the other cancels."""
        if guidance == 1 or negative is None:
            return self.denoise(noisy, timesteps, text)
        if guidance == 0:
            return self.denoise(noisy, timesteps, negative)
        both = {name: torch.cat([negative[name], value]) for name, value in text.items()}
        out = self.denoise(torch.cat([noisy] * 2), torch.cat([timesteps] * 2), both)
        without, given = out.chunk(2)
        return guide(without, given, guidance)

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents [B, C, h, w] -> images [B, 3, H, W], around [0, 1]."""
        images: Tensor = self.autoencoder.decode(latents)
        return images

    def decode_by_blocks(self, latents: Tensor) -> Tensor:
        """`decode`, equal bit for bit, that holds what is between the decoder's blocks, and computes them again."""
        images: Tensor = self.autoencoder.decode_by_blocks(latents)
        return images

    def recompute_blocks(self) -> None:
        """From now on the network holds what is between its blocks, and computes them again in the backward pass."""
        self.network.enable_gradient_checkpointing()

    def _load_network(self, cls: type[Any]) -> None:
        self.network = place(self.sources.network(cls, self.component, self.dtype), self.device, self.dtype)

    def _load_autoencoder(self) -> None:
        own: Autoencoder = load_autoencoder(self.sources.autoencoder(), self.device, self.dtype)
        if own.space.channels != self.latent_channels:
            raise CheckpointError(
                f'the autoencoder of "{self.sources.autoencoder().model}" has {own.space.channels} channels, but '
                f'"{self.folder.model}" makes latents of {self.latent_channels}; expected the one that it was made for'
            )
        self.autoencoder = own

    @property
    def latent_channels(self) -> int:
        """Channels of the latents that are decoded."""
        return self.channels

    def _check_size(self) -> None:
        check_multiples(self.size, self.multiple, "generator")

    def _expect(self, component: str, names: tuple[str, ...], config: dict[str, Any] | None = None) -> None:
        """Raises CheckpointError unless a component's class, as its config says it, is one of these."""
        config = self.folder.config(component) if config is None else config
        found = config.get("_class_name") or (config.get("architectures") or [None])[0]
        if found not in names:
            raise CheckpointError(
                f'the {component} of "{self.folder.model}" is {article(str(found))}; expected {" or ".join(names)}'
            )
