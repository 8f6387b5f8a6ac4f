"""The frozen autoencoder of a latent diffusion model, shared by the `latent` canvas and the latent priors."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Literal
from weakref import WeakValueDictionary

import torch
from diffusers.models import AutoencoderDC, AutoencoderKL, AutoencoderTiny
from diffusers.models.unets.unet_2d_blocks import UNetMidBlock2D, UpDecoderBlock2D
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from refcore.contracts.canvas import LatentSpace
from refcore.errors import CheckpointError
from refcore_plugins.models.canvas_size import check_multiples
from refcore_plugins.models.diffusers_folder import DiffusersFolder, diffusers_options, place


class Autoencoder:
    """An AutoencoderKL with the scaling of its latents: scaled latent = (latent - shift) * scale, near unit variance.

    Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models" (arXiv 2112.10752), sections 4.3.2
    and D.1 for the scale. `load_autoencoder` makes it, one for each folder, device and dtype.

    One whose config says `force_upcast` (that of SDXL) overflows in float16. As in diffusers, it is kept in float32
    then, and out of float16 autocast. bfloat16, which has the range of float32, is left as it is.
    """

    def __init__(self, model: AutoencoderKL, space: LatentSpace, default_size: tuple[int, int]) -> None:
        self.model = model
        self.space = space
        self.default_size = default_size
        """(height, width) in pixels that the checkpoint was trained for."""

    @property
    def factor(self) -> int:
        """Image pixels per latent pixel, along a side."""
        return int(2 ** (len(self.model.config["block_out_channels"]) - 1))

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents [B, C, h, w] -> images [B, 3, h*factor, w*factor], *around* [0, 1], in the latents' dtype."""
        unscaled = latents / self.space.scale + self.space.shift
        with out_of_float16(self.model, latents.device):
            decoded: Tensor = self.model.decode(unscaled.to(self.model.dtype)).sample
        return (decoded.to(latents.dtype) + 1) / 2

    def decode_by_blocks(self, latents: Tensor) -> Tensor:
        """`decode`, equal bit for bit, storing only the activations between blocks for the backward pass.

        Those inside a block are recomputed (gradient checkpointing, Chen et al., arXiv 1604.06174).
        """
        x = (latents / self.space.scale + self.space.shift).to(self.model.dtype)
        with out_of_float16(self.model, latents.device):
            for block in self._blocks():
                x = checkpoint(block, x, use_reentrant=False)
        return (x.to(latents.dtype) + 1) / 2

    def _blocks(self) -> list[Callable[[Tensor], Tensor]]:
        """Functions whose composition is the decoder: residual blocks, attentions and upsamplings one by one."""
        decoder = self.model.decoder
        blocks: list[Callable[[Tensor], Tensor]] = []
        if self.model.post_quant_conv is not None:
            blocks.append(self.model.post_quant_conv)
        blocks.append(decoder.conv_in)
        for part in (decoder.mid_block, *decoder.up_blocks):
            if type(part) is UNetMidBlock2D:
                first, *others = part.resnets
                blocks.append(partial(first, temb=None))
                for attention, resnet in zip(part.attentions, others, strict=True):
                    blocks += [attention] if attention is not None else []
                    blocks.append(partial(resnet, temb=None))
            elif type(part) is UpDecoderBlock2D:
                blocks += [*(partial(resnet, temb=None) for resnet in part.resnets), *(part.upsamplers or ())]
            else:
                blocks.append(part)
        return [*blocks, lambda x: decoder.conv_out(decoder.conv_act(decoder.conv_norm_out(x)))]

    def encode(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [0, 1] -> scaled latents [B, C, H/factor, W/factor] (the mode), same dtype."""
        with out_of_float16(self.model, images.device):
            posterior = self.model.encode((images * 2 - 1).to(self.model.dtype)).latent_dist
        mode: Tensor = posterior.mode()
        return (mode.to(images.dtype) - self.space.shift) * self.space.scale

    def check_size(self, size: tuple[int, int]) -> None:
        """Raises RefcoreError, with the nearest possible size, unless height and width are multiples of `factor`."""
        check_multiples(size, self.factor, "autoencoder")


Clamp = Literal["hard", "straight_through"]
"""Whether saturated pixels have no gradient, or that of the image before clamping."""


def colours(images: Tensor, clamp: Clamp) -> Tensor:
    """Decoded images [B, 3, H, W] clamped to [0, 1]."""
    clamped = images.clamp(0, 1)
    if clamp == "straight_through":
        return clamped.detach() + (images - images.detach())  # the parenthesis is exactly 0
    return clamped


class TinyDecoder:
    """A small decoder distilled for the latents of a large autoencoder: diffusers' AutoencoderTiny, such as TAESD.

    Raises:
        CheckpointError: it is missing, corrupt, or made for latents of other channels or another size.
    """

    def __init__(self, folder: DiffusersFolder, like: Autoencoder, device: torch.device, dtype: torch.dtype) -> None:
        kind = folder.config("").get("_class_name")
        if kind != "AutoencoderTiny":
            raise CheckpointError(f'"{folder.model}" is of class {kind}; expected AutoencoderTiny, such as TAESD')
        model = folder.load(AutoencoderTiny, "", **diffusers_options())
        self.model = place(model, device, own_dtype(folder.config(""), dtype))
        self.scale = float(model.config["scaling_factor"])
        channels, factor = model.config["latent_channels"], 2 ** (len(model.config["decoder_block_out_channels"]) - 1)
        if (channels, factor) != (like.space.channels, like.factor):
            raise CheckpointError(
                f'"{folder.model}" decodes latents of {channels} channels, {factor} pixels a side; the canvas '
                f"has {like.space.channels} channels and {like.factor} pixels; expected a decoder made for its latents"
            )

    def decode(self, latents: Tensor) -> Tensor:
        """See `Autoencoder.decode`."""
        decoded: Tensor = self.model.decode((latents / self.scale).to(self.model.dtype)).sample
        return (decoded.to(latents.dtype) + 1) / 2


_shared: WeakValueDictionary[tuple[str, str, torch.dtype], Autoencoder] = WeakValueDictionary()
"""Autoencoders in use. A canvas and a prior with the same folder share a copy; it is freed with its last user."""


def load_autoencoder(folder: DiffusersFolder, device: torch.device, dtype: torch.dtype) -> Autoencoder:
    """The autoencoder of a Stable Diffusion folder (subfolder `vae`) or of a bare vae folder, on `device` in `dtype`.

    Raises:
        CheckpointError: it is missing, corrupt, or of a class with another scaling of the latents.
    """
    key = (folder.source, str(torch.device(device)), dtype)
    autoencoder = _shared.get(key)
    if autoencoder is None:
        component = "vae" if folder.json("vae/config.json") is not None else ""
        config = folder.config(component)
        _check_kind(folder, config)
        model = folder.load(AutoencoderKL, component, **diffusers_options())
        space = LatentSpace(
            fingerprint=encoder_fingerprint(model),
            channels=model.config["latent_channels"],
            scale=float(model.config["scaling_factor"]),
            shift=float(model.config["shift_factor"] or 0.0),
        )
        placed = place(model, device, own_dtype(config, dtype))
        autoencoder = Autoencoder(placed, space, _default_size(folder, model))
        _shared[key] = autoencoder
    return autoencoder


def own_dtype(config: Mapping[str, Any], dtype: torch.dtype) -> torch.dtype:
    """The dtype of an autoencoder's weights where `dtype` is asked for: not float16 if its file says `force_upcast`.

    The file alone counts: diffusers' default for files without that field is true, but its Stable Diffusion pipelines
    never upcast those, which were made for float16.
    """
    return torch.float32 if dtype == torch.float16 and config.get("force_upcast") else dtype


def out_of_float16(model: Any, device: torch.device) -> AbstractContextManager[Any]:
    """No float16 autocast for an autoencoder whose config says `force_upcast`; otherwise no context."""
    kind = device.type
    overflows = model.config.get("force_upcast") and torch.is_autocast_enabled(kind)
    if overflows and torch.get_autocast_dtype(kind) == torch.float16:
        return torch.autocast(kind, enabled=False)
    return nullcontext()


def latent_space(folder: DiffusersFolder) -> LatentSpace:
    """The latent space of a folder. Nothing is loaded where its autoencoder is in use, on any device in any dtype.

    Raises:
        CheckpointError: as `load_autoencoder`.
    """
    for (source, _, _), autoencoder in list(_shared.items()):
        if source == folder.source:
            return autoencoder.space
    return load_autoencoder(folder, torch.device("cpu"), torch.float32).space


def encoder_fingerprint(model: AutoencoderKL | AutoencoderDC) -> str:
    """Hash of what determines the latent space: the encoder's weights, rounded to float16, its activation and groups.

    The decoder is left out, so that a decoder fine-tuned for the same latents (Stable Diffusion's `sd-vae-ft-mse`)
    matches. With float16, the half-precision files of a checkpoint match its full ones. `model` must not be cast yet.
    """
    kind = f"{model.config.get('act_fn')}/{model.config.get('norm_num_groups')}"
    digest = hashlib.blake2b(kind.encode(), digest_size=16)
    for name, weight in sorted(model.state_dict().items()):
        if name.startswith(("encoder.", "quant_conv.")):
            digest.update(f"{name}{tuple(weight.shape)}".encode())
            digest.update(weight.half().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _check_kind(folder: DiffusersFolder, config: dict[str, Any]) -> None:
    kind = config.get("_class_name")
    if kind != "AutoencoderKL":
        raise CheckpointError(f'the autoencoder of "{folder.model}" is of class {kind}; expected AutoencoderKL')
    if config.get("latents_mean") or config.get("latents_std"):
        raise CheckpointError(
            f'the autoencoder of "{folder.model}" scales its latents channel by channel (latents_mean, latents_std), '
            "which is not supported; expected a single scaling_factor, as in Stable Diffusion"
        )


def _default_size(folder: DiffusersFolder, model: AutoencoderKL) -> tuple[int, int]:
    """(height, width) in pixels of the UNet, at which the pipeline samples, or else of the autoencoder.

    In Stable Diffusion 2 the autoencoder's own size is larger."""
    unet = folder.json("unet/config.json") or {}
    if "sample_size" in unet:
        factor, side = 2 ** (len(model.config["block_out_channels"]) - 1), unet["sample_size"]
    else:
        factor, side = 1, model.config["sample_size"]
    height, width = (side, side) if isinstance(side, int) else side
    return height * factor, width * factor
