"""The updates of DAS and of two-dimensional score distillation, written out on their own, are runs of their presets."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from refcore.config import presets
from refcore.engine.inversion import Inversion
from refcore.rng import Rng
from refcore_plugins.models.diffusers_folder import DiffusersFolder
from refcore_plugins.models.stable_diffusion import StableDiffusion

PROMPT, SEED, STEPS = "a red circle left of a blue square", 5, 20
SMALL = ["dtype=float64", f"steps={STEPS}", "output=current", "autocast=null", "canvas.autocast=null"]


def begun(preset: str, *overrides: str) -> Inversion:
    """A run of a preset in float64 that has not moved."""
    return Inversion(presets.compose(preset, None, [*SMALL, *overrides], prompts=[PROMPT], seeds=[SEED]))


def drawn(step: int, stream: str, count: int = 1) -> Rng:
    """The run's own draws, which the updates below share with it."""
    return Rng([SEED], step, stream, count)


@pytest.mark.slow
@pytest.mark.parametrize("canvas", [64, 128])
def test_das_is_its_published_update(canvas: int) -> None:
    """SGD on tensors of all sizes, of a loss over rolled and cropped copies with bright noise (arXiv 2502.07753).

    On the canvas of 128 pixels, views are the middle 64 after a roll by at most the margin, as published (there 224 of
    336); on the preset's own of 64, a roll would bring in the other side, so that there is none. What the preset adds
    for the embedded world is taken away: its balance, priors, colours and gain. Each step begins where the run's
    begins: otherwise differences of rounding grow threefold a step, to 3e-6 after 17.
    """
    margin, count = (canvas - 64) // 2, 2
    edge = margin / canvas
    window = f"{{name: window, config: {{box: [{edge}, {edge}, {1 - edge}, {1 - edge}]}}}}, " if margin else ""
    shift = f"{{name: shift, config: {{pixels: {margin}}}}}"
    noise = "{name: uniform_noise, config: {range: [0.0, 0.2]}}"
    inversion = begun(
        "playground-das",
        f"size={canvas}",
        "priors=[]",
        "combine={name: sum}",
        "optimizer={name: sgd, lr: 0.005}",
        "canvas.config.gain=0.0",
        "canvas.config.color=rgb",
        f"views={{main: {{count: {count}, augment: [{window}{shift}, {noise}]}}}}",
    )
    paper, rate = inversion.engine.canvas.config.paper, inversion.config.optimizer.rates["*"]
    start = torch.tensor(paper).logit().double() / 2  # atanh(2 paper - 1), in float32 as the canvas has it
    sizes = range(1, canvas + 1)
    tensors = [torch.zeros(1, 3, side, side, dtype=torch.float64, requires_grad=True) for side in sizes]
    place = "views/main/1-shift" if margin else "views/main/0-shift"
    noisy = "views/main/2-uniform_noise" if margin else "views/main/1-uniform_noise"

    def image() -> Tensor:
        total = start.expand(1, 3, canvas, canvas)
        for p in tensors:
            total = total + F.interpolate(p, (canvas, canvas), mode="bicubic" if p.shape[-1] > 1 else "nearest")
        return (total.tanh() + 1) / 2

    for step, _ in enumerate(inversion):
        rng = drawn(step, place, count)
        rng.uniform(0, 1)
        shifts = rng.integers(-margin, margin + 1, 2).tolist()
        bright = drawn(step, noisy, count).deferred_uniform(3, 64, 64).take(range(count)).double()
        bright = bright * torch.tensor(0.2).double()  # in float32, as all that is drawn
        picture, views = image(), []
        for (right, down), added in zip(shifts, bright, strict=True):
            rolled = picture.roll((down, right), (-2, -1))[..., margin : margin + 64, margin : margin + 64]
            views.append((rolled[0] + added).clip(0, 1))
        row = torch.zeros(count, dtype=torch.int64)
        total = sum(
            judge.term.weight * judge.referee.judge(torch.stack(views), judge.conditioning, row).mean()
            for judge in inversion.engine.panel.referees
        )
        for p, gradient in zip(tensors, torch.autograd.grad(total, tensors), strict=True):
            p.data -= rate * gradient
        for p, ours in zip(tensors, inversion.params.values(), strict=True):
            assert torch.allclose(p, ours, atol=1e-6), (step, p.shape, float((p - ours).abs().max()))
            p.data.copy_(ours)
    assert inversion.step == STEPS
    assert max(float(p.detach().abs().max()) for p in tensors) > 1e-2


class World:
    """The noise that the embedded diffusion model predicts, and its alpha_bar."""

    def __init__(self) -> None:
        self.model = StableDiffusion(DiffusersFolder("playground:diffusion"), torch.device("cpu"), torch.float64)
        self.alpha_bar = self.model.alphas_cumprod.double()
        self.text = {prompt: self.model.encode_text([prompt]) for prompt in (PROMPT, "")}

    def noise(self, x: Tensor, t: int, prompt: str) -> Tensor:
        """sqrt(alpha_bar) v + sqrt(1 - alpha_bar) x: the network predicts the velocity v."""
        a = self.alpha_bar[t]
        with torch.no_grad():
            return a.sqrt() * self.model.unet(x, t, self.text[prompt]).sample + (1 - a).sqrt() * x

    def guided(self, x: Tensor, t: int, scale: float) -> Tensor:
        """eps_c + (s - 1) (eps_c - eps_0), which threestudio writes with s - 1 as its scale."""
        given, free = self.noise(x, t, PROMPT), self.noise(x, t, "")
        return given + (scale - 1) * (given - free)


def adam(lr: Callable[[int], float]) -> Callable[[int, Tensor, Tensor], Tensor]:
    """Adam (arXiv 1412.6980, algorithm 1) by its rate at each step: (step, x, gradient) -> the next x."""
    moments: dict[str, Any] = {"m": 0.0, "v": 0.0}

    def step_to(step: int, x: Tensor, gradient: Tensor) -> Tensor:
        moments["m"] = 0.9 * moments["m"] + 0.1 * gradient
        moments["v"] = 0.999 * moments["v"] + 0.001 * gradient**2
        m, v = moments["m"] / (1 - 0.9 ** (step + 1)), moments["v"] / (1 - 0.999 ** (step + 1))
        return x - lr(step) * m / (v.sqrt() + 1e-8)

    return step_to


def followed(inversion: Inversion, gradient: Callable[[int, Tensor], Tensor], lr: Callable[[int], float]) -> None:
    """Each step of the run ends where Adam ends with `gradient`, begun where the run's step begins.

    A step of Adam is as long where a gradient is near 0, whatever its sign, so that rounding would grow from step to
    step; the moments are kept, and the start of each step is the run's.
    """
    x, update = inversion.params["latent"].detach().clone(), adam(lr)
    for step, _ in enumerate(inversion):
        found = update(step, x, gradient(step, x))
        ours = inversion.params["latent"].detach()
        assert torch.allclose(ours, found, atol=1e-6), (step, float((ours - found).abs().max()))
        if lr(step):
            assert (ours - x).abs().max() > 1e-4
        x = ours.clone()
    assert inversion.step == STEPS


@pytest.mark.slow
def test_dreamfusion_2d_is_its_published_update() -> None:
    """AdamW on (1 - alpha_bar) (eps_hat - eps), t from 20 to 980, a rate that rises from 0, then half a cosine."""
    inversion, world = begun("playground-dreamfusion-2d"), World()
    settings = inversion.config.priors[0].config
    rise, fall = (piece.value for piece in inversion.config.optimizer.rates["*"].pieces)  # type: ignore[union-attr]

    def gradient(step: int, x: Tensor) -> Tensor:
        rng = drawn(step, "prior/sds")
        t = int(rng.integers(20, 981))
        eps, a = rng.normal(*x.shape[1:]).double(), world.alpha_bar[t]
        noisy = a.sqrt() * x + (1 - a).sqrt() * eps
        return (1 - a) * (world.guided(noisy, t, settings["guidance"]) - eps)

    def lr(step: int) -> float:
        if step < rise.last:
            return 0.1 * step / rise.last
        return 0.1 * 0.5 * (1 + math.cos(math.pi * (step - rise.last) / (fall.last - rise.last)))

    followed(inversion, gradient, lr)


@pytest.mark.slow
def test_sdi_2d_is_its_published_update() -> None:
    """Adam on half the mean squared distance to a target, from DDIM backwards every few steps (arXiv 2405.15891)."""
    inversion, world = begun("playground-sdi-2d"), World()
    settings = inversion.config.priors[0].config
    every, anneal, tau, eta = (settings[name] for name in ("every", "anneal", "tau", "eta"))
    targets: list[Tensor] = []

    def target(step: int, x: Tensor) -> Tensor:
        rng = drawn(step, "prior/sdi")
        rng.normal(*x.shape[1:])  # SDS's noise, which is not used; t is not drawn
        t = 980 - round(960 * min(1.0, step / anneal))
        end = min(t + int(rng.integers(0, tau + 1)), len(world.alpha_bar) - 1)
        kicks = rng.normal(10, *x.shape[1:]).double()
        steps = max(1, round(10 * t / 1000))
        path = [end * k // steps for k in range(steps + 1)]
        a, current = torch.tensor(1.0, dtype=torch.float64), x
        for k in range(steps):
            eps, before = world.guided(current, path[k], settings["inversion_guidance"]), a
            clean, a = (current - (1 - a).sqrt() * eps) / a.sqrt(), world.alpha_bar[path[k + 1]]
            current = a.sqrt() * clean + (1 - a).sqrt() * eps
            current = current + eta * ((1 - before) / (1 - a) * (1 - a / before)).sqrt() * kicks[0, k]
        # The noise between x and where the inversion has ended, at t whatever it reached, as in the authors' code.
        a = world.alpha_bar[t]
        return (current - (1 - a).sqrt() * world.guided(current, t, settings["guidance"])) / a.sqrt()

    def gradient(step: int, x: Tensor) -> Tensor:
        if step % every == 0:
            targets.append(target(step, x))
        return (x - targets[-1]) / x.numel()

    followed(inversion, gradient, lambda step: 0.1)
    assert len(targets) == STEPS // every
