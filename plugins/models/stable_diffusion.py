"""Stable Diffusion 1.x and 2.x as a frozen noise predictor: text encoder, UNet and noise schedule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers.models import UNet2DConditionModel
from diffusers.schedulers import DDIMScheduler, DDPMScheduler
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from refcore.errors import CheckpointError, RefcoreError, article
from refcore_plugins.models.diffusers_folder import DiffusersFolder, diffusers_options, place
from refcore_plugins.models.score_distillation import (
    clean_of_noise,
    clean_of_velocity,
    noise_between,
    noise_of_velocity,
)
from refcore_plugins.models.untrusted_checkpoints import reason_of

PIPELINES = ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline")
"""Pipelines with one CLIP text encoder and a text-conditioned UNet, as in Stable Diffusion 1.x and 2.x."""
PREDICTIONS = ("epsilon", "v_prediction", "sample")


class StableDiffusion:
    """Predicts the noise in noisy scaled latents, given text features. Every sample has its own timestep.

    The network may predict the noise, the velocity or the clean latents. Where a schedule leaves no signal at its last
    timestep (zero terminal SNR, arXiv 2305.08891), the noise says nothing of the latents, and only the network's own
    output does: `clean` and `ddim` use it.

    Raises:
        CheckpointError: the folder holds another pipeline, lacks a component, or mixes components of different models.
    """

    def __init__(
        self,
        folder: DiffusersFolder,
        device: torch.device,
        dtype: torch.dtype,
        unet: UNet2DConditionModel | None = None,
    ) -> None:
        """
        Args:
            folder: with its components.
            device: of the networks.
            dtype: of their weights.
            unet: in place of the folder's own.
        """
        check_layout(folder)
        self.folder, self.device, self.dtype = folder, torch.device(device), dtype
        self._schedule = folder.config("scheduler", "scheduler_config.json")
        schedule = _scheduler(folder, self._schedule)
        self.prediction: str = schedule.config.prediction_type
        if self.prediction not in PREDICTIONS:
            raise CheckpointError(
                f'the scheduler of "{folder.model}" says prediction_type "{self.prediction}"; '
                f"expected {', '.join(PREDICTIONS)}"
            )
        self.alphas_cumprod: Tensor = schedule.alphas_cumprod.to(self.device)
        """[T] alpha_bar_t, the fraction of signal variance at timestep t."""
        self.has_signal = bool(schedule.alphas_cumprod.min() > 0)
        """False with zero terminal SNR: alpha_bar is 0 at the last timestep."""
        self.tokenizer: CLIPTokenizer = folder.load_tokenizer(CLIPTokenizer)
        self.text_encoder: Any = place(folder.load_text_encoder(CLIPTextModel, "text_encoder"), self.device, dtype)
        if unet is None:
            unet = folder.load(UNet2DConditionModel, "unet", **diffusers_options())
        self._positions: int = self.text_encoder.config.max_position_embeddings
        width = self.text_encoder.config.hidden_size
        if unet.config.cross_attention_dim != width:
            raise CheckpointError(
                f'the UNet of "{folder.model}" attends to text of width {unet.config.cross_attention_dim}, but its '
                f"text encoder has width {width}; the folder mixes two models"
            )
        self.unet = place(unet, self.device, dtype)

    @property
    def channels(self) -> int:
        """C, the channels of the latents."""
        return int(self.unet.config.in_channels)

    @property
    def context_length(self) -> int:
        """Tokens of the text encoder's context, start and end tokens included."""
        return min(int(self.tokenizer.model_max_length), self._positions)

    @torch.no_grad()
    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """Text features [P, T, D] in the model's dtype; prompts are truncated to the context."""
        assert self.text_encoder is not None, "finish_reading has dropped the text encoder"
        tokens = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=self.context_length, return_tensors="pt"
        )
        features: Tensor = self.text_encoder(tokens.input_ids.to(self.device)).last_hidden_state
        return features

    def finish_reading(self) -> None:
        """Drops the text encoder, 0.5 GB in float32 for Stable Diffusion 1.5."""
        self.text_encoder = None

    def truncated(self, prompt: str) -> str:
        """Text at the end of the prompt that is truncated by the context; "" if none."""
        tokens = self.tokenizer(prompt, truncation=False, verbose=False).input_ids
        return str(self.tokenizer.decode(tokens[self.context_length - 1 : -1])).strip()

    @torch.no_grad()
    def noise(self, noisy: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
        """`predicted`, without a graph."""
        return self.predicted(noisy, timesteps, text)

    def predicted(self, noisy: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
        """The predicted noise, whatever the network predicts.

        Args:
            noisy: [B, C, h, w] noisy scaled latents.
            timesteps: [B] int64.
            text: [B, T, D] text features, as from `encode_text`.

        Returns:
            [B, C, h, w] in the dtype of `noisy`.
        """
        out = self.output(noisy, timesteps, text)
        if self.prediction == "epsilon":
            return out
        alpha_bar = self.alphas_cumprod[timesteps].to(noisy.dtype)
        if self.prediction == "v_prediction":
            return noise_of_velocity(out, noisy, alpha_bar)
        return noise_between(out, noisy, alpha_bar)

    @torch.no_grad()
    def clean(self, noisy: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
        """The predicted clean latents, with the arguments of `predicted`; not finite for noise without signal."""
        out = self.output(noisy, timesteps, text)
        if self.prediction == "sample":
            return out
        convert = clean_of_velocity if self.prediction == "v_prediction" else clean_of_noise
        return convert(out, noisy, self.alphas_cumprod[timesteps].to(noisy.dtype))

    def output(self, noisy: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
        """The network's own output, of the kind `prediction`, with the arguments of `predicted`."""
        # On the CPU, torch's fused attention and plain (not channels-last) memory are fastest for a forward pass alone.
        out: Tensor = self.unet(noisy.to(self.dtype), timesteps, text.to(self.dtype)).sample.to(noisy.dtype)
        return out

    def to_sample(self, noisy: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
        """What `ddim` wants predicted: the noise, or the network's own output where the noise is not enough."""
        return self.noise(noisy, timesteps, text) if self.has_signal else self.output(noisy, timesteps, text)

    @torch.no_grad()
    def ddim(
        self,
        noise: Tensor,
        steps: int,
        predict: Callable[[Tensor, Tensor], Tensor],
        around: Tensor | None = None,
        strength: float = 1.0,
    ) -> Tensor:
        """Samples by deterministic DDIM (eta 0), eq. 12 of arXiv 2010.02502, with diffusers' own scheduler.

        Args:
            noise: [B, C, h, w] standard normal.
            steps: Number of sampling steps, spaced by the folder's scheduler config.
            predict: (noisy latents, timesteps [B]) -> `to_sample` of them, with guidance.
            around: [B, C, h, w] scaled latents to start from, with noise added: SDEdit (arXiv 2108.01073).
            strength: Fraction of the steps, the last ones, that are taken from `around`; at least one step is.

        Returns:
            [B, C, h, w] scaled latents.

        Raises:
            RefcoreError: `steps` exceeds the model's number of timesteps, or the model cannot be sampled.
        """
        schedule = self._sampler(steps)
        latents: Tensor
        if around is None:
            timesteps, latents = schedule.timesteps, noise * schedule.init_noise_sigma
        else:
            timesteps, latents = last(schedule.timesteps, strength), self.noised(around, noise, steps, strength)
        for t in timesteps.tolist():
            predicted = predict(latents, torch.full((len(latents),), t, device=latents.device))
            latents = schedule.step(predicted, t, latents).prev_sample
        return latents

    def noised(self, latents: Tensor, noise: Tensor, steps: int, strength: float) -> Tensor:
        """Latents [B, C, h, w] with `noise`, as at the first timestep of `ddim` around them; in the noise's dtype."""
        schedule = self._sampler(steps)
        noised: Tensor = schedule.add_noise(latents.to(noise), noise, last(schedule.timesteps, strength)[:1])
        return noised

    def _sampler(self, steps: int) -> Any:
        """The scheduler of `ddim`, with its timesteps."""
        most = len(self.alphas_cumprod)
        if steps > most:
            raise RefcoreError(
                f'{steps} sampling steps; expected at most {most}, the timesteps of "{self.folder.model}"'
            )
        if not self.has_signal and self.prediction == "epsilon":
            raise RefcoreError(
                f'"{self.folder.model}" cannot be sampled: no signal is left at its last timestep (zero terminal SNR), '
                'where predicted noise does not tell the latents; expected prediction_type "v_prediction" or "sample"'
            )
        schedule = DDIMScheduler.from_config(
            self._schedule,
            prediction_type="epsilon" if self.has_signal else self.prediction,
            clip_sample=False,
            thresholding=False,
            steps_offset=1,  # as diffusers' pipeline sets it, whatever the folder says
        )
        schedule.set_timesteps(steps)
        highest = int(schedule.timesteps.max())
        if highest >= most:
            raise RefcoreError(
                f'{steps} sampling steps start at timestep {highest} of "{self.folder.model}", whose last is {most - 1}'
                "; take fewer steps"
            )
        return schedule


def _scheduler(folder: DiffusersFolder, config: dict[str, Any]) -> Any:
    """The folder's noise schedule, with a signal at every timestep that is a number.

    Raises:
        CheckpointError: the config makes no schedule.
    """
    try:
        schedule = DDPMScheduler.from_config(config)
        alphas = schedule.alphas_cumprod
        if not (alphas.numel() and alphas.isfinite().all() and alphas.min() >= 0 and alphas.max() <= 1):
            raise ValueError("its alpha_bar are not numbers in [0, 1]")
    except Exception as error:  # the library checks nothing, so torch raises what it makes of the values
        raise CheckpointError(
            f'scheduler/scheduler_config.json of "{folder.model}" makes no noise schedule: '
            f"{type(error).__name__}: {reason_of(error, 120)}; fetch that file again"
        ) from error
    return schedule


def last(timesteps: Tensor, strength: float) -> Tensor:
    """The timesteps that diffusers' image-to-image pipelines do at a strength in (0, 1]; at least one.

    >>> last(torch.tensor([801, 601, 401, 201, 1]), 0.5)
    tensor([201,   1])
    """
    steps = len(timesteps)
    return timesteps[steps - max(1, min(int(steps * strength), steps)) :]


def check_layout(folder: DiffusersFolder) -> None:
    """Raises CheckpointError, with what it found, unless the components are those of Stable Diffusion 1.x or 2.x."""
    if folder.pipeline is not None and folder.pipeline not in PIPELINES:
        raise CheckpointError(
            f'"{folder.model}" is {article(str(folder.pipeline))}; '
            f"expected Stable Diffusion 1.x or 2.x ({', '.join(PIPELINES)})"
        )
    text = folder.config("text_encoder")
    if "CLIPTextModel" not in text.get("architectures", ["CLIPTextModel"]):
        raise CheckpointError(
            f'the text encoder of "{folder.model}" is a {", ".join(text["architectures"])}; expected CLIPTextModel, '
            "as in Stable Diffusion 1.x and 2.x"
        )
    unet = folder.config("unet")
    if unet.get("_class_name") != "UNet2DConditionModel":
        raise CheckpointError(
            f'the UNet of "{folder.model}" is {article(str(unet.get("_class_name")))}; expected UNet2DConditionModel'
        )
    if unet.get("in_channels", 4) != unet.get("out_channels", 4):
        raise CheckpointError(
            f'the UNet of "{folder.model}" takes {unet["in_channels"]} channels and returns {unet["out_channels"]}: it '
            "is for inpainting, depth or editing; expected a plain text-to-image UNet"
        )
    for field in ("addition_embed_type", "class_embed_type"):
        if unet.get(field) is not None:
            raise CheckpointError(
                f'the UNet of "{folder.model}" needs more than text ({field}: {unet[field]}), as in SDXL; '
                "expected Stable Diffusion 1.x or 2.x"
            )
