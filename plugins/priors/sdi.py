"""The `sdi` prior: score distillation with noise from DDIM inversion instead of random draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from refcore.config.schedule import Schedule
from refcore.contracts.conditioning import Conditioning
from refcore.moment import Moment
from refcore.rng import Rng
from refcore_plugins.models.latent_diffusion_prior import LatentDiffusionPrior, Noised, Timesteps
from refcore_plugins.models.score_distillation import ddim_noise, ddim_step, noise_between, sds_gradient


@dataclass(frozen=True)
class Inverting(Noised):
    """Latents with what their inversion draws in a step."""

    ends: Tensor
    """[B] int64 timesteps that the inversion reaches: t, and up to `tau` more."""
    kicks: Tensor
    """[B, inversion_steps, C, h, w] standard normal, for the noise of each step; [B, 0] without."""


class Sdi(LatentDiffusionPrior):
    """Score Distillation via Inversion (arXiv 2405.15891): the noise from which DDIM would have reached the latent.

    SDS is a step of DDIM with fresh noise, which causes its blur. Here the latent x is noised by DDIM in reverse, from
    0 to t, in steps of equal length: `max(1, round(inversion_steps * t / 1000))` of them, as many UNet calls. The
    result is x_t = sqrt(alpha_bar) x + sqrt(1 - alpha_bar) kappa, and kappa replaces the drawn noise. With `anneal` the
    timestep falls over the run, as in the paper. With `every` the predicted clean latent of an inversion stays the
    target for several steps, whose gradients are those of half the squared distance to it.
    """

    class Config(LatentDiffusionPrior.Config):
        guidance: Schedule = Field(
            7.5, ge=0, description="Classifier-free guidance scale of the denoising. The paper's: 7.5."
        )
        inversion_guidance: Schedule = Field(
            -7.5,
            description="Guidance scale of the inversion; below 0 it leads away from the prompt. The paper's: -7.5.",
        )
        inversion_steps: int = Field(
            10,
            ge=1,
            description="DDIM steps of an inversion through all timesteps; one to t takes its share. The paper's: 10.",
        )
        eta: float = Field(
            0.3,
            ge=0,
            description="Noise added in each step of the inversion, in standard deviations of DDPM's; 0: none. The "
            "authors' code: 0.3.",
        )
        tau: int = Field(
            0,
            ge=0,
            description="Timesteps by which the inversion may go beyond t, drawn from 0 to tau; the model is told t. "
            "The authors' code: 99 with 10 inversion steps.",
        )
        every: int = Field(
            1,
            ge=1,
            description="Steps for which an inversion gives the target, the predicted clean latent; with weighting "
            "x0 only. The authors' two-dimensional notebook: 25 of 1,000.",
        )
        timesteps: Timesteps = Field((20, 980), description="Lowest and highest timestep drawn, both inclusive.")
        weighting: Literal["constant", "uniform", "sigma2", "fantasia3d", "x0"] = Field(
            "x0",
            description="Weight w(t), as in the prior sds. The paper's: x0, the step to the predicted clean latent.",
        )

        @model_validator(mode="after")
        def _has_target(self) -> Self:
            if self.every > 1 and self.weighting != "x0":
                raise ValueError(
                    f"every is {self.every}, but weighting is {self.weighting}, without a target to keep; expected x0"
                )
            return self

    name = "sdi"
    config: Config

    def __init__(self, config: Any = None, **fields: Any) -> None:
        super().__init__(config, **fields)
        self._targets: dict[str, Tensor] = {}
        """Key and prompt of a sample -> its target, [C, h, w]; empty where every step has its own."""

    @property
    def keeps_state(self) -> bool:
        """See `Prior.keeps_state`: the targets, where they are kept."""
        return self.config.every > 1

    @torch.no_grad()
    def gradient(self, x: Tensor, conditioning: Conditioning, at: Moment, rng: Rng) -> tuple[Tensor, None]:
        """See `LatentDiffusionPrior.gradient`; with `every`, x - target, divided by h*w if `normalise`."""
        if self.config.every == 1:
            return super().gradient(x, conditioning, at, rng)
        names = [f"{key}/{prompt}" for key, prompt in zip(rng.seeds, conditioning.prompts, strict=True)]
        if at.step % self.config.every == 0 or any(name not in self._targets for name in names):
            whole = super().gradient(x, conditioning, at, rng)[0] * self._scale(x)
            due = at.step % self.config.every == 0
            fresh = dict(zip(names, x - whole, strict=True))
            self._targets = fresh if due else {name: self._targets.get(name, fresh[name]) for name in names}
        return (x - torch.stack([self._targets[name] for name in names])) / self._scale(x), None

    def state_dict(self) -> dict[str, Any]:
        """The targets of the samples, where they are kept."""
        if not self._targets:
            return {"samples": []}
        return {"samples": list(self._targets), "targets": torch.stack(list(self._targets.values()))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        samples: Sequence[str] = state["samples"]
        self._targets = dict(zip(samples, state["targets"], strict=True)) if samples else {}

    def _scale(self, x: Tensor) -> int:
        """What `normalise` divides by."""
        return x.shape[-2] * x.shape[-1] if self.config.normalise else 1

    def noised(self, x: Tensor, conditioning: Conditioning, at: Moment, rng: Rng) -> Inverting:
        """As the base's, with what the inversion draws."""
        base = super().noised(x, conditioning, at, rng)
        count, last = len(base), len(self.diffusion.alphas_cumprod) - 1
        ends = base.timesteps
        if self.config.tau:
            ends = (ends + rng.integers(0, self.config.tau + 1).to(ends)).clamp(max=last)
        if self.config.eta:
            kicks = rng.normal(self.config.inversion_steps, *x.shape[1:]).to(base.latents)
        else:
            kicks = base.latents.new_zeros(count, 0)
        return Inverting(**{field.name: getattr(base, field.name) for field in fields(base)}, ends=ends, kicks=kicks)

    def distil(self, batch: Noised, at: Moment) -> Tensor:
        """w(t) (eps_hat(x_t) - kappa)."""
        assert isinstance(batch, Inverting)
        noisy = self.inverted(batch, at)
        kappa = batch.target if self.compares_clean else noise_between(batch.latents, noisy, batch.alpha_bar)
        predicted = self.guided(noisy, batch.timesteps, batch.text, batch.negative, at.of(self.config.guidance))
        return sds_gradient(kappa, predicted, batch.weight)

    def inverted(self, batch: Inverting, at: Moment) -> Tensor:
        """x_t [B, C, h, w]: each latent after its own number of steps of DDIM in reverse."""
        schedule, end = self.diffusion.alphas_cumprod.to(batch.alpha_bar), batch.ends
        counts = (self.config.inversion_steps * batch.timesteps / len(schedule)).round().clamp(min=1).long()
        current, alpha_bar = batch.latents, torch.ones_like(batch.alpha_bar)
        for k in range(int(counts.max())):
            rows = (k < counts).nonzero().squeeze(1)
            here, to = (end[rows] * n // counts[rows] for n in (k, k + 1))
            before, after = alpha_bar[rows], schedule[to]
            text, negative, guidance = batch.text[rows], batch.negative[rows], at.of(self.config.inversion_guidance)
            noise = self.guided(current[rows], here, text, negative, guidance, self.diffusion.noise)
            moved = ddim_step(current[rows], noise, before, after)
            if self.config.eta:
                moved = moved + ddim_noise(batch.kicks[rows, k], before, after, self.config.eta)
            current, alpha_bar = current.index_copy(0, rows, moved), alpha_bar.index_copy(0, rows, after)
        return current
