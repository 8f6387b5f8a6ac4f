"""Fixed prompts, latents and draws for tests of score distillation, and diffusers' own pipeline to compare with."""

import json

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from refcore.rng import Rng

CPU = torch.device("cpu")
PROMPTS = ["a red ring", "two dots"]


def rng(*seeds, step=5):
    return Rng(seeds, step, "sds")


def latents(n=2, height=8, width=12):
    return torch.randn(n, 4, height, width, generator=torch.Generator().manual_seed(0))


def pipeline(folder):
    """Diffusers' own pipeline, without its safety checker."""
    options = {"low_cpu_mem_usage": False}
    config = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    return StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(folder, subfolder="vae", **options),
        text_encoder=CLIPTextModel.from_pretrained(folder, subfolder="text_encoder", dtype=torch.float32).eval(),
        tokenizer=CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer"),
        unet=UNet2DConditionModel.from_pretrained(folder, subfolder="unet", **options).eval(),
        scheduler=DDIMScheduler.from_config({**config, "clip_sample": False}),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sampled_by_pipeline(folder, shape, guidance):
    """What the pipeline samples for PROMPTS in 7 steps from the noise of `rng(3, 4)`; `shape` is [4, h, w]."""
    pipe = pipeline(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe(
        PROMPTS,
        height=shape[1] * pipe.vae_scale_factor,
        width=shape[2] * pipe.vae_scale_factor,
        latents=rng(3, 4).normal(*shape),
        num_inference_steps=7,
        guidance_scale=guidance,
        output_type="latent",
    ).images
