"""Samples of the embedded diffusion models, as diffusers would draw them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from refcore import checkpoints
from refcore.rng import keyed_generator
from refcore_bench.samples.choice import Choice

CHUNK = 64
"""Samples per batch; affects memory, not results."""


class Sampling(Choice):
    """Settings of a variant that samples."""

    model: str = Field(
        "playground:diffusion", description="A Stable Diffusion folder, playground:diffusion or playground:turbo."
    )
    guidance: float = Field(7.5, ge=0, description="Classifier-free guidance scale; 1 is none.")
    steps: int = Field(
        50, ge=1, description="Steps, deterministic: Euler's where the folder has that scheduler, else DDIM's."
    )


class Sampler:
    """The networks of a Stable Diffusion folder, on the CPU in float32.

    DDIM (arXiv 2010.02502), or Euler (arXiv 2206.00364) where the folder's scheduler is that, as in one-step
    generators; with classifier-free guidance (arXiv 2207.12598).
    """

    def __init__(self, model: str) -> None:
        from diffusers import AutoencoderKL, DDIMScheduler, EulerDiscreteScheduler, UNet2DConditionModel
        from transformers import CLIPTextModel, CLIPTokenizer

        from refcore_plugins.models.quiet_loading import quietly
        from refcore_plugins.models.untrusted_checkpoints import data_only, refuse_code

        folder = checkpoints.resolve(model)
        refuse_code(folder, model)
        with quietly(), data_only():
            self.vae: Any = AutoencoderKL.from_pretrained(
                folder, subfolder="vae", torch_dtype=torch.float32, use_safetensors=True
            ).eval()
            self.unet: Any = UNet2DConditionModel.from_pretrained(
                folder, subfolder="unet", torch_dtype=torch.float32, use_safetensors=True
            ).eval()
            text: Any = CLIPTextModel.from_pretrained(
                folder, subfolder="text_encoder", dtype=torch.float32, trust_remote_code=False, use_safetensors=True
            )
            self.tokenizer: Any = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer", trust_remote_code=False)
            settings = DDIMScheduler.load_config(folder, subfolder="scheduler")
            euler = settings["_class_name"] == "EulerDiscreteScheduler"
            self.scheduler: Any = (EulerDiscreteScheduler if euler else DDIMScheduler).from_config(settings)
        self.text: Any = text.eval()

    def noise(self, prompt: str, seed: int, number: int = 0) -> Tensor:
        """Initial noise [C, h, w] of sample `number` of a prompt and seed; independent of the batch."""
        stream = f"sampling/{prompt}" + (f"/{number}" if number else "")
        side = self.unet.config.sample_size
        return torch.randn(self.unet.config.in_channels, side, side, generator=keyed_generator(seed, 0, stream))

    def draw(self, samples: Sequence[tuple[str, int]], seed: int, settings: Sampling) -> Tensor:
        """Images [N, 3, H, W] in [0, 1] of N samples: (prompt, number of the sample)."""
        noise = torch.stack([self.noise(prompt, seed, number) for prompt, number in samples])
        return self.sample([prompt for prompt, _ in samples], noise, settings)

    @torch.inference_mode()
    def sample(self, prompts: Sequence[str], noise: Tensor, settings: Sampling) -> Tensor:
        """Images [N, 3, H, W] in [0, 1] of N prompts, from `noise` [N, C, h, w]."""
        parts = [
            self._sample(prompts[first : first + CHUNK], noise[first : first + CHUNK], settings)
            for first in range(0, len(prompts), CHUNK)
        ]
        return torch.cat(parts)

    def _sample(self, prompts: Sequence[str], latents: Tensor, settings: Sampling) -> Tensor:
        guidance = settings.guidance
        texts = (
            [*prompts] if guidance == 1 else [""] * len(prompts) if guidance == 0 else [""] * len(prompts) + [*prompts]
        )
        tokens = self.tokenizer(
            texts,
            padding="max_length",
            truncation=True,
            max_length=self.tokenizer.model_max_length,
            return_tensors="pt",
        )
        states = self.text(tokens.input_ids).last_hidden_state
        self.scheduler.set_timesteps(settings.steps)
        latents = latents * self.scheduler.init_noise_sigma
        for t in self.scheduler.timesteps:
            scaled = self.scheduler.scale_model_input(latents, t)
            if guidance in (0, 1):
                predicted = self.unet(scaled, t, states).sample
            else:
                without, given = self.unet(torch.cat([scaled, scaled]), t, states).sample.chunk(2)
                predicted = without + guidance * (given - without)
            latents = self.scheduler.step(predicted, t, latents).prev_sample
        images: Tensor = self.vae.decode(latents / self.vae.config.scaling_factor).sample
        return images.add(1).div(2).clamp(0, 1)
