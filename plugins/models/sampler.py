"""A few steps of a diffusion sampler as one differentiable function of its noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from diffusers.schedulers import DDIMScheduler, EulerDiscreteScheduler, LCMScheduler
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from refcore.errors import RefcoreError
from refcore_plugins.models.stable_diffusion import StableDiffusion
from refcore_plugins.models.untrusted_checkpoints import reason_of

Method = Literal["ddim", "euler", "lcm"]
SCHEDULERS: dict[Method, Any] = {"ddim": DDIMScheduler, "euler": EulerDiscreteScheduler, "lcm": LCMScheduler}
Denoise = Callable[[Tensor, Tensor], Tensor]
"""(scaled noisy latents [B, C, h, w], timesteps [B]) -> the network's guided output."""


class Sampler:
    """A scheduler of diffusers with its timesteps, over the noise schedule of a model."""

    def __init__(
        self, diffusion: StableDiffusion, method: Method, steps: int, timesteps: Sequence[int] | None = None
    ) -> None:
        """
        Args:
            diffusion: whose noise schedule and kind of prediction are used.
            method: ddim, euler (for one step the same as Euler ancestral), or lcm (latent consistency models).
            steps: number of steps, spaced as "trailing", so that the first one is at the last timestep.
            timesteps: in their place, falling; ddim takes none of its own.

        Raises:
            RefcoreError: more steps than the model has timesteps, or timesteps that it does not have.
        """
        most, model = len(diffusion.alphas_cumprod), diffusion.folder.model
        if timesteps is not None and not all(0 <= t < most for t in timesteps):
            raise RefcoreError(f'timesteps are {list(timesteps)}; expected 0 to {most - 1}, those of "{model}"')
        if steps > most:
            raise RefcoreError(f'{steps} steps of a sampler; expected at most {most}, the timesteps of "{model}"')
        settings = diffusion.folder.config("scheduler", "scheduler_config.json")
        own: dict[str, Any] = {"timestep_spacing": "trailing", "prediction_type": diffusion.prediction}
        own |= {"clip_sample": False, "thresholding": False}
        try:
            self.scheduler = SCHEDULERS[method].from_config(settings, **own)
            given: dict[str, Any] = (
                {"timesteps": list(timesteps)} if timesteps is not None else {"num_inference_steps": steps}
            )
            if method == "lcm":
                given["original_inference_steps"] = max(steps, min(50, most))
            self.scheduler.set_timesteps(**given)
        except Exception as error:  # the library raises what its classes do with values that do not fit
            raise RefcoreError(
                f'"{model}" has no {method} sampler of {steps} steps: {type(error).__name__}: {reason_of(error, 150)}'
            ) from error
        self._given = given
        self.timesteps: list[float] = [float(t) for t in self.scheduler.timesteps]
        """[n] falling."""

    def __call__(
        self, noise: Tensor, denoise: Denoise, eta: float = 0.0, own: Tensor | None = None, recompute: bool = False
    ) -> Tensor:
        """Latents [B, C, h, w] of noise [B, C, h, w], differentiable in it.

        DDIM: eq. 12 of arXiv 2010.02502, in which `eta` scales the noise that each step adds.

        Args:
            noise: standard normal.
            denoise: the network with its guidance.
            eta: of DDIM; 0 is deterministic.
            own: [B, n, C, h, w] standard normal, the noise that the steps add; needed for an eta above 0.
            recompute: whether the network is evaluated again in the backward pass, so that only one step's
                activations are held at a time.
        """
        self.scheduler.set_timesteps(**self._given)  # forgets the step that the last call ended with
        x: Tensor = noise * self.scheduler.init_noise_sigma
        for i, t in enumerate(self.scheduler.timesteps):
            scaled = self.scheduler.scale_model_input(x, t)
            times = torch.full((len(x),), float(t), device=x.device, dtype=torch.promote_types(t.dtype, torch.int64))
            if recompute and torch.is_grad_enabled() and scaled.requires_grad:
                out = checkpoint(denoise, scaled, times, use_reentrant=False)
            else:
                out = denoise(scaled, times)
            if isinstance(self.scheduler, DDIMScheduler):
                added = own[:, i] if own is not None and eta else None
                x = self.scheduler.step(out, t, x, eta=eta, variance_noise=added).prev_sample
            else:
                x = self.scheduler.step(out, t, x).prev_sample
        return x
