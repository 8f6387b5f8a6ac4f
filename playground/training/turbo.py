"""The turbo recipe: a one-step generator distilled from the embedded diffusion model, in the layout of SD-Turbo."""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections import deque
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, EulerDiscreteScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from refcore import checkpoints
from refcore_playground.draw import draw_request
from refcore_playground.grammar import write
from refcore_playground.judge import judge
from refcore_playground.training.data import draw_batch
from refcore_playground.training.diffusion import LATENT_CHANNELS, LATENT_SIZE, SCENES, save_half

TEACHER = "playground:diffusion"
GUIDANCE = 3.0
"""Of the teacher, in its samples and in its score; its samples are most often right at 3."""
REGRESSION = 0.1
"""Share of the budget in which the student learns the teacher's samples by their noise. Alone it leaves ghosts of
things between two places."""
SCORE_FIRST = 0.14
"""Share of the budget from which the student is trained by distributions; before that, the score of its samples is
learnt."""
PAIR_STEPS = 8
"""DDIM steps of the teacher's samples; 86 of 120 are right."""
FRESH = 4
"""New samples of the teacher per step; a batch is drawn from the pool of the latest."""
POOL = 6000
TIMESTEPS = (20, 980)
"""Range of the noise at which the two scores are compared."""


class TurboRecipe:
    """One Euler step from the last timestep, without guidance.

    Regression on the teacher's pairs of noise and sample, then distribution matching (DMD, arXiv 2311.18828): the
    gradient in a sample is the difference of the clean latents that two models see in it when it is noised, one that is
    trained on the student's samples all along, and the guided teacher. Text encoder and autoencoder are the teacher's.
    """

    lr = 3e-4
    ema_decay = 0.995
    batch = 32

    def __init__(self, out: Path, seed: int) -> None:
        torch.manual_seed(seed + 4)
        self.out, self.rng = out, random.Random(seed + 4)
        self.folder = Path(checkpoints.resolve(TEACHER))
        self.vae: Any = AutoencoderKL.from_pretrained(
            self.folder / "vae", torch_dtype=torch.float32, use_safetensors=True
        ).requires_grad_(False)
        self.text: Any = CLIPTextModel.from_pretrained(
            self.folder / "text_encoder", dtype=torch.float32, trust_remote_code=False, use_safetensors=True
        ).requires_grad_(False)
        self.tokenizer = CLIPTokenizer.from_pretrained(self.folder / "tokenizer", trust_remote_code=False)
        self.teacher: Any = UNet2DConditionModel.from_pretrained(
            self.folder / "unet", torch_dtype=torch.float32, use_safetensors=True
        ).requires_grad_(False)
        self.student = copy.deepcopy(self.teacher).requires_grad_(True)
        self.fake = copy.deepcopy(self.teacher).requires_grad_(True)
        """The diffusion model of the student's samples."""
        self.ddim = DDIMScheduler.from_pretrained(self.folder / "scheduler", timestep_spacing="trailing")
        self.alphas: Tensor = self.ddim.alphas_cumprod
        self.last = len(self.alphas) - 1
        self.pairs: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=POOL)

    def modules(self) -> nn.ModuleDict:
        return nn.ModuleDict({"student": self.student, "fake": self.fake})

    @torch.no_grad()
    def encode_text(self, captions: list[str]) -> Tensor:
        length = self.tokenizer.model_max_length
        encoded = self.tokenizer(
            captions, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        )
        states: Tensor = self.text(encoded.input_ids).last_hidden_state
        return states

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        """Noise [n, C, h, w] and the text features [n, T, D] of `n` captions, none with a held-out combination."""
        captions = [write(draw_request(self.rng, self.rng.choice(SCENES)), self.rng) for _ in range(n)]
        return torch.randn(n, LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE), self.encode_text(captions)

    def generate(self, noise: Tensor, text: Tensor) -> Tensor:
        """The student's scaled latents: what EulerDiscreteScheduler makes of its velocity in one step."""
        alpha = self.alphas[self.last]
        signal, spread = alpha.sqrt(), (1 - alpha).sqrt()
        with torch.autocast("cpu", torch.bfloat16):
            velocity = self.student(spread * noise, self.last, text).sample.float()
        latents: Tensor = signal * spread * noise - spread * velocity
        return latents

    @torch.no_grad()
    def guided(self, noisy: Tensor, t: Tensor, text: Tensor) -> Tensor:
        """The teacher's velocity with guidance; `t` [n]."""
        both = torch.cat([self.encode_text([""]).expand_as(text), text])
        with torch.autocast("cpu", torch.bfloat16):
            velocity = self.teacher(torch.cat([noisy, noisy]), torch.cat([t, t]), both).sample.float()
        without, given = velocity.chunk(2)
        return torch.lerp(without, given, GUIDANCE)

    def draw_pairs(self, n: int) -> None:
        """Adds `n` pairs to the pool: noise, text, and the teacher's sample."""
        noise, text = self.draw(n)
        self.ddim.set_timesteps(PAIR_STEPS)
        x = noise
        for t in self.ddim.timesteps:
            x = self.ddim.step(self.guided(x, t.expand(n), text), t, x).prev_sample
        self.pairs.extend(zip(noise, text, x, strict=True))

    def loss(self, step: int, progress: float) -> dict[str, Tensor]:
        if progress < REGRESSION:
            return {"pairs": self.regression()}
        return self.matching(score_alone=progress < SCORE_FIRST)

    def regression(self) -> Tensor:
        """Root mean square of a latent's error, averaged: the mean square draws all that may be, faintly."""
        self.draw_pairs(FRESH if self.pairs else 8 * self.batch)
        rows = self.rng.sample(self.pairs, self.batch)
        noise, text, x = (torch.stack(column) for column in zip(*rows, strict=True))
        return ((self.generate(noise, text) - x).square().mean((1, 2, 3)) + 1e-3).sqrt().mean()

    def matching(self, score_alone: bool) -> dict[str, Tensor]:
        """DMD's gradient and its weight; the score of the student's samples is learnt from those it is evaluated at."""
        noise, text = self.draw(self.batch)
        with torch.set_grad_enabled(not score_alone):
            made = self.generate(noise, text)
        x = made.detach()
        t = torch.randint(*TIMESTEPS, (self.batch,))
        alpha = self.alphas[t].view(-1, 1, 1, 1)
        signal, spread = alpha.sqrt(), (1 - alpha).sqrt()
        noise = torch.randn_like(x)
        noisy = signal * x + spread * noise
        with torch.autocast("cpu", torch.bfloat16):
            velocity = self.fake(noisy, t, text).sample.float()
        losses = {"score": (velocity - (signal * noise - spread * x)).square().mean()}
        if score_alone:
            return losses
        real = signal * noisy - spread * self.guided(noisy, t, text)
        fake = signal * noisy - spread * velocity.detach()
        gradient = (fake - real) / (x - real).abs().mean((1, 2, 3), keepdim=True).clamp(min=1e-3)
        return losses | {"student": (made * gradient).mean()}

    def evaluate(self, quick: bool) -> dict[str, float]:
        """Share of samples that the judge finds right."""
        prompts = draw_batch(36 if quick else 120, random.Random("evaluate-samples")).requests
        images = self.sample([str(r) for r in prompts])
        right = [judge(i.permute(1, 2, 0).numpy(), r).verdict for i, r in zip(images, prompts, strict=True)]
        return {"samples right": sum(right) / len(right)}

    @torch.no_grad()
    def sample(self, prompts: list[str], seed: int = 0) -> Tensor:
        """Samples of one step, [N, 3, 64, 64] in [0, 1]."""
        shape = (len(prompts), LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE)
        x = self.generate(torch.randn(shape, generator=torch.Generator().manual_seed(seed)), self.encode_text(prompts))
        images: Tensor = self.vae.decode(x / self.vae.config.scaling_factor).sample
        return images.add(1).div(2).clamp(0, 1)

    def warm_start(self) -> None:
        """Loads the weights of the UNet in the output folder."""
        saved = UNet2DConditionModel.from_pretrained(self.out / "unet", torch_dtype=torch.float32, use_safetensors=True)
        self.student.load_state_dict(saved.state_dict())

    def save(self) -> None:
        for part in ("text_encoder", "tokenizer", "vae"):
            shutil.copytree(self.folder / part, self.out / part, dirs_exist_ok=True)
        self.student.register_to_config(_name_or_path="")  # not the folder of the teacher
        save_half(self.student, self.out / "unet")
        config = self.ddim.config
        names = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type", "steps_offset")
        euler = EulerDiscreteScheduler(**{name: config[name] for name in names}, timestep_spacing="trailing")
        euler.save_pretrained(self.out / "scheduler")
        index = json.loads((self.folder / "model_index.json").read_text())
        index["scheduler"] = ["diffusers", "EulerDiscreteScheduler"]
        (self.out / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
