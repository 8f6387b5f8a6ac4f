"""The updates of neighbouring systems, written out on their own, are the runs of their presets step for step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from refcore import checkpoints
from refcore.config import presets
from refcore.engine.inversion import Inversion

PROMPT, STEPS = "a red circle left of a blue square", 20
SMALL = ["dtype=float64", f"steps={STEPS}", "output=current"]


def begun(
    *overrides: str, name: str = "playground-reno"
) -> tuple[Inversion, Callable[[Tensor], Tensor], dict[str, Callable[[Tensor], Tensor]]]:
    """A run of a preset that has not moved; its generator, written out; and each referee's weighted loss."""
    inversion = Inversion(presets.compose(name, None, [*SMALL, *overrides], prompts=[PROMPT], seeds=[5]))
    folder = checkpoints.resolve("playground:turbo")
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=torch.float64)
    vae = AutoencoderKL.from_pretrained(folder, subfolder="vae", torch_dtype=torch.float64)
    encoder = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder", dtype=torch.float64)
    tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer")
    for part in (unet, vae, encoder):
        part.requires_grad_(False)
    ids = tokenizer([PROMPT], padding="max_length", max_length=32, return_tensors="pt").input_ids
    text = encoder(ids).last_hidden_state

    def generate(noise: Tensor) -> Tensor:
        scheduler = EulerDiscreteScheduler.from_pretrained(folder, subfolder="scheduler")
        scheduler.set_timesteps(1)
        (t,) = scheduler.timesteps
        x = noise * scheduler.init_noise_sigma
        x = scheduler.step(unet(scheduler.scale_model_input(x, t), t, text).sample, t, x).prev_sample
        pictures: Tensor = (vae.decode(x / vae.config.scaling_factor).sample / 2 + 0.5).clamp(0, 1)
        return pictures

    def loss(judge: Any) -> Callable[[Tensor], Tensor]:
        row = torch.zeros(1, dtype=torch.int64)
        return lambda image: judge.term.weight * judge.referee.judge(image, judge.conditioning, row)

    return inversion, generate, {judge.label: loss(judge) for judge in inversion.engine.panel.referees}


def shell(noise: Tensor) -> Tensor:
    """ReNO's regulariser, n^2 / 2 - (d - 1) log n, as in its code on the whole noise of a sample."""
    n = noise.norm()
    return 0.01 * (0.5 * n**2 - (noise.numel() - 1) * torch.log(n))


def clipped(gradient: Tensor) -> Tensor:
    """A gradient no longer than 0.1."""
    return gradient * min(1.0, 0.1 / float(gradient.norm()))


def followed(inversion: Inversion, update: Callable[[Tensor], Tensor], noise: Tensor) -> None:
    """Each step of the run ends where `update`, which gives the noise after a step from the one given, ends."""
    moved = 0.0
    for _ in inversion:
        found, before = update(noise), noise
        noise = inversion.params["noise"].detach().clone()
        moved += float((noise - before).norm())
        assert torch.allclose(noise, found, atol=1e-6), inversion.step
    assert inversion.step == inversion.config.steps
    assert moved > 1e-3


@pytest.mark.slow
def test_reno_is_its_published_update() -> None:
    """SGD with Nesterov momentum on rewards and regulariser, the gradient clipped to 0.1 (arXiv 2406.04312)."""
    inversion, generate, losses = begun()
    noise = inversion.params["noise"].detach().clone().requires_grad_()
    optimizer = torch.optim.SGD([noise], lr=5.0, momentum=0.9, nesterov=True)

    def update(_: Tensor) -> Tensor:
        optimizer.zero_grad()
        image = generate(noise)
        total = sum(loss(image).sum() for loss in losses.values()) + shell(noise)
        total.backward()
        assert noise.grad is not None
        noise.grad = clipped(noise.grad)  # as clip_grad_norm_, but for the 1e-6 that it adds to the norm
        optimizer.step()
        return noise.detach()

    followed(inversion, update, noise.detach())


@pytest.mark.slow
def test_reno_with_lbfgs_is_torchs_on_the_same_objective() -> None:
    """The other optimiser of ReNO's code, L-BFGS with a strong Wolfe line search; here nothing is clipped.

    One step of ten iterations: a line search makes rounding grow, here from 6e-9 to 3e-6 in a second one.
    """
    inversion, generate, losses = begun("transforms=[]", "optimizer={name: lbfgs, lr: 1.0}", "steps=1")
    noise = inversion.params["noise"].detach().clone().requires_grad_()
    optimizer = torch.optim.LBFGS([noise], 1.0, max_iter=10, history_size=3, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        image = generate(noise)
        total: Tensor = sum((loss(image).sum() for loss in losses.values()), start=shell(noise))
        total.backward()
        return total

    def update(start: Tensor) -> Tensor:
        noise.data.copy_(start)  # each step begins where the run's does
        optimizer.step(closure)  # type: ignore[no-untyped-call]
        return noise.detach()

    followed(inversion, update, noise.detach().clone())


@pytest.mark.slow
def test_carinox_gives_every_term_an_equal_vote() -> None:
    """Each term's gradient is clipped to 0.1, and their sum again (arXiv 2509.17458).

    The regulariser is a term of its own here, as the preset says; the public code adds it to each reward.
    """
    inversion, generate, losses = begun("candidates={count: 1}", name="playground-carinox")
    noise = inversion.params["noise"].detach().clone().requires_grad_()
    optimizer = torch.optim.SGD([noise], lr=5.0, momentum=0.9, nesterov=True)

    def update(_: Tensor) -> Tensor:
        summed = torch.zeros_like(noise)
        for loss in losses.values():
            (gradient,) = torch.autograd.grad(loss(generate(noise)).sum(), noise)
            summed += clipped(gradient)
        (gradient,) = torch.autograd.grad(shell(noise), noise)
        noise.grad = clipped(summed + clipped(gradient))
        optimizer.step()
        return noise.detach()

    followed(inversion, update, noise.detach())


@pytest.mark.slow
def test_gper_projects_every_gradient_and_the_noise() -> None:
    """Adam on rewards whose gradients, like the noise, have a white spectrum in blocks of 16 (arXiv 2602.08646)."""
    inversion, generate, losses = begun(name="playground-gper")
    noise = inversion.params["noise"].detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([noise], lr=0.1)

    def update(start: Tensor) -> Tensor:
        # Adam steps by 0.1 where a gradient is near 0, whatever its sign, so rounding grows tenfold a step: each step
        # begins where the run's begins.
        noise.data.copy_(start)
        noise.grad = torch.zeros_like(noise)
        for loss in losses.values():
            (gradient,) = torch.autograd.grad(loss(generate(noise)).sum(), noise)
            noise.grad += projected(gradient)
        noise.grad *= min(1.0, 0.03 / float(noise.grad.norm()))
        optimizer.step()
        return projected(noise.detach())

    followed(inversion, update, noise.detach())


def projected(x: Tensor) -> Tensor:
    """GPER's projection by bisection, not in closed form: in each block the threshold at which both sums are right."""
    flat = x.flatten()
    count = flat.numel()
    full = torch.fft.fft(flat) / math.sqrt(count)
    half = [complex(full[0].real, full[count // 2].real) / math.sqrt(2), *map(complex, full[1 : count // 2])]
    changed: list[complex] = []
    for start in range(0, count // 2, 16):
        block = half[start : start + 16]
        sizes = [abs(y) for y in block]
        low, high = -1e3 * max(sizes), max(sizes)
        for _ in range(200):
            middle = (low + high) / 2
            kept = [max(size - middle, 0.0) for size in sizes]
            spiky = sum(kept) ** 2 / (sum(k * k for k in kept) or 1.0)
            low, high = (middle, high) if spiky > math.pi * 16 / 4 else (low, middle)
        norm = math.sqrt(sum(k * k for k in kept))
        changed += [y / abs(y) * k * 4 / norm for y, k in zip(block, kept, strict=True)]
    ends, rest = changed[0] * math.sqrt(2), torch.tensor(changed[1:], dtype=torch.complex128)
    spectrum = torch.cat(
        [
            torch.tensor([ends.real], dtype=torch.complex128),
            rest,
            torch.tensor([ends.imag], dtype=torch.complex128),
            rest.conj().flip(0),
        ]
    )
    found: Tensor = (torch.fft.ifft(spectrum) * math.sqrt(count)).real
    return found.view_as(x)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_projection_by_bisection_is_one(seed: int) -> None:
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert torch.nn.functional.cosine_similarity(projected(x).flatten(), x.flatten(), dim=0) > 0.95
    assert torch.allclose(projected(projected(x)), projected(x), atol=1e-6)
