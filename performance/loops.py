"""Loops written by hand, which refcore is held against. They share its weights and kernels, and nothing else of it.

`Tight` is the same mathematics with nothing around it: one graph from the parameters to the loss, one backward. It is
what a careful author would write for one config: no chunks, no independence of the batch, no checks, no records.

`Reference` has the structure of the public code of "Referee Can Play": three decodes a step, a ranking pass of the
referee whose result selects nothing, and prompts that are encoded again whenever they are used.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from performance.models import VIEWS
from refcore.contracts.augmentation import select
from refcore.engine.start import start
from refcore.engine.step import Engine

DEGREES, SHIFT, NOISE, DECAY, LR = 10.0, 0.05, 0.05, 0.9, 0.05
"""Of the configs in `models`."""

Draw = Callable[[int, tuple[int, int]], tuple[Tensor, Tensor]]
"""(step, size of a view) -> affine maps of the views [N, 2, 3] and their noise [N, 3, H, W]."""


class Tight:
    """The step of a config of `models`, by hand.

    Args:
        engine: of that config; its loaded models are used, its code is not.
        draw: where the random numbers come from; None for torch's own generator.
        sds: (latents, step) -> its gradient, in the place of the one written here; None for that.
    """

    def __init__(self, engine: Engine, draw: Draw | None = None, sds: Any = None) -> None:
        self.engine, self.draw, self.given_sds = engine, draw or self._draw, sds
        ((self.name, x),) = start(engine).items()
        self.x = x.detach().clone()
        self.average = self.x.clone()
        self.batch = len(self.x)
        self.step = 0
        self.rows = torch.arange(self.batch).repeat_interleave(VIEWS)
        self.judges = [(use.referee, use.conditioning.take(use.prompt_index)) for use in engine.panel.referees]

    def __call__(self) -> None:
        x = self.x.requires_grad_()
        image = self.decode(x)
        views = self.views(image)
        loss = sum((judge.judge(views, text, self.rows).sum() / VIEWS for judge, text in self.judges), torch.zeros(()))
        (gradient,) = torch.autograd.grad(loss, x)
        with torch.no_grad():
            if self.engine.priors:
                sds = self.given_sds(x, self.step) if self.given_sds else self.sds(x)
                norms = [g.flatten(1).norm(dim=1).view(-1, 1, 1, 1) for g in (sds, gradient)]
                gradient = norms[0] / norms[1] * gradient + sds
            self.x = x.detach() - LR * gradient
            self.average.lerp_(self.x, 1 - DECAY)
        self.step += 1

    def decode(self, x: Tensor) -> Tensor:
        """[B, 3, H, W]"""
        canvas: Any = self.engine.canvas
        if self.name != "latent":
            return canvas.decode({self.name: x})
        vae, space = canvas.autoencoder.model, canvas.autoencoder.space
        return (vae.decode(x / space.scale + space.shift).sample / 2 + 0.5).clamp(0, 1)

    def views(self, image: Tensor) -> Tensor:
        """[B * VIEWS, 3, H, W]"""
        size = (image.shape[-2], image.shape[-1])
        theta, noise = self.draw(self.step, size)
        grid = F.affine_grid(theta, [len(theta), 3, *size], align_corners=False)
        source = image.repeat_interleave(VIEWS, 0)
        return F.grid_sample(source, grid, padding_mode="border", align_corners=False) + noise

    def sds(self, z: Tensor) -> Tensor:
        """2 (eps_hat - eps) / (h w), guided."""
        (use,) = self.engine.priors
        prior: Any = use.prior
        model, text = prior.diffusion, use.conditioning
        t = torch.randint(50, 949, (len(z),))
        noise = torch.randn_like(z)
        a = model.alphas_cumprod[t].view(-1, 1, 1, 1)
        noisy = a.sqrt() * z + (1 - a).sqrt() * noise
        both = torch.cat([text["negative"], text["text"]])
        out = model.unet(torch.cat([noisy, noisy]), torch.cat([t, t]), both).sample
        if model.prediction == "v_prediction":
            out = a.sqrt().repeat(2, 1, 1, 1) * out + (1 - a).sqrt().repeat(2, 1, 1, 1) * torch.cat([noisy, noisy])
        without, given = out.chunk(2)
        return 2 * (without + prior.config.guidance * (given - without) - noise) / (z.shape[-2] * z.shape[-1])

    def _draw(self, step: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        n = self.batch * VIEWS
        angle = (torch.rand(n) * 2 - 1) * math.radians(DEGREES)
        shift = (torch.rand(n, 2) * 2 - 1) * 2 * SHIFT
        cos, sin = angle.cos(), angle.sin()
        theta = torch.stack([torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)], 1)
        return theta, NOISE * torch.randn(n, 3, *size)


class Reference(Tight):
    """The same objective, computed as the public code does."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        (use,) = engine.panel.referees
        self.referee: Any = use.referee
        self.prompts = [prompt for prompt, _ in engine.config.samples]
        # The ranking also looks at the contrast.
        self.ranker = copy.copy(self.referee)
        self.ranker.config = self.referee.config.model_copy(update={"itc": 1.0})

    def __call__(self) -> None:
        (prior,) = self.engine.priors
        x = self.x.requires_grad_()
        views = self.views(self.decode(x))  # the first decode
        with torch.no_grad():
            ranking = self.ranker.judge(views, self.referee.read(self.prompts), self.rows).view(-1, VIEWS)
            hardest = ranking.topk(VIEWS, dim=1).indices + VIEWS * torch.arange(self.batch)[:, None]
        chosen = hardest.flatten()
        losses = self.referee.judge(views[chosen], self.referee.read(self.prompts), self.rows[chosen])
        (gradient,) = torch.autograd.grad(losses.sum() / VIEWS, x)
        with torch.no_grad():
            prior.prior.read([prior.term.prompt.replace("{prompt}", prompt) for prompt in self.prompts])
            sds = self.sds(x)
            norms = [g.flatten(1).norm(dim=1).view(-1, 1, 1, 1) for g in (sds, gradient)]
            self.x = x.detach() - LR * (norms[0] / norms[1] * gradient + sds)
            self.average.lerp_(self.x, 1 - DECAY)
            self.decode(self.average)  # the second decode
            self.decode(self.x)  # the third
        self.step += 1


def keyed_draws(engine: Engine) -> Draw:
    """The numbers that refcore draws for its views, for a loop that is to do the very same."""

    def draw(step: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        image = torch.zeros(len(engine.keys), 3, *size)
        views = engine.panel.groups["main"].open(image, size, engine.keys, step)
        assert views.matrix is not None
        ((_, draws),) = views.photometric
        noise = select(draws, range(len(views.sample)))
        return views.matrix[:, :2], noise["std"].view(-1, 1, 1, 1) * noise["noise"]

    return draw


def keyed_sds(engine: Engine) -> Callable[[Tensor, int], Tensor]:
    """The prior's gradient with refcore's own draws."""
    (use,) = engine.priors

    def sds(z: Tensor, step: int) -> Tensor:
        from refcore.rng import Rng

        rng = Rng(engine.keys, step, f"prior/{use.label}")
        return (
            use.term.weight_at(step, engine.config.steps)
            * use.prior.gradient(z.detach(), use.conditioning, step, rng)[0]
        )

    return sds
