"""Hand-written loops that refcore is compared with. They share its weights and kernels, but none of its engine.

`Tight` is the same mathematics and nothing else: one graph from the parameters to the loss, one backward. A careful
author would write it like this for a single config: no chunks, no batch independence, no checks, no records.

`Reference` has the structure of the public code of "Referee Can Play": three decodes per step, a ranking pass of the
referee whose result selects nothing, and prompts that are encoded again on every use.
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
from refcore.moment import Moment
from refcore.rng import Rng

DEGREES, SHIFT, NOISE, DECAY, LR = 10.0, 0.05, 0.05, 0.9, 0.05
"""Settings of the configs in `models`."""

Draw = Callable[[int, tuple[int, int]], tuple[Tensor, Tensor]]
"""(step, size of a view) -> affine matrices of the views [N, 2, 3] and their noise [N, 3, H, W]."""


class Tight:
    """The step of a config of `models`, written by hand.

    Args:
        engine: engine of that config; only its loaded models are used.
        draw: source of the random numbers; None for torch's own generator.
        sds: (latents, step) -> SDS gradient; None for the one written here.
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
        """Images [B, 3, H, W]."""
        canvas: Any = self.engine.canvas
        if self.name != "latent":
            return self.engine.canvas.decode({self.name: x}, self.engine.end)
        vae, space = canvas.autoencoder.model, canvas.autoencoder.space
        image: Tensor = vae.decode(x / space.scale + space.shift).sample
        return (image / 2 + 0.5).clamp(0, 1)

    def views(self, image: Tensor) -> Tensor:
        """Views [B * VIEWS, 3, H, W]."""
        size = (image.shape[-2], image.shape[-1])
        theta, noise = self.draw(self.step, size)
        grid = F.affine_grid(theta, [len(theta), 3, *size], align_corners=False)
        source = image.repeat_interleave(VIEWS, 0)
        return F.grid_sample(source, grid, padding_mode="border", align_corners=False) + noise

    def sds(self, z: Tensor) -> Tensor:
        """2 (eps_hat - eps) / (h w), with classifier-free guidance."""
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
        guided: Tensor = without + prior.config.guidance * (given - without)
        return 2 * (guided - noise) / (z.shape[-2] * z.shape[-1])

    def _draw(self, step: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        n = self.batch * VIEWS
        angle = (torch.rand(n) * 2 - 1) * math.radians(DEGREES)
        shift = (torch.rand(n, 2) * 2 - 1) * 2 * SHIFT
        cos, sin = angle.cos(), angle.sin()
        theta = torch.stack([torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)], 1)
        return theta, NOISE * torch.randn(n, 3, *size)


class Reference(Tight):
    """The same objective, computed like the public code."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        (use,) = engine.panel.referees
        self.referee: Any = use.referee
        self.prompts = [prompt for prompt, _ in engine.config.samples]
        # The ranking also uses the contrastive score.
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
    """refcore's own random numbers for its views, for a loop with the same results."""

    def draw(step: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        image = torch.zeros(len(engine.keys), 3, *size)
        views = engine.panel.groups["main"].open(image, size, engine.keys, Moment(step, engine.config.steps))
        assert views.matrix is not None
        ((_, draws),) = views.photometric
        noise = select(draws, range(len(views.sample)))
        return views.matrix[:, :2], noise["std"].view(-1, 1, 1, 1) * noise["noise"]

    return draw


def keyed_sds(engine: Engine) -> Callable[[Tensor, int], Tensor]:
    """The prior's gradient with refcore's own random numbers."""
    (use,) = engine.priors

    def sds(z: Tensor, step: int) -> Tensor:
        rng = Rng(engine.keys, step, f"prior/{use.label}")
        return (
            use.term.weight_at(step, engine.config.steps)
            * use.prior.gradient(z.detach(), use.conditioning, Moment(step, engine.config.steps), rng)[0]
        )

    return sds
