"""FLUX.1: a flow-matching transformer of text and image tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.models import FluxTransformer2DModel
from diffusers.schedulers import FlowMatchEulerDiscreteScheduler
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5Tokenizer

from refcore.errors import CheckpointError
from refcore_plugins.models.diffusers_folder import place
from refcore_plugins.models.generators.generator import Generator, Text
from refcore_plugins.models.truncated_text import truncated_text

CONTEXT, DISTILLED_CONTEXT = 512, 256
"""Tokens of a prompt: of a model that is told the guidance scale ("dev"), and of one that is not ("schnell")."""
SIDE = 128
"""Latent pixels along a side at 1024 px, its default size."""


class Flux(Generator):
    """FLUX.1-schnell and -dev of Black Forest Labs. Its text is the last layer of a T5; beside it, the network is told
    the pooled features of a CLIP. It sees 2 x 2 latent pixels as one token; noise and latents have their plain shape.
    """

    component = "transformer"
    schedulers = (FlowMatchEulerDiscreteScheduler,)
    own_alone = True

    def _load(self) -> None:
        config = self.sources.config(self.component)
        self._expect(self.component, ("FluxTransformer2DModel",), config)
        if config.get("out_channels") not in (None, config.get("in_channels", 64)):
            raise CheckpointError(
                f'the transformer of "{self.folder.model}" takes {config["in_channels"]} channels and returns '
                f"{config['out_channels']}: it is for editing; expected a plain text-to-image one"
            )
        self._load_network(FluxTransformer2DModel)
        self._tokenizers = (
            self.folder.load_tokenizer(CLIPTokenizer),
            self.folder.load_tokenizer(T5Tokenizer, "tokenizer_2"),
        )
        clip: Any = place(self.folder.load_text_encoder(CLIPTextModel, "text_encoder"), self.device, self.dtype)
        t5: Any = self.folder.load_text_encoder(T5EncoderModel, "text_encoder_2", self.dtype).to(self.device)
        self._encoders: tuple[Any, ...] = (clip, t5.to(self.dtype) if self.dtype == torch.float64 else t5)
        told = (clip.config.hidden_size, t5.config.d_model)
        wanted = (self.network.config.pooled_projection_dim, self.network.config.joint_attention_dim)
        if told != wanted:
            raise CheckpointError(
                f'the transformer of "{self.folder.model}" reads pooled features of width {wanted[0]} and text of '
                f"width {wanted[1]}, but its text encoders have widths {told[0]} and {told[1]}; the folder mixes two "
                "models"
            )
        self._load_autoencoder()

    def _prepare(self) -> None:
        _, height, width = self.noise_shape()
        rows, columns = (torch.arange(side // 2, device=self.device, dtype=self.dtype) for side in (height, width))
        places = torch.cartesian_prod(rows, columns)
        self._places = torch.cat([torch.zeros_like(places[:, :1]), places], 1)
        """[h w / 4, 3] of each token of the image: 0, row, column."""
        self._guidance = torch.full((1,), self.guidance, device=self.device)

    @property
    def embeds_guidance(self) -> bool:
        return bool(self.network.config.guidance_embeds)

    @property
    def channels(self) -> int:
        return int(self.network.config.in_channels) // 4

    @property
    def multiple(self) -> int:
        return 2 * int(self.autoencoder.factor)

    @property
    def default_size(self) -> tuple[int, int]:
        return (SIDE * int(self.autoencoder.factor),) * 2

    @property
    def context(self) -> int:
        """Tokens of a prompt."""
        return CONTEXT if self.embeds_guidance else DISTILLED_CONTEXT

    def spacing(self, steps: int) -> dict[str, Any]:
        """Evenly spaced from 1, and shifted with the number of tokens where the scheduler does that."""
        _, height, width = self.noise_shape()
        fewest, most = (self.schedule.get(f"{end}_image_seq_len", n) for end, n in (("base", 256), ("max", 4096)))
        low, high = self.schedule.get("base_shift", 0.5), self.schedule.get("max_shift", 1.15)
        tokens = height * width / 4
        shift = low + (high - low) * (tokens - fewest) / (most - fewest)
        return {"sigmas": [1 - step / steps for step in range(steps)], "mu": shift}

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Text:
        """`text` [P, T, D], and `pooled` [P, E]."""
        assert self._encoders, "finish_reading has dropped the text encoders"
        (clip, t5), (clip_tokens, t5_tokens) = self._encoders, self._tokenizers
        own = min(int(clip_tokens.model_max_length), clip.config.max_position_embeddings)
        options = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
        short = clip_tokens(list(prompts), max_length=own, **options).input_ids.to(self.device)
        long = t5_tokens(list(prompts), max_length=self.context, **options).input_ids.to(self.device)
        return {"text": t5(long)[0], "pooled": clip(short).pooler_output}

    def truncated(self, prompt: str) -> str:
        """That of the T5; the pooled features are always those of the first 77 tokens."""
        return truncated_text(self._tokenizers[1], prompt, self.context)

    def finish_reading(self) -> None:
        self._encoders = ()

    def denoise(self, noisy: Tensor, timesteps: Tensor, text: Text) -> Tensor:
        told = text["text"].to(self.dtype)
        out: Tensor = self.network(
            hidden_states=packed(noisy).to(self.dtype),
            timestep=timesteps.to(self.dtype) / 1000,
            guidance=self._guidance.expand(len(noisy)) if self.embeds_guidance else None,
            pooled_projections=text["pooled"].to(self.dtype),
            encoder_hidden_states=told,
            txt_ids=told.new_zeros(told.shape[1], 3),
            img_ids=self._places,
        ).sample
        return unpacked(out, noisy.shape[-2:]).to(noisy.dtype)


def packed(latents: Tensor) -> Tensor:
    """[B, C, h, w] -> tokens [B, h w / 4, 4 C] of 2 x 2 latent pixels."""
    batch, channels, height, width = latents.shape
    blocks = latents.view(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return blocks.reshape(batch, height * width // 4, 4 * channels)


def unpacked(tokens: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """The inverse of `packed`, for latents of (height, width) `size`."""
    batch, _, channels = tokens.shape
    height, width = size
    blocks = tokens.view(batch, height // 2, width // 2, channels // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return blocks.reshape(batch, channels // 4, height, width)
