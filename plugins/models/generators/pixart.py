"""PixArt-alpha and its one-step distillation by DMD."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.models import PixArtTransformer2DModel
from torch import Tensor
from transformers import T5EncoderModel, T5Tokenizer

from refcore.errors import CheckpointError
from refcore_plugins.models.generators.generator import Generator, Text
from refcore_plugins.models.truncated_text import truncated_text

CONTEXT = 120
"""Tokens of a prompt, section 3.1 of arXiv 2310.00426."""
LARGE = 128
"""Side in latent pixels of the model of 1024 px, which is told the image's size, too."""


class PixArt(Generator):
    """Chen et al., arXiv 2310.00426: a diffusion transformer that attends to the features of a T5. Prompts are in lower
    case. With one step the clean latents are taken as they are predicted, as DMD (arXiv 2311.18828) does.
    """

    component = "transformer"

    def _load(self) -> None:
        config = self.sources.config(self.component)
        # Older folders name the class that PixArt's was split from.
        self._expect(self.component, ("PixArtTransformer2DModel", "Transformer2DModel"), config)
        if config.get("norm_type", "ada_norm_single") != "ada_norm_single":
            raise CheckpointError(
                f'the transformer of "{self.folder.model}" has norm_type {config["norm_type"]}; expected '
                "ada_norm_single, as in PixArt"
            )
        self._load_network(PixArtTransformer2DModel)
        self._tokenizer = self.folder.load_tokenizer(T5Tokenizer)
        self._encoder: Any = self.folder.load_text_encoder(T5EncoderModel, "text_encoder", self.dtype).to(self.device)
        if self.dtype == torch.float64:
            self._encoder = self._encoder.to(self.dtype)
        if self._encoder.config.d_model != self.network.config.caption_channels:
            raise CheckpointError(
                f'the transformer of "{self.folder.model}" reads text of width {self.network.config.caption_channels}, '
                f"but its text encoder has width {self._encoder.config.d_model}; the folder mixes two models"
            )
        self._load_autoencoder()

    def _prepare(self) -> None:
        self._sizes: dict[str, Tensor | None] = {"resolution": None, "aspect_ratio": None}
        if self.network.config.sample_size == LARGE:
            height, width = self.size
            told = {"resolution": [height, width], "aspect_ratio": [height / width]}
            for name, numbers in told.items():
                self._sizes[name] = torch.tensor([numbers], device=self.device, dtype=self.dtype)

    @property
    def multiple(self) -> int:
        return int(self.autoencoder.factor * self.network.config.patch_size)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Text:
        """`text` [P, 120, D], and `mask` [P, 120], 1 where there is a token."""
        assert self._encoder is not None, "finish_reading has dropped the text encoder"
        tokens = self._tokenizer(
            [_plain(prompt) for prompt in prompts],
            padding="max_length",
            truncation=True,
            max_length=CONTEXT,
            return_tensors="pt",
        )
        mask = tokens.attention_mask.to(self.device)
        return {"text": self._encoder(tokens.input_ids.to(self.device), attention_mask=mask)[0], "mask": mask}

    def truncated(self, prompt: str) -> str:
        return truncated_text(self._tokenizer, _plain(prompt), CONTEXT)

    def finish_reading(self) -> None:
        self._encoder = None

    def denoise(self, noisy: Tensor, timesteps: Tensor, text: Text) -> Tensor:
        sizes = {name: None if one is None else one.expand(len(noisy), -1) for name, one in self._sizes.items()}
        out: Tensor = self.network(
            noisy.to(self.dtype),
            encoder_hidden_states=text["text"].to(self.dtype),
            encoder_attention_mask=text["mask"],
            timestep=timesteps,
            added_cond_kwargs=sizes,
        ).sample
        return out[:, : self.channels].to(noisy.dtype)  # the other half, if there is one, is a variance


def _plain(prompt: str) -> str:
    return prompt.lower().strip()
