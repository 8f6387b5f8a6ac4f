"""SANA-Sprint: a consistency model in the space of a deep-compression autoencoder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from inspect import signature
from typing import Any

import torch
from diffusers import SanaSprintPipeline
from diffusers.models import AutoencoderDC, SanaTransformer2DModel
from diffusers.schedulers import SCMScheduler
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import Gemma2Model, GemmaTokenizer

from refcore.contracts.canvas import LatentSpace
from refcore.errors import CheckpointError
from refcore_plugins.models.autoencoder import encoder_fingerprint
from refcore_plugins.models.diffusers_folder import DiffusersFolder, diffusers_options, place
from refcore_plugins.models.generators.generator import Generator, Text
from refcore_plugins.models.truncated_text import truncated_text

CONTEXT = 300
"""Tokens of a prompt, its start included; the instruction before it is not counted."""
FIRST, SECOND = 1.57080, 1.3
"""Angles of the first timestep, and of the second one of two, as in diffusers' pipeline."""
INSTRUCTION: str = "\n".join(signature(SanaSprintPipeline.__call__).parameters["complex_human_instruction"].default)
"""What stands before each prompt, with which the models were trained; it is the pipeline's."""


class SanaSprint(Generator):
    """Chen et al., arXiv 2503.09641: a linear-attention transformer that reads the features of a Gemma 2, and is told
    the guidance scale. Timesteps are angles: x_t = cos(t) x + sin(t) noise, of the standard deviation `sigma_data`.
    """

    component = "transformer"
    schedulers = (SCMScheduler,)
    own_alone = True

    def _load(self) -> None:
        config = self.sources.config(self.component)
        self._expect(self.component, ("SanaTransformer2DModel",), config)
        if not config.get("guidance_embeds"):
            raise CheckpointError(
                f'the transformer of "{self.folder.model}" has no guidance embedding; expected one of SANA-Sprint'
            )
        self._load_network(SanaTransformer2DModel)
        self._tokenizer = self.folder.load_tokenizer(GemmaTokenizer)
        self._tokenizer.padding_side = "right"
        self._encoder: Any = self.folder.load_text_encoder(Gemma2Model, "text_encoder", self.dtype).to(self.device)
        if self.dtype == torch.float64:
            self._encoder = self._encoder.to(self.dtype)
        if self._encoder.config.hidden_size != self.network.config.caption_channels:
            raise CheckpointError(
                f'the transformer of "{self.folder.model}" reads text of width {self.network.config.caption_channels}, '
                f"but its text encoder has width {self._encoder.config.hidden_size}; the folder mixes two models"
            )
        self.autoencoder = DeepCompressionAutoencoder(self.sources.autoencoder(), self.device, self.dtype)
        if self.autoencoder.space.channels != self.channels:
            raise CheckpointError(
                f'the autoencoder of "{self.sources.autoencoder().model}" has {self.autoencoder.space.channels} '
                f'channels, but "{self.folder.model}" makes latents of {self.channels}'
            )

    def _prepare(self) -> None:
        told = self.guidance * self.network.config.guidance_embeds_scale
        self._guidance = torch.full((1,), told, device=self.device, dtype=self.dtype)

    @property
    def embeds_guidance(self) -> bool:
        return True

    def spacing(self, steps: int) -> dict[str, Any]:
        second = SECOND if steps == 2 else None
        return {"num_inference_steps": steps, "max_timesteps": FIRST, "intermediate_timesteps": second}

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Text:
        """`text` [P, 300, D], and `mask` [P, 300], 1 where there is a token.

        The first token, and the last 299 of instruction and prompt with its padding, as in diffusers' pipeline.
        """
        assert self._encoder is not None, "finish_reading has dropped the text encoder"
        before = len(self._tokenizer.encode(INSTRUCTION))
        tokens = self._tokenizer(
            [INSTRUCTION + _plain(prompt) for prompt in prompts],
            padding="max_length",
            truncation=True,
            max_length=before + CONTEXT - 2,
            return_tensors="pt",
        )
        mask = tokens.attention_mask.to(self.device)
        text = self._encoder(tokens.input_ids.to(self.device), attention_mask=mask)[0]
        kept = [0, *range(1 - CONTEXT, 0)]
        return {"text": text[:, kept], "mask": mask[:, kept]}

    def truncated(self, prompt: str) -> str:
        room = CONTEXT - 2  # beside the first token, and the last one of the instruction
        return truncated_text(
            self._tokenizer, _plain(prompt), room + self._tokenizer.num_special_tokens_to_add(pair=False)
        )

    def finish_reading(self) -> None:
        self._encoder = None

    def denoise(self, noisy: Tensor, timesteps: Tensor, text: Text) -> Tensor:
        """The velocity of the angle t. The network's own time is s = sin t / (sin t + cos t), that of a flow.

        Args:
            noisy: [B, C, h, w] latents / sigma_data.
            timesteps: [B] angles.
            text: of the B prompts.
        """
        s = (torch.sin(timesteps) / (torch.cos(timesteps) + torch.sin(timesteps))).to(timesteps.dtype)
        each = s.view(-1, 1, 1, 1)
        norm = torch.sqrt(each**2 + (1 - each) ** 2)
        scaled = noisy * norm
        flow = self.network(
            scaled.to(self.dtype),
            encoder_hidden_states=text["text"].to(self.dtype),
            encoder_attention_mask=text["mask"],
            guidance=self._guidance.expand(len(noisy)),
            timestep=s,
        ).sample
        out: Tensor = ((1 - 2 * each) * scaled + (1 - 2 * each + 2 * each**2) * flow) / norm
        return out.to(noisy.dtype)


class DeepCompressionAutoencoder:
    """A DC-AE (Chen et al., arXiv 2410.10733): 32 pixels a latent pixel, 32 channels; deterministic.

    Raises:
        CheckpointError: the folder has none.
    """

    def __init__(self, folder: DiffusersFolder, device: torch.device, dtype: torch.dtype) -> None:
        component = "vae" if folder.json("vae/config.json") is not None else ""
        kind = folder.config(component).get("_class_name")
        if kind != "AutoencoderDC":
            raise CheckpointError(f'the autoencoder of "{folder.model}" is of class {kind}; expected AutoencoderDC')
        model = folder.load(AutoencoderDC, component, **diffusers_options())
        channels, scale = int(model.config["latent_channels"]), float(model.config["scaling_factor"])
        self.space = LatentSpace(encoder_fingerprint(model), channels, scale)
        self.factor = int(model.spatial_compression_ratio)
        self.model = place(model, device, dtype)

    def decode(self, latents: Tensor) -> Tensor:
        """See `Autoencoder.decode`."""
        decoded: Tensor = self.model.decode((latents / self.space.scale).to(self.model.dtype)).sample
        return (decoded.to(latents.dtype) + 1) / 2

    def decode_by_blocks(self, latents: Tensor) -> Tensor:
        """See `Autoencoder.decode_by_blocks`."""
        blocks = [block for stage in self.model.decoder.up_blocks for block in stage]
        for block in blocks:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
        try:
            return self.decode(latents)
        finally:
            for block in blocks:
                del block.forward  # the class's own is back


def _plain(prompt: str) -> str:
    return prompt.lower().strip()
