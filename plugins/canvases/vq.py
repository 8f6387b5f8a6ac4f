"""The `vq` canvas: images in the latent space of a frozen VQGAN, made of entries of its codebook."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models import VQModel
from pydantic import Field
from torch import Tensor
from torch.autograd import Function

from refcore.checkpoints import Download
from refcore.contracts.canvas import Canvas, CanvasParams
from refcore.errors import CheckpointError
from refcore.moment import Moment
from refcore.plugin import PluginConfig
from refcore.rng import Rng
from refcore_plugins.models.autoencoder import out_of_float16, own_dtype
from refcore_plugins.models.canvas_size import check_image_size, check_multiples
from refcore_plugins.models.diffusers_folder import DiffusersFolder, diffusers_options, place

CODES = "codes"
"""Name of the only parameter, [B, C, H/factor, W/factor]."""
WEIGHTS = "diffusion_pytorch_model.safetensors"


class Vq(Canvas):
    """Latents that become the nearest entries of a codebook: x = (decode(nearest(z)) + 1) / 2, clamped to [0, 1].

    VQGAN+CLIP (Crowson et al., arXiv 2204.08583) on the VQGAN of Esser et al. (arXiv 2012.09841), in
    diffusers' class VQModel. z is continuous; the gradient at the entry is passed on to it (straight-through). Each
    channel of z is clamped to the smallest and largest number that it has in the codebook, and colours to [0, 1], both
    with the gradient where a step along it leads back inside. Here and not after the update, as in VQGAN+CLIP's code,
    since only the canvas knows the codebook: z may leave the bounds by momentum, and is read as if it had not.
    """

    class Config(PluginConfig):
        checkpoint_fields = ("model",)
        model: str = Field(
            description="Folder or hub id of a VQModel in diffusers' layout, or of a pipeline whose `vqvae` it is.",
        )

    name = "vq"
    config: Config

    def downloads(self) -> dict[str, Download]:
        """See `Plugin.downloads`: the VQModel alone."""
        return {name: Download(("*.json", WEIGHTS, f"*/{WEIGHTS}"), {}, frozenset()) for name in super().downloads()}

    def load(self, device: torch.device, dtype: torch.dtype, size: tuple[int, int] | None = None) -> None:
        """Sides that are multiples of the model's factor; by default as large as the images that it was trained on.

        Raises:
            RefcoreError: a size that it does not support; the message names the nearest that it does.
            CheckpointError: the folder is missing, corrupt, or of another class.
        """
        self.device = torch.device(device)
        folder = DiffusersFolder(self.config.model)
        component = "vqvae" if folder.json("vqvae/config.json") is not None else ""
        config = folder.config(component)
        _check_kind(folder, config)
        model: Any = folder.load(VQModel, component, **diffusers_options())
        self.model = place(model, self.device, own_dtype(config, dtype))
        self.factor = int(2 ** (len(model.config["block_out_channels"]) - 1))
        side = int(model.config["sample_size"])
        self.size = size if size is not None else (side, side)
        check_multiples(self.size, self.factor, "VQModel")
        self.codebook: Tensor = model.quantize.embedding.weight
        """[entries, C], in the model's dtype."""
        low, high = self.codebook.float().aminmax(dim=0)
        self._low, self._high = (bound.view(1, -1, 1, 1) for bound in (low, high))

    def init(self, rng: Rng) -> CanvasParams:
        """Random entries of the codebook, one for each place."""
        height, width = (side // self.factor for side in self.size)
        entries = rng.integers(0, len(self.codebook), height, width).to(self.device)
        return {CODES: self.codebook[entries].movedim(-1, 1).float().contiguous()}

    def decode(self, params: CanvasParams, at: Moment) -> Tensor:
        z = params[CODES]
        kept = clamp_inward(z, self._low.to(z.dtype), self._high.to(z.dtype))
        quantised = nearest(kept, self.codebook.to(z.dtype)) + (kept - kept.detach())  # the parenthesis is exactly 0
        with out_of_float16(self.model, self.device):
            decoded = self.model.decode(quantised.to(self.codebook.dtype), force_not_quantize=True).sample
        images = (decoded.to(z.dtype) + 1) / 2
        return clamp_inward(images, images.new_zeros(()), images.new_ones(()))

    @torch.no_grad()
    def encode(self, images: Tensor) -> CanvasParams:
        """The encoder's latents of images [B, 3, H, W] in [0, 1], (H, W) = `size`, before they are quantised.

        Raises:
            RefcoreError: the images have another size.
        """
        check_image_size(images, self.size)
        pixels = (images.to(self.device, torch.float32) * 2 - 1).to(self.codebook.dtype)
        with out_of_float16(self.model, self.device):
            return {CODES: self.model.encode(pixels).latents.float()}


def nearest(z: Tensor, codebook: Tensor) -> Tensor:
    """For each place of z [B, C, h, w] the nearest entry of a codebook [entries, C], [B, C, h, w]. No gradient.

    Sample by sample, so that the distances to a large codebook are held for one sample at a time.
    """
    with torch.no_grad():
        chosen = [torch.cdist(one.flatten(1).mT, codebook).argmin(dim=1) for one in z]
        return codebook[torch.stack(chosen)].mT.reshape(z.shape)


class _ClampInward(Function):
    """`clamp_inward`; torch has no name for it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
        clamped = torch.minimum(torch.maximum(x, low), high)
        ctx.save_for_backward(x - clamped)
        return clamped

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (beyond,) = ctx.saved_tensors
        (gradient,) = gradients
        return gradient * (gradient * beyond >= 0), None, None


def clamp_inward(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """x clamped to [low, high]; beyond them, only the gradient whose descent leads back inside is passed on.

    A plain clamp passes on none, so that a number once outside stays there. As `clamp_with_grad` of VQGAN+CLIP.
    """
    clamped: Tensor = _ClampInward.apply(x, low, high)  # type: ignore[no-untyped-call]
    return clamped


def _check_kind(folder: DiffusersFolder, config: dict[str, Any]) -> None:
    kind = config.get("_class_name")
    if kind != "VQModel":
        raise CheckpointError(f'canvas.config.model "{folder.model}" is of class {kind}; expected diffusers\' VQModel')
    if config.get("lookup_from_codebook"):
        raise CheckpointError(
            f'canvas.config.model "{folder.model}" is decoded from the numbers of codebook entries '
            "(lookup_from_codebook), which have no gradient; expected a VQModel without that"
        )
