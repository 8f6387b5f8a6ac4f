"""The `vq` recipe: a small VQ-VAE, saved as a diffusers VQModel folder."""

from __future__ import annotations

import random
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, VQModel
from torch import Tensor, nn

from refcore.checkpoints import resolve
from refcore_playground.draw import CATEGORIES
from refcore_playground.training.data import draw_batch
from refcore_playground.training.diffusion import LATENT_CHANNELS, save_half

ENTRIES = 1024
"""Size of the codebook."""
REVIVE = 200
"""Steps between two moves of entries that no latent has been nearest to since the last one."""


class VqRecipe:
    """A VQ-VAE (arXiv 1711.00937): every patch of 4 x 4 pixels is one of 1,024 entries.

    It begins as the embedded autoencoder, and its codebook as latents of scenes; what is trained is how to do with
    entries alone.
    """

    lr = 5e-4
    ema_decay = 0.995
    batch = 10

    def __init__(self, out: Path, seed: int) -> None:
        torch.manual_seed(seed + 5)
        self.out, self.rng = out, random.Random(seed + 5)
        self.model = VQModel(
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            block_out_channels=(24, 48, 64),
            layers_per_block=1,
            latent_channels=LATENT_CHANNELS,
            vq_embed_dim=LATENT_CHANNELS,
            num_vq_embeddings=ENTRIES,
            norm_num_groups=8,
            sample_size=64,
            scaling_factor=1.0,
            mid_block_add_attention=False,
        )
        trained = AutoencoderKL.from_pretrained(
            resolve("playground:diffusion"), subfolder="vae", torch_dtype=torch.float32, use_safetensors=True
        )
        self._begin_as(trained)
        self.model.to(memory_format=torch.channels_last)
        self.recent: list[Tensor] = []
        """Latents of the last steps, [n, C] each: where entries without use are moved to."""
        self.register = torch.zeros(ENTRIES)
        """[ENTRIES] how often an entry was the nearest since the last move."""

    def modules(self) -> nn.ModuleDict:
        return nn.ModuleDict({"model": self.model})

    def loss(self, step: int, progress: float) -> dict[str, Tensor]:
        categories = ("texture",) if step % 2 else CATEGORIES
        images = draw_batch(self.batch, self.rng, categories=categories).images * 2 - 1
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            latents = self.model.encode(images).latents
        latents = latents.float()
        flat = latents.movedim(1, -1).reshape(-1, LATENT_CHANNELS)
        losses: dict[str, Tensor] = {}
        self._look_after_entries(flat.detach(), step)
        codebook = self.model.quantize.embedding.weight
        chosen = torch.cdist(flat.detach(), codebook.detach()).argmin(1)
        self.register += torch.bincount(chosen, minlength=ENTRIES)
        entries = codebook[chosen].view_as(latents.movedim(1, -1)).movedim(-1, 1)
        losses["codebook"] = (entries - latents.detach()).square().mean()
        losses["commitment"] = 0.25 * (entries.detach() - latents).square().mean()
        latents = latents + (entries - latents).detach()
        with torch.autocast("cpu", torch.bfloat16):
            decoded = self.model.decode(latents, force_not_quantize=True).sample.float()
        # Nine tenths of a scene are ground: things weigh more, and their colour (the pooled error) more than edges.
        weight = 1 + 5 * (images - images.amax((2, 3), keepdim=True)).abs().amax(1, keepdim=True).clamp(max=1)
        error = (decoded - images) * (weight / weight.mean((2, 3), keepdim=True)).sqrt()
        losses["l1"] = error.abs().mean()
        losses["l2"] = 2 * error.square().mean()
        losses["edges"] = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        losses["colour"] = 8 * F.avg_pool2d(error, 4).square().mean()
        return losses

    @torch.no_grad()
    def _begin_as(self, trained: AutoencoderKL) -> None:
        """Copies the weights of an autoencoder: the means of its latents are ours."""
        state = trained.state_dict()
        to_mean = state.pop("quant_conv.weight")[:LATENT_CHANNELS, :, 0, 0]
        shift = state.pop("quant_conv.bias")[:LATENT_CHANNELS]
        state["encoder.conv_out.weight"] = torch.einsum("oi,ichw->ochw", to_mean, state["encoder.conv_out.weight"])
        state["encoder.conv_out.bias"] = to_mean @ state["encoder.conv_out.bias"] + shift
        state["quant_conv.weight"] = torch.eye(LATENT_CHANNELS)[:, :, None, None]
        state["quant_conv.bias"] = torch.zeros(LATENT_CHANNELS)
        self.model.load_state_dict({**self.model.state_dict(), **state})

    @property
    def filled(self) -> bool:
        """Whether the codebook has been filled with latents; new entries are within 1 / ENTRIES of 0."""
        return bool(self.model.quantize.embedding.weight.abs().max() > 2 / ENTRIES)

    @torch.no_grad()
    def _look_after_entries(self, latents: Tensor, step: int) -> None:
        """Fills the codebook with latents once, and later moves those that are never used to some of them."""
        self.recent = [*self.recent[-7:], latents]
        unused = torch.zeros(0, dtype=torch.int64)
        if not self.filled:
            unused = torch.arange(ENTRIES)
        elif step % REVIVE == 0:
            unused = (self.register == 0).nonzero()[:, 0]
        if len(unused) or step % REVIVE == 0:
            known = torch.cat(self.recent)
            self.model.quantize.embedding.weight[unused] = known[torch.randint(len(known), (len(unused),))]
            self.register.zero_()

    def evaluate(self, quick: bool) -> dict[str, float]:
        """Mean squared error, on pixels in [0, 1], over fresh scenes of both splits; share of entries in use."""
        scores, used = {}, torch.zeros(ENTRIES, dtype=torch.bool)
        for split in ("seen", "unseen"):
            images = draw_batch(100, random.Random(f"evaluate-{split}"), split=split).images * 2 - 1
            with torch.autocast("cpu", torch.bfloat16):
                latents = self.model.encode(images).latents.float()
                quantised, _, (_, _, chosen) = self.model.quantize(latents)
                decoded = self.model.decode(quantised, force_not_quantize=True).sample.float()
            used[chosen] = True
            scores[f"{split}/mse"] = ((decoded.clamp(-1, 1) - images) / 2).square().mean().item()
        return {**scores, "used": used.float().mean().item()}

    def warm_start(self) -> None:
        """Loads the weights in the output folder."""
        saved = VQModel.from_pretrained(self.out, torch_dtype=torch.float32, use_safetensors=True)
        self.model.load_state_dict(saved.state_dict())

    def save(self) -> None:
        save_half(self.model, self.out)
