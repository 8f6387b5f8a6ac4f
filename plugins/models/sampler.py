"""A few steps of a diffusion sampler as one differentiable function of its noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from diffusers.schedulers import (
    DDIMScheduler,
    DDPMScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    LCMScheduler,
    SCMScheduler,
)
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from refcore.errors import RefcoreError, article
from refcore.rng import Rng
from refcore_plugins.models.generators.generator import Generator
from refcore_plugins.models.score_distillation import noise_between, noise_of_velocity
from refcore_plugins.models.untrusted_checkpoints import reason_of

Method = Literal["ddim", "edict", "euler", "euler_ancestral", "lcm", "ddpm", "own"]
Spacing = Literal["trailing", "leading"]
SCHEDULERS: dict[Method, Any] = {
    "ddim": DDIMScheduler,
    "edict": DDIMScheduler,
    "euler": EulerDiscreteScheduler,
    "euler_ancestral": EulerAncestralDiscreteScheduler,
    "lcm": LCMScheduler,
    "ddpm": DDPMScheduler,
}
STOCHASTIC = (
    EulerAncestralDiscreteScheduler,
    LCMScheduler,
    DDPMScheduler,
    SCMScheduler,
    FlowMatchEulerDiscreteScheduler,
)
"""Schedulers whose steps may add noise of their own."""
CLEAN = (DDPMScheduler, SCMScheduler)
"""Schedulers whose last step is the predicted clean latents: what it adds to them is the noise of a step to none."""
Denoise = Callable[[Tensor, Tensor], Tensor]
"""(scaled noisy latents [B, C, h, w], timesteps [B]) -> the network's guided output."""


class Sampler:
    """A scheduler of diffusers with its timesteps, over the noise schedule of a generator."""

    def __init__(
        self,
        generator: Generator,
        method: Method,
        steps: int,
        timesteps: Sequence[int] | None = None,
        spacing: Spacing = "trailing",
        mix: float = 0.93,
    ) -> None:
        """
        Args:
            generator: whose noise schedule and kind of prediction are used.
            method: ddim, edict, euler (for one step the same as Euler ancestral), euler_ancestral, lcm (latent
                consistency models), ddpm; or own, the scheduler of the generator's folder as it is.
            steps: number of steps.
            timesteps: in their place, falling; of euler, lcm and ddpm alone.
            spacing: trailing: the first step is at the last timestep. leading: the last one is near timestep 0. `own`
                has its own.
            mix: weight of a latent of edict in its own mixture, above 0.5.

        Raises:
            RefcoreError: more steps than the model has timesteps, timesteps that it does not have, or a scheduler that
                does not fit.
        """
        settings, model = generator.schedule, generator.folder.model
        most = int(settings.get("num_train_timesteps", 1000))
        if timesteps is not None and not all(0 <= t < most for t in timesteps):
            raise RefcoreError(f'timesteps are {list(timesteps)}; expected 0 to {most - 1}, those of "{model}"')
        if steps > most:
            raise RefcoreError(f'{steps} steps of a sampler; expected at most {most}, the timesteps of "{model}"')
        kind, own = _kind(generator, method), {}
        self._method, self._mix, self._predicts = method, mix, settings.get("prediction_type", "epsilon")
        if method != "own":
            predicted = "epsilon" if method == "edict" else self._predicts
            own = {"timestep_spacing": spacing, "prediction_type": predicted}
            own |= {"clip_sample": False, "thresholding": False}
        try:
            self.scheduler = kind.from_config(settings, **own)
            given: dict[str, Any] = (
                {"timesteps": list(timesteps)} if timesteps is not None else generator.spacing(steps)
            )
            if kind is LCMScheduler:
                given["original_inference_steps"] = max(steps, min(50, most))
            self.scheduler.set_timesteps(**given)
        except Exception as error:  # the library raises what its classes do with values that do not fit
            raise RefcoreError(
                f'"{model}" has no {method} sampler of {steps} steps: {type(error).__name__}: {reason_of(error, 150)}'
            ) from error
        if method == "edict" and not self.scheduler.alphas_cumprod.min() > 0:
            raise RefcoreError(
                f'"{model}" has no edict sampler: no signal is left at its last timestep (zero terminal SNR); use ddim'
            )
        self._given = given
        self.timesteps: list[float] = [float(t) for t in self._own_timesteps()]
        """[n] falling."""
        self._spare = torch.Generator(generator.device)
        """For the noise that a scheduler draws and does not use: on the device, so that nothing waits for a copy."""

    def __call__(
        self,
        noise: Tensor,
        denoise: Denoise,
        eta: float = 0.0,
        own: Tensor | None = None,
        recompute: bool = False,
        rng: Rng | None = None,
    ) -> Tensor:
        """Latents [B, C, h, w] of noise [B, C, h, w], differentiable in it.

        DDIM: eq. 12 of arXiv 2010.02502, in which `eta` scales the noise that each step but the last adds.

        Args:
            noise: standard normal.
            denoise: the network with its guidance.
            eta: of DDIM; 0 is deterministic.
            own: [B, n, C, h, w] standard normal, the noise that the steps add; needed for an eta above 0.
            recompute: whether the network is evaluated again in the backward pass, so that only one step's
                activations are held at a time.
            rng: of the B samples, for the noise that the steps of a stochastic scheduler add; the same one makes the
                same latents.
        """
        scheduler = self.scheduler
        scheduler.set_timesteps(**self._given)  # forgets the step that the last call ended with
        angles = isinstance(scheduler, SCMScheduler)
        deviation: float = scheduler.config.sigma_data if angles else 1.0
        x: Tensor = noise * (deviation if angles else getattr(scheduler, "init_noise_sigma", 1.0))
        timesteps = self._own_timesteps()

        def denoised(x: Tensor, t: Tensor) -> Tensor:
            scaled = x / deviation if angles else scheduler.scale_model_input(x, t) if _scales(scheduler) else x
            times = torch.full((len(x),), float(t), device=x.device, dtype=torch.promote_types(t.dtype, torch.int64))
            if recompute and torch.is_grad_enabled() and scaled.requires_grad:
                return checkpoint(denoise, scaled, times, use_reentrant=False)  # type: ignore[no-any-return]
            return denoise(scaled, times)

        if self._method == "edict":
            return self._coupled(x, denoised)
        for i, t in enumerate(timesteps):
            out = denoised(x, t)
            if isinstance(scheduler, DDIMScheduler):
                noisy = eta if i < len(timesteps) - 1 else 0.0
                added = own[:, i] if own is not None and noisy else None
                x = scheduler.step(out, t, x, eta=noisy, variance_noise=added).prev_sample
                continue
            last = i == len(timesteps) - 1
            options: dict[str, Any] = {}
            if isinstance(scheduler, STOCHASTIC):
                options["generator"] = self._spare if last else _generators(rng)
            stepped = scheduler.step(out * deviation if angles else out, t, x, **options)
            x = stepped.pred_original_sample if last and isinstance(scheduler, CLEAN) else stepped.prev_sample
        return x / deviation if angles else x

    def _coupled(self, x: Tensor, denoised: Denoise) -> Tensor:
        """The first latent of EDICT's pair (Wallace et al., arXiv 2211.12446, eqs. 12 to 14), both of noise x.

        In each step one latent goes on by the noise that the other one tells, then the other by the first one's, in
        turn, and both are mixed: an exactly invertible chain, whose two ends are nearly the same.
        """
        pair = [x, x]
        for i, t in enumerate(self.scheduler.timesteps):
            for moved in (i % 2, (i + 1) % 2):
                told = self._noise(denoised(pair[1 - moved], t), pair[1 - moved], t)
                pair[moved] = self.scheduler.step(told, t, pair[moved]).prev_sample
            pair[0] = self._mix * pair[0] + (1 - self._mix) * pair[1]
            pair[1] = self._mix * pair[1] + (1 - self._mix) * pair[0]
        return pair[0]

    def _noise(self, out: Tensor, noisy: Tensor, t: Tensor) -> Tensor:
        """The noise in noisy latents, from the network's own output for them."""
        if self._predicts == "epsilon":
            return out
        alpha_bar = self.scheduler.alphas_cumprod[t].to(noisy).expand(len(noisy))
        return (noise_of_velocity if self._predicts == "v_prediction" else noise_between)(out, noisy, alpha_bar)

    def _own_timesteps(self) -> Tensor:
        """The scheduler's timesteps, one a step, on the CPU. Those of angles end with 0, at which nothing is done."""
        timesteps: Tensor = self.scheduler.timesteps
        return timesteps[:-1] if isinstance(self.scheduler, SCMScheduler) else timesteps


def _kind(generator: Generator, method: Method) -> Any:
    """The class of the scheduler.

    Raises:
        RefcoreError: it cannot sample the generator.
    """
    model, known = generator.folder.model, {kind.__name__: kind for kind in generator.schedulers}
    if method != "own":
        if generator.own_alone:
            raise RefcoreError(f'sampler is {method}, but "{model}" predicts no noise; expected sampler own')
        return SCHEDULERS[method]
    name = str(generator.schedule.get("_class_name"))
    if name not in known:
        raise RefcoreError(
            f'sampler is own, and the scheduler of "{model}" is {article(name)}; expected {", ".join(known)}'
            + ("" if generator.own_alone else f"; or name one as sampler: {', '.join(SCHEDULERS)}")
        )
    return known[name]


def _scales(scheduler: Any) -> bool:
    return hasattr(scheduler, "scale_model_input")


def _generators(rng: Rng | None) -> list[torch.Generator]:
    assert rng is not None, "the steps of this scheduler draw noise"
    return rng.generators
