"""Stable Diffusion XL and what is distilled from it: SDXL-Turbo, Hyper-SD."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.models import UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from refcore.errors import CheckpointError
from refcore_plugins.models.diffusers_folder import place
from refcore_plugins.models.generators.generator import Generator, Text
from refcore_plugins.models.truncated_text import truncated_text


class StableDiffusionXL(Generator):
    """Podell et al., arXiv 2307.01952. Its text is the last layer but one of two CLIPs, side by side; beside it, the
    network is told the second one's pooled features, and the size of the image, its crop and its target.
    """

    def _load(self) -> None:
        config = self.sources.config(self.component)
        self._expect(self.component, ("UNet2DConditionModel",), config)
        if config.get("addition_embed_type") != "text_time" or config.get("time_cond_proj_dim") is not None:
            raise CheckpointError(
                f'the UNet of "{self.folder.model}" has addition_embed_type {config.get("addition_embed_type")} and '
                f"time_cond_proj_dim {config.get('time_cond_proj_dim')}; expected text_time and null, as in SDXL"
            )
        if config.get("in_channels", 4) != config.get("out_channels", 4):
            raise CheckpointError(
                f'the UNet of "{self.folder.model}" takes {config["in_channels"]} channels and returns '
                f"{config['out_channels']}; expected a plain text-to-image UNet"
            )
        self._load_network(UNet2DConditionModel)
        self._tokenizers = [self.folder.load_tokenizer(CLIPTokenizer, f"tokenizer{end}") for end in ("", "_2")]
        kinds: tuple[Any, ...] = (CLIPTextModel, CLIPTextModelWithProjection)
        self._encoders: list[Any] = [
            place(self.folder.load_text_encoder(kind, f"text_encoder{end}"), self.device, self.dtype)
            for kind, end in zip(kinds, ("", "_2"), strict=True)
        ]
        widths = [encoder.config.hidden_size for encoder in self._encoders]
        if sum(widths) != config["cross_attention_dim"]:
            raise CheckpointError(
                f'the UNet of "{self.folder.model}" attends to text of width {config["cross_attention_dim"]}, but its '
                f"text encoders have widths {widths[0]} and {widths[1]}; the folder mixes two models"
            )
        pooled = self._encoders[1].config.projection_dim
        if 6 * config["addition_time_embed_dim"] + pooled != config["projection_class_embeddings_input_dim"]:
            raise CheckpointError(
                f'the UNet of "{self.folder.model}" does not fit the second text encoder, whose pooled features have '
                f"width {pooled}; the folder mixes two models"
            )
        positions = min(encoder.config.max_position_embeddings for encoder in self._encoders)
        self._context = min(positions, *(int(tokenizer.model_max_length) for tokenizer in self._tokenizers))
        index = self.folder.json("model_index.json") or {}
        self._zeros_for_empty = bool(index.get("force_zeros_for_empty_prompt", True))
        self._load_autoencoder()

    def _prepare(self) -> None:
        whole = [*self.size, 0, 0, *self.size]
        self._time_ids = torch.tensor([whole], device=self.device, dtype=self.dtype)
        """[1, 6] original size, crop's corner and target size, (height, width) each."""

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Text:
        """`text` [P, T, D], and `pooled` [P, E]."""
        assert self._encoders, "finish_reading has dropped the text encoders"
        options = {"padding": "max_length", "truncation": True, "max_length": self._context, "return_tensors": "pt"}
        outputs = [
            encoder(tokenizer(list(prompts), **options).input_ids.to(self.device), output_hidden_states=True)
            for tokenizer, encoder in zip(self._tokenizers, self._encoders, strict=True)
        ]
        text = torch.cat([output.hidden_states[-2] for output in outputs], -1)
        return {"text": text, "pooled": outputs[1].text_embeds}

    def encode_negative(self, prompt: str) -> Text:
        """As in diffusers' pipeline, an empty prompt is zeros, unless model_index.json says otherwise."""
        features = self.encode([prompt])
        if not prompt and self._zeros_for_empty:
            return {name: torch.zeros_like(value) for name, value in features.items()}
        return features

    def truncated(self, prompt: str) -> str:
        return truncated_text(self._tokenizers[0], prompt, self._context)

    def finish_reading(self) -> None:
        self._encoders = []

    def denoise(self, noisy: Tensor, timesteps: Tensor, text: Text) -> Tensor:
        beside = {"text_embeds": text["pooled"].to(self.dtype), "time_ids": self._time_ids.expand(len(noisy), -1)}
        told = text["text"].to(self.dtype)
        out: Tensor = self.network(noisy.to(self.dtype), timesteps, told, added_cond_kwargs=beside).sample
        return out.to(noisy.dtype)
