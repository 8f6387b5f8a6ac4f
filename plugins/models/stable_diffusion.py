"""Stable Diffusion 1.x and 2.x as a frozen predictor of noise: the text encoder, UNet and schedule of a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers.models import UNet2DConditionModel
from diffusers.schedulers import DDIMScheduler, DDPMScheduler
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from refcore.errors import CheckpointError, RefcoreError, article
from refcore_plugins.models.diffusers_folder import DiffusersFolder, diffusers_options, place
from refcore_plugins.models.distillation import noise_of_velocity
from refcore_plugins.models.untrusted import data_only

PIPELINES = ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline")
"""Pipelines made of one CLIP text encoder and a text-conditioned UNet: the layouts of Stable Diffusion 1.x and 2.x."""
PREDICTIONS = ("epsilon", "v_prediction")


class StableDiffusion:
    """Predicts the noise in noisy scaled latents, given text features; every sample has its own timestep.

    Raises:
        CheckpointError: the folder holds another pipeline, lacks a component, or its components do not fit together.
    """

    def __init__(self, folder: DiffusersFolder, device: torch.device, dtype: torch.dtype) -> None:
        check_layout(folder)
        self.folder, self.device, self.dtype = folder, torch.device(device), dtype
        self._schedule = folder.config("scheduler", "scheduler_config.json")
        schedule = DDPMScheduler.from_config(self._schedule)
        self.prediction: str = schedule.config.prediction_type
        if self.prediction not in PREDICTIONS:
            raise CheckpointError(
                f'the scheduler of "{folder.model}" says prediction_type "{self.prediction}"; '
                f"expected {' or '.join(PREDICTIONS)}"
            )
        self.alphas_cumprod: Tensor = schedule.alphas_cumprod.to(self.device)
        """[T] alpha_bar_t, the share of signal variance at timestep t."""
        self.tokenizer = self._load_tokenizer()
        self.text_encoder: Any = place(self._load_text_encoder(), self.device, dtype)
        unet = folder.load(UNet2DConditionModel, "unet", **diffusers_options())
        self._positions: int = self.text_encoder.config.max_position_embeddings
        width = self.text_encoder.config.hidden_size
        if unet.config.cross_attention_dim != width:
            raise CheckpointError(
                f'the UNet of "{folder.model}" attends to text of width {unet.config.cross_attention_dim}, but its '
                f"text encoder gives {width}; the folder mixes two models"
            )
        self.unet = place(unet, self.device, dtype)

    @property
    def channels(self) -> int:
        """C of the latents."""
        return self.unet.config.in_channels

    @property
    def context_length(self) -> int:
        """Tokens that the text encoder reads, the first and the last included."""
        return min(self.tokenizer.model_max_length, self._positions)

    @torch.no_grad()
    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """Text features [P, T, D] in the model's dtype; what is beyond the context is cut."""
        assert self.text_encoder is not None, "conditioning was finished"
        tokens = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=self.context_length, return_tensors="pt"
        )
        return self.text_encoder(tokens.input_ids.to(self.device)).last_hidden_state

    def finish_reading(self) -> None:
        """Drops the text encoder: 0.5 GB of Stable Diffusion 1.5 in float32."""
        self.text_encoder = None

    def cut(self, prompt: str) -> str:
        """The end of the prompt that is beyond the context; "" where all of it is read."""
        tokens = self.tokenizer(prompt, truncation=False, verbose=False).input_ids
        return str(self.tokenizer.decode(tokens[self.context_length - 1 : -1])).strip()

    @torch.no_grad()
    def noise(self, noisy: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
        """The predicted noise, as `predicted`, without a graph."""
        return self.predicted(noisy, timesteps, text)

    def predicted(self, noisy: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
        """The predicted noise, whatever the network was trained to predict.

        Args:
            noisy: [B, C, h, w] noisy scaled latents.
            timesteps: [B] int64.
            text: [B, T, D] of `encode_text`.

        Returns:
            [B, C, h, w] in the dtype of `noisy`.
        """
        # On the CPU, forward alone: torch's fused attention and plain (not channels-last) memory are the fastest here.
        out = self.unet(noisy.to(self.dtype), timesteps, text.to(self.dtype)).sample.to(noisy.dtype)
        if self.prediction == "v_prediction":
            return noise_of_velocity(out, noisy, self.alphas_cumprod[timesteps].to(noisy.dtype))
        return out

    @torch.no_grad()
    def ddim(
        self,
        noise: Tensor,
        steps: int,
        predict: Callable[[Tensor, Tensor], Tensor],
        around: Tensor | None = None,
        strength: float = 1.0,
    ) -> Tensor:
        """Samples: DDIM without noise on the way (eta 0), eq. 12 of arXiv 2010.02502, by diffusers' own scheduler.

        Args:
            noise: [B, C, h, w] standard normal.
            steps: of the sampler, spaced as the folder's scheduler says.
            predict: (noisy latents, timesteps [B]) -> the noise in them, as `noise` with some guidance.
            around: [B, C, h, w] scaled latents to start from instead, with noise added: SDEdit (arXiv 2108.01073).
            strength: share of the steps, the last ones, that are done from `around`; at least one is.

        Returns:
            [B, C, h, w] scaled latents.

        Raises:
            RefcoreError: more steps than the model has timesteps.
        """
        if steps > len(self.alphas_cumprod):
            most = len(self.alphas_cumprod)
            raise RefcoreError(f'{steps} sampling steps; "{self.folder.model}" has {most} timesteps, expected no more')
        schedule = DDIMScheduler.from_config(
            self._schedule, prediction_type="epsilon", clip_sample=False, thresholding=False
        )
        schedule.set_timesteps(steps)
        timesteps = schedule.timesteps
        if around is None:
            latents = noise * schedule.init_noise_sigma
        else:  # the steps of diffusers' image-to-image pipelines
            timesteps = timesteps[steps - max(1, min(int(steps * strength), steps)) :]
            latents = schedule.add_noise(around.to(noise), noise, timesteps[:1])
        for t in timesteps.tolist():
            predicted = predict(latents, torch.full((len(latents),), t, device=latents.device))
            latents = schedule.step(predicted, t, latents).prev_sample
        return latents

    def _load_tokenizer(self) -> CLIPTokenizer:
        self.folder.config("tokenizer", "tokenizer_config.json")
        try:
            with data_only():
                return CLIPTokenizer.from_pretrained(self.folder.source, subfolder="tokenizer", trust_remote_code=False)
        except Exception as error:  # whichever file is broken, transformers raises another kind
            raise CheckpointError(
                f'tokenizer of "{self.folder.model}" cannot be loaded: {error}; fetch that folder again'
            ) from error

    def _load_text_encoder(self) -> CLIPTextModel:
        shows_progress = transformers_logging.is_progress_bar_enabled()
        transformers_logging.disable_progress_bar()  # the run has its own
        try:
            return self.folder.load(CLIPTextModel, "text_encoder", dtype=torch.float32)
        finally:
            if shows_progress:
                transformers_logging.enable_progress_bar()


def check_layout(folder: DiffusersFolder) -> None:
    """Raises CheckpointError, naming what it found, unless the folder has the layout of Stable Diffusion 1.x or 2.x."""
    if folder.pipeline is not None and folder.pipeline not in PIPELINES:
        raise CheckpointError(
            f'"{folder.model}" is {article(str(folder.pipeline))}; '
            f"expected Stable Diffusion 1.x or 2.x ({', '.join(PIPELINES)})"
        )
    text = folder.config("text_encoder")
    if "CLIPTextModel" not in text.get("architectures", ["CLIPTextModel"]):
        raise CheckpointError(
            f'the text encoder of "{folder.model}" is a {", ".join(text["architectures"])}; expected CLIPTextModel, '
            "as Stable Diffusion 1.x and 2.x have"
        )
    unet = folder.config("unet")
    if unet.get("_class_name") != "UNet2DConditionModel":
        raise CheckpointError(
            f'the UNet of "{folder.model}" is {article(str(unet.get("_class_name")))}; expected UNet2DConditionModel'
        )
    if unet.get("in_channels", 4) != unet.get("out_channels", 4):
        raise CheckpointError(
            f'the UNet of "{folder.model}" takes {unet["in_channels"]} channels and gives {unet["out_channels"]}: it '
            "is for inpainting, depth or editing; expected a plain text-to-image UNet"
        )
    for field in ("addition_embed_type", "class_embed_type"):
        if unet.get(field) is not None:
            raise CheckpointError(
                f'the UNet of "{folder.model}" wants more than text ({field}: {unet[field]}), as SDXL does; '
                "expected Stable Diffusion 1.x or 2.x"
            )
