"""The diffusion recipes: an autoencoder, then text encoder and UNet, saved as a diffusers Stable Diffusion folder."""

from __future__ import annotations

import json
import random
from collections import deque
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from refcore_playground.draw import CATEGORIES, draw_request
from refcore_playground.grammar import Request, write
from refcore_playground.judge import judge
from refcore_playground.training.data import BINDING, draw_batch, draw_checkered
from refcore_playground.training.lessons import PhraseHead
from refcore_playground.training.tokens import CONTEXT_LENGTH, clip_tokenizer, save_clip_tokenizer

LATENT_CHANNELS = 4
LATENT_SIZE = 16
TEXT_FIRST = 0.05
"""Share of the diffusion budget in which the text encoder is trained alone, on phrases; minutes of this save an hour of
training it through the denoiser."""
FRESH = 24
"""New scenes encoded per step; a batch is drawn from the pool of the latest, each with its own noise and caption."""
POOL = 4096
SCENES = (*BINDING, "texture", "texture")
"""Categories of the scenes; those in which the model fails most come more often."""
CHECKERED = 8
"""New scenes with something checkered; its squares are single cells of the latent, learnt last of all."""
FINE = 400
"""Timesteps below this only decide textures. True checkered latents, noised to t = 300 and denoised by a model trained
on uniform timesteps, came back right in 35 of 48 scenes (DDIM, guidance 4); after 5,800 steps with FINE_SHARE, in
45."""
FINE_SHARE = 0.5
"""Share of a batch with such timesteps."""
THING_WEIGHT = 5.0
"""Weight of cells with things at these timesteps, relative to the ground, which is nine tenths of a scene. At higher
noise, weights that depend on the scene would bias the model towards drawing more things."""


class AutoencoderRecipe:
    """A KL autoencoder with fourfold downsampling (latent diffusion, arXiv 2112.10752), which keeps 3 px stripes."""

    lr = 1.5e-3
    ema_decay = 0.995
    batch = 10

    def __init__(self, out: Path, seed: int) -> None:
        torch.manual_seed(seed + 2)
        self.out, self.rng = out, random.Random(seed + 2)
        self.model = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            block_out_channels=(24, 48, 64),
            layers_per_block=1,
            latent_channels=LATENT_CHANNELS,
            norm_num_groups=8,
            sample_size=64,
            mid_block_add_attention=False,
        ).to(memory_format=torch.channels_last)
        with torch.no_grad():  # start with little posterior noise, so that the decoder gets a signal
            self.model.quant_conv.bias[LATENT_CHANNELS:] = -6.0

    def modules(self) -> nn.ModuleDict:
        return nn.ModuleDict({"model": self.model})

    def loss(self, step: int, progress: float) -> dict[str, Tensor]:
        # An autoencoder forgets textures first, so every other batch has them.
        categories = ("texture",) if step % 2 else CATEGORIES
        images = draw_batch(self.batch, self.rng, categories=categories).images * 2 - 1
        # Blends train the decoder between scenes, where an inversion spends most of its steps.
        fade = torch.rand(len(images), 1, 1, 1)
        images = torch.where(torch.rand(len(images), 1, 1, 1) < 0.15, images.lerp(images.flip(0), fade), images)
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            posterior = self.model.encode(images).latent_dist
            mean, std = posterior.mean.float(), posterior.std.float()
            decoded = self.model.decode(mean + std * torch.randn_like(mean)).sample.float()
        kl = 0.5 * (mean**2 + std**2 - 1 - 2 * std.log()).mean()
        # Nine tenths of a scene are ground: things weigh more, and their colour (the pooled error) more than edges.
        weight = 1 + 5 * (images - images.amax((2, 3), keepdim=True)).abs().amax(1, keepdim=True).clamp(max=1)
        error = (decoded - images) * (weight / weight.mean((2, 3), keepdim=True)).sqrt()
        edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        colour = F.avg_pool2d(error, 4).square().mean()
        return {
            "l1": error.abs().mean(),
            "l2": 2 * error.square().mean(),
            "edges": edges,
            "colour": 8 * colour,
            "kl": 1e-3 * kl,
        }

    def evaluate(self, quick: bool) -> dict[str, float]:
        """Mean squared error, on pixels in [0, 1], over fresh scenes of both splits."""
        scores = {}
        for split in ("seen", "unseen"):
            images = draw_batch(100, random.Random(f"evaluate-{split}"), split=split).images * 2 - 1
            with torch.autocast("cpu", torch.bfloat16):
                decoded = self.model.decode(self.model.encode(images).latent_dist.mode()).sample.float()
            scores[f"{split}/mse"] = ((decoded.clamp(-1, 1) - images) / 2).square().mean().item()
        return scores

    def warm_start(self) -> None:
        """Loads the weights of the autoencoder in the output folder."""
        saved = AutoencoderKL.from_pretrained(self.out / "vae", torch_dtype=torch.float32, use_safetensors=True)
        self.model.load_state_dict(saved.state_dict())

    def save(self) -> None:
        images = draw_batch(200, random.Random("scale")).images * 2 - 1
        with torch.no_grad():
            std = self.model.encode(images).latent_dist.sample().std().item()
        self.model.register_to_config(scaling_factor=round(1 / std, 5))
        save_half(self.model, self.out / "vae")


class DiffusionRecipe:
    """Latent diffusion with v-prediction (arXiv 2202.00512), in the layout of Stable Diffusion 2."""

    lr = 1.2e-3
    ema_decay = 0.998
    batch = 64

    def __init__(self, out: Path, seed: int) -> None:
        torch.manual_seed(seed + 3)
        self.out, self.rng = out, random.Random(seed + 3)
        self.vae = AutoencoderKL.from_pretrained(
            out / "vae", torch_dtype=torch.float32, use_safetensors=True
        ).requires_grad_(False)
        self.tokenizer = clip_tokenizer()
        self.text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(self.tokenizer),
                hidden_size=128,
                intermediate_size=512,
                projection_dim=128,
                num_hidden_layers=4,
                num_attention_heads=4,
                max_position_embeddings=CONTEXT_LENGTH,
                bos_token_id=self.tokenizer.bos_token_id,
                eos_token_id=self.tokenizer.eos_token_id,
                pad_token_id=self.tokenizer.pad_token_id,
            )
        )
        self.unet = UNet2DConditionModel(
            sample_size=LATENT_SIZE,
            in_channels=LATENT_CHANNELS,
            out_channels=LATENT_CHANNELS,
            # Things cover several cells of 8 px, so attention works at 8 x 8; edges and textures need convolutions.
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            mid_block_type="UNetMidBlock2DCrossAttn",
            block_out_channels=(64, 128),
            layers_per_block=1,
            cross_attention_dim=128,
            attention_head_dim=4,
            norm_num_groups=16,
        ).to(memory_format=torch.channels_last)
        self.scheduler = DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
            prediction_type="v_prediction",
        )
        self.phrases = PhraseHead(128, self.tokenizer.get_vocab())
        self.pool: deque[tuple[Tensor, Tensor, Request]] = deque(maxlen=POOL)
        self.text_first = TEXT_FIRST

    def modules(self) -> nn.ModuleDict:
        return nn.ModuleDict({"text": self.text, "unet": self.unet, "phrases": self.phrases})

    def tokens(self, captions: list[str]) -> Tensor:
        encoded = self.tokenizer(
            captions, padding="max_length", truncation=True, max_length=CONTEXT_LENGTH, return_tensors="pt"
        )
        ids: Tensor = encoded.input_ids
        return ids

    def encode_text(self, captions: list[str]) -> Tensor:
        states: Tensor = self.text(self.tokens(captions)).last_hidden_state
        return states

    def read(self, requests: list[Request]) -> Tensor:
        """Loss of reading each phrase from its noun's state."""
        ids = self.tokens([write(request, self.rng) for request in requests])
        with torch.autocast("cpu", torch.bfloat16):
            states = self.text(ids).last_hidden_state
        return self.phrases.loss(states, ids, requests)

    def draw(self, fresh: int) -> None:
        """Adds `fresh` new scenes to the pool: latents, masks of the cells with things, and requests."""
        share = CHECKERED * fresh // FRESH
        plain = draw_batch(fresh - share, self.rng, categories=SCENES)
        checkered = draw_checkered(share, self.rng)
        images = torch.cat([plain.images, checkered.images])
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            latents = self.vae.encode(images * 2 - 1).latent_dist.sample().float()
        covered = F.adaptive_max_pool2d((images - images[:, :, :1, :1]).abs().amax(1, keepdim=True), LATENT_SIZE) > 0.1
        requests = plain.requests + checkered.requests
        self.pool.extend(zip(latents * self.vae.config.scaling_factor, covered, requests, strict=True))

    def loss(self, step: int, progress: float) -> dict[str, Tensor]:
        if progress < self.text_first:
            return {"phrases": self.read([draw_request(self.rng, self.rng.choice(BINDING)) for _ in range(self.batch)])}
        self.draw(FRESH if self.pool else 20 * FRESH)
        rows = self.rng.sample(self.pool, self.batch)
        latents, covered = (torch.stack(column) for column in list(zip(*rows, strict=True))[:2])
        captions = ["" if self.rng.random() < 0.1 else write(request, self.rng) for *_, request in rows]
        noise = torch.randn_like(latents)
        fine = torch.rand(len(latents)) < FINE_SHARE
        t = torch.where(fine, torch.randint(0, FINE, (len(latents),)), torch.randint(0, 1000, (len(latents),)))
        noisy = self.scheduler.add_noise(latents, noise, t).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            out = self.unet(noisy, t, self.encode_text(captions)).sample.float()
        weight = 1 + (THING_WEIGHT - 1) * (covered & (t < FINE).view(-1, 1, 1, 1))
        error = (out - self.scheduler.get_velocity(latents, noise, t)).square() * weight
        return {"v": (error.mean((1, 2, 3)) / weight.mean((1, 2, 3))).mean()}

    def evaluate(self, quick: bool) -> dict[str, float]:
        """Share of samples that the judge finds right."""
        prompts = draw_batch(36 if quick else 120, random.Random("evaluate-samples")).requests
        images = self.sample([str(r) for r in prompts], guidance=5.0, steps=25)
        right = [judge(i.permute(1, 2, 0).numpy(), r).verdict for i, r in zip(images, prompts, strict=True)]
        return {"samples right": sum(right) / len(right)}

    @torch.no_grad()
    def sample(self, prompts: list[str], guidance: float, steps: int, seed: int = 0) -> Tensor:
        """DDIM samples with classifier-free guidance, [N, 3, 64, 64] in [0, 1]."""
        n = len(prompts)
        self.scheduler.set_timesteps(steps)
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(n, LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE, generator=generator)
        with torch.autocast("cpu", torch.bfloat16):
            text = self.encode_text([""] * n + prompts)
            for t in self.scheduler.timesteps:
                without, given = self.unet(torch.cat([x, x]), t, text).sample.float().chunk(2)
                x = self.scheduler.step(without + guidance * (given - without), t, x).prev_sample
            images: Tensor = self.vae.decode(x / self.vae.config.scaling_factor).sample
            return images.float().add(1).div(2).clamp(0, 1)

    def warm_start(self) -> None:
        """Loads the weights of text encoder and UNet in the output folder."""
        self.text_first = 0.0  # the loaded text encoder reads phrases already
        unet = UNet2DConditionModel.from_pretrained(self.out / "unet", torch_dtype=torch.float32, use_safetensors=True)
        self.unet.load_state_dict(unet.state_dict())
        text = CLIPTextModel.from_pretrained(
            self.out / "text_encoder", dtype=torch.float32, trust_remote_code=False, use_safetensors=True
        )
        self.text.load_state_dict(text.state_dict())

    def save(self) -> None:
        save_clip_tokenizer(self.tokenizer, self.out / "tokenizer")
        save_half(self.unet, self.out / "unet")
        save_half(self.text, self.out / "text_encoder")
        self.scheduler.save_pretrained(self.out / "scheduler")
        index = {
            "_class_name": "StableDiffusionPipeline",
            "_diffusers_version": "0.30.0",
            "feature_extractor": [None, None],
            "image_encoder": [None, None],
            "requires_safety_checker": False,
            "safety_checker": [None, None],
            "scheduler": ["diffusers", "DDIMScheduler"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        }
        (self.out / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def save_half(model: Any, folder: Path) -> None:
    """Saves a diffusers or transformers model in float16 and restores its float32 weights."""
    state = {k: v.clone() for k, v in model.state_dict().items()}
    model.half().save_pretrained(folder)
    model.float().load_state_dict(state)
