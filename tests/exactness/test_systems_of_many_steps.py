"""DOODL and DNO, which differentiate through a whole sampler: written out on their own, they are their presets."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from refcore import checkpoints
from refcore.config import presets
from refcore.engine.inversion import Inversion
from refcore.rng import Rng

PROMPT, STEPS = "a red circle left of a blue square", 20


class Model:
    """The embedded diffusion model by its parts, and its noise schedule from its two numbers."""

    def __init__(self, guidance: float) -> None:
        folder = checkpoints.resolve("playground:diffusion")
        self.unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=torch.float64)
        self.vae = AutoencoderKL.from_pretrained(folder, subfolder="vae", torch_dtype=torch.float64)
        encoder = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder", dtype=torch.float64)
        tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer")
        for part in (self.unet, self.vae, encoder):
            part.requires_grad_(False)
        ids = tokenizer([PROMPT, ""], padding="max_length", max_length=32, return_tensors="pt").input_ids
        self.told, self.empty = encoder(ids).last_hidden_state.split(1)
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float32) ** 2
        self.alphas = (1 - betas).cumprod(0).double()
        self.guidance = guidance

    def alpha(self, t: int) -> Tensor:
        """alpha_bar of a timestep; of those before the first one, that of the first one."""
        return self.alphas[max(t, 0)]

    def noise(self, x: Tensor, t: int) -> Tensor:
        """The noise of classifier-free guidance, of a network that predicts the velocity."""
        without, told = (self.unet(x, t, text).sample for text in (self.empty, self.told))
        velocity = without + self.guidance * (told - without)
        return self.alpha(t).sqrt() * velocity + (1 - self.alpha(t)).sqrt() * x

    def image(self, latent: Tensor) -> Tensor:
        picture: Tensor = self.vae.decode(latent / self.vae.config.scaling_factor).sample
        return (picture / 2 + 0.5).clamp(0, 1)


def begun(name: str) -> tuple[Inversion, Model, Any]:
    """A run of a preset that has not moved, the model, and the sum of the referees' weighted losses of a picture."""
    overrides = ["dtype=float64", f"steps={STEPS}", "output=current", "canvas.config.steps=3"]
    inversion = Inversion(presets.compose(name, None, overrides, prompts=[PROMPT], seeds=[5]))
    row = torch.zeros(1, dtype=torch.int64)

    def loss(image: Tensor) -> Tensor:
        judged = [j.term.weight * j.referee.judge(image, j.conditioning, row) for j in inversion.engine.panel.referees]
        return torch.stack(judged).sum()

    return inversion, Model(inversion.config.canvas.config["guidance"]), loss


TIMESTEPS = (667, 334, 1)
"""Of three steps of a thousand timesteps, every 333 from the end, and one higher."""


def edict(model: Model, noise: Tensor, p: float) -> Tensor:
    """x of EDICT's pair: each step denoises x by the noise that y tells, y by that of the new x, and mixes them."""

    def ahead(x: Tensor, told: Tensor, t: int) -> Tensor:
        now, then = model.alpha(t), model.alpha(t - 333)
        return (then / now).sqrt() * x + ((1 - then).sqrt() - (then * (1 - now) / now).sqrt()) * told

    x = y = noise
    for i, t in enumerate(TIMESTEPS):
        if i % 2 == 0:
            x = ahead(x, model.noise(y, t), t)
            y = ahead(y, model.noise(x, t), t)
        else:
            y = ahead(y, model.noise(x, t), t)
            x = ahead(x, model.noise(y, t), t)
        x = p * x + (1 - p) * y
        y = (1 - p) * x + p * y
    return x


@pytest.mark.slow
def test_doodl_is_its_published_update() -> None:
    """Momentum on clipped gradients through EDICT, some noise, and the norm of the noise kept (arXiv 2303.13703)."""
    inversion, model, loss = begun("playground-doodl")
    config = inversion.config
    limit, std = 0.01, 1e-4
    noise = inversion.params["noise"].detach().clone()
    length, moved = noise.norm(), torch.zeros_like(noise)
    for step, _ in enumerate(inversion):
        leaf = noise.clone().requires_grad_()
        picture = model.image(edict(model, leaf, config.canvas.config["mix"]))
        (gradient,) = torch.autograd.grad(loss(picture), leaf)
        moved = 0.9 * moved - gradient.clip(-limit, limit)
        # The noise for its own sake has no equation: it is that of the run.
        drawn = Rng([5], step, "noise/noise").normal(*noise.shape[1:])
        noise = noise + moved + std * drawn.to(noise)
        noise = noise * length / noise.norm()
        # Coefficients of diffusers' samplers are float32, and gradients here are up to 15: pictures agree to 1e-7,
        # noise to 1e-5. Each step begins where the run's does, or elements near the limit would part.
        found = inversion.params["noise"].detach()
        assert torch.allclose(found, noise, atol=1e-5), step
        noise = found.clone()
    assert inversion.step == STEPS


def ddim(model: Model, noise: Tensor, added: Tensor) -> Tensor:
    """DDIM with eta 1: eqs. 12 and 16 of arXiv 2010.02502."""
    x = noise
    for i, t in enumerate(TIMESTEPS):
        now, then = model.alpha(t), model.alpha(t - 333)
        told = model.noise(x, t)
        # The last step adds none, and its noise counts in the regulariser alone: nl[0] = 0 in the public code.
        sigma = 0.0 if t == TIMESTEPS[-1] else ((1 - then) / (1 - now) * (1 - now / then)).sqrt()
        clean = (x - (1 - now).sqrt() * told) / now.sqrt()
        x = then.sqrt() * clean + (1 - then - sigma**2).sqrt() * told + sigma * added[:, i]
    return x


def improbable(vectors: Tensor) -> Tensor:
    """Minus the logarithms of DNO's two bounds, of m vectors of k numbers."""
    m, k = vectors.shape
    mean = vectors.mean(0).norm()
    spread = torch.linalg.matrix_norm(vectors.T @ vectors / m - torch.eye(k, dtype=vectors.dtype), ord=2)
    first = torch.clamp(-m * mean**2 / (2 * k), max=-math.log(2))
    second = torch.clamp(-m * torch.clamp((1 + spread).sqrt() - 1 - math.sqrt(k / m), min=0) ** 2 / 2, max=-math.log(2))
    return -(first + second)


@pytest.mark.slow
def test_dno_is_its_published_update() -> None:
    """AdamW on the noise of all steps, its gradient clipped to 1, with the bounds as regulariser (arXiv 2405.18881)."""
    inversion, model, loss = begun("playground-dno")
    label = inversion.config.prior_labels[0]
    first, added = (torch.nn.Parameter(inversion.params[name].detach().clone()) for name in ("noise", "step_noise"))
    optimizer = torch.optim.AdamW([first, added], lr=0.01, weight_decay=0.01)
    for step, _ in enumerate(inversion):
        optimizer.zero_grad()
        flat = torch.cat([first.flatten(), added.flatten()])
        # Orders have no equation: they are those of the run.
        orders = Rng([5], step, f"prior/{label}").uniform(0, 1, 100, len(flat)).argsort(-1)[0]
        shuffled = torch.stack([improbable(flat[order].view(-1, 4)) for order in orders]).mean()
        total = loss(model.image(ddim(model, first, added))) + improbable(flat.view(-1, 4)) + shuffled
        total.backward()
        torch.nn.utils.clip_grad_norm_([first, added], 1.0, foreach=False)
        optimizer.step()
        # Adam makes rounding grow, and clip_grad_norm_ adds 1e-6 to the norm: each step begins where the run's does.
        for name, found in (("noise", first), ("step_noise", added)):
            assert torch.allclose(inversion.params[name], found, atol=1e-5), (step, name)
            found.data.copy_(inversion.params[name])
    assert inversion.step == STEPS
