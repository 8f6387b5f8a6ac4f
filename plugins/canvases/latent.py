"""The `latent` canvas: images in the latent space of a frozen autoencoder, as in the paper."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from refcore.checkpoints import Download
from refcore.contracts.canvas import Canvas, CanvasParams
from refcore.moment import Moment
from refcore.plugin import PluginConfig
from refcore.rng import Rng
from refcore_plugins.models.autoencoder import Autoencoder, Clamp, TinyDecoder, colours, load_autoencoder
from refcore_plugins.models.canvas_size import check_image_size
from refcore_plugins.models.diffusers_folder import AUTOENCODER, DiffusersFolder, download

LATENT = "latent"
"""Name of the only parameter, [B, C, H/factor, W/factor]."""


class Latent(Canvas):
    """Scaled latents `z ~ N(0, I)`; the image is `(decode(z / scale + shift) + 1) / 2`, clamped to [0, 1].

    "Referee Can Play" (arXiv 2402.16305), section 3.1, with latent diffusion's autoencoder (arXiv 2112.10752).
    """

    class Config(PluginConfig):
        checkpoint_fields = ("model", "gradient_decoder")
        model: str = Field(
            "playground:diffusion",
            description="Stable Diffusion folder or hub id (its `vae` is used), AutoencoderKL folder or hub id, or "
            "playground:diffusion.",
        )
        clamp: Clamp = Field(
            "hard",
            description="Clamping of images to [0, 1]. hard: no gradient in saturated pixels, as in the paper. "
            "straight_through: the same image, with the gradient of the image before clamping.",
        )
        dtype: Literal["float32", "float64", "bfloat16", "float16"] | None = Field(
            None,
            description="Dtype of the autoencoder's weights; null: that of the run. Latents and images are float32.",
        )
        recompute: Literal["nothing", "blocks", "image"] = Field(
            "nothing",
            description="Activations of the decoder that are recomputed in the backward pass, at the cost of a second "
            "decode, instead of being stored while the referees judge. nothing: all are stored. blocks: those inside "
            "its blocks, sample by sample; the lowest peak memory. image: all, sample by sample; the least memory "
            "while the referees judge, and then that of one sample's graph.",
        )
        gradient_decoder: str | None = Field(
            None,
            description="AutoencoderTiny folder or hub id (madebyollin/taesd) for decodes that need a gradient, at a "
            "fraction of the cost; other decodes use the full decoder. It must be made for the same latents. null: "
            "the full decoder for both.",
        )

    name = "latent"
    config: Config
    autoencoder: Autoencoder
    tiny: TinyDecoder | None = None
    """Decoder for gradients, if the config names one."""

    def downloads(self) -> dict[str, Download]:
        """See `Plugin.downloads`: of a Stable Diffusion folder the autoencoder alone."""
        return {
            name: download(name, AUTOENCODER) if name == self.config.model else found
            for name, found in super().downloads().items()
        }

    def load(self, device: torch.device, dtype: torch.dtype, size: tuple[int, int] | None = None) -> None:
        self.device = torch.device(device)
        dtype = dtype if self.config.dtype is None else getattr(torch, self.config.dtype)
        self.autoencoder = load_autoencoder(DiffusersFolder(self.config.model), self.device, dtype)
        self.latent_space = self.autoencoder.space
        self.size = size if size is not None else self.autoencoder.default_size
        self.autoencoder.check_size(self.size)
        self.tiny = None
        if self.config.gradient_decoder is not None:
            folder = DiffusersFolder(self.config.gradient_decoder)
            self.tiny = TinyDecoder(folder, self.autoencoder, self.device, dtype)

    def init(self, rng: Rng) -> CanvasParams:
        assert self.latent_space is not None, "load comes first"
        height, width = (side // self.autoencoder.factor for side in self.size)
        return {LATENT: rng.normal(self.latent_space.channels, height, width).to(self.device)}

    def decode(self, params: CanvasParams, at: Moment) -> Tensor:
        images = self._decode(params[LATENT])
        return colours(images, self.config.clamp)

    def _decode(self, latents: Tensor) -> Tensor:
        """Images before clamping, around [0, 1]; sample by sample if the graph need not be stored whole."""
        graph = torch.is_grad_enabled() and latents.requires_grad
        decode = self.autoencoder.decode if self.tiny is None or not graph else self.tiny.decode
        if self.config.recompute == "nothing":
            return decode(latents)
        if graph and self.config.recompute == "blocks" and self.tiny is None:
            decode = self.autoencoder.decode_by_blocks
        elif graph:
            decode = partial(checkpoint, decode, use_reentrant=False)
        return torch.cat([decode(z) for z in torch.split(latents, 1)])

    @torch.no_grad()
    def encode(self, images: Tensor) -> CanvasParams:
        """The mode of the posterior for images [B, 3, H, W] in [0, 1], (H, W) = `size`.

        Raises:
            RefcoreError: the images have another size.
        """
        check_image_size(images, self.size)
        return {LATENT: self.autoencoder.encode(images.to(self.device, torch.float32))}

    def latent_name(self) -> str:
        return LATENT
