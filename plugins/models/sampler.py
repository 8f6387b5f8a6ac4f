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

Method = Literal["ddim", "edict", "euler", "lcm"]
SCHEDULERS: dict[Method, Any] = {
    "ddim": DDIMScheduler,
    "edict": DDIMScheduler,
    "euler": EulerDiscreteScheduler,
    "lcm": LCMScheduler,
}
Spacing = Literal["trailing", "leading"]
Denoise = Callable[[Tensor, Tensor], Tensor]
"""(scaled noisy latents [B, C, h, w], timesteps [B]) -> the network's guided output, or the noise that it tells."""


class Sampler:
    """A scheduler of diffusers with its timesteps, over the noise schedule of a model."""

    def __init__(
        self,
        diffusion: StableDiffusion,
        method: Method,
        steps: int,
        timesteps: Sequence[int] | None = None,
        spacing: Spacing = "trailing",
        mix: float = 0.93,
    ) -> None:
        """
        Args:
            diffusion: whose noise schedule and kind of prediction are used.
            method: ddim, edict, euler (for one step the same as Euler ancestral), or lcm (latent consistency models).
            steps: number of steps.
            timesteps: in their place, falling; ddim and edict take none of their own.
            spacing: trailing: the first step is at the last timestep. leading: the last one is near timestep 0.
            mix: weight of a latent of edict in its own mixture, above 0.5.

        Raises:
            RefcoreError: more steps than the model has timesteps, or timesteps that it does not have.
        """
        most, model = len(diffusion.alphas_cumprod), diffusion.folder.model
        if timesteps is not None and not all(0 <= t < most for t in timesteps):
            raise RefcoreError(f'timesteps are {list(timesteps)}; expected 0 to {most - 1}, those of "{model}"')
        if steps > most:
            raise RefcoreError(f'{steps} steps of a sampler; expected at most {most}, the timesteps of "{model}"')
        settings = diffusion.folder.config("scheduler", "scheduler_config.json")
        self.predicts_noise = method == "edict"
        """Whether `denoise` gives the noise, whatever the network predicts."""
        self._method, self._mix = method, mix
        if self.predicts_noise and not diffusion.has_signal:
            raise RefcoreError(
                f'"{model}" has no edict sampler: no signal is left at its last timestep (zero terminal SNR); use ddim'
            )
        prediction = "epsilon" if self.predicts_noise else diffusion.prediction
        own: dict[str, Any] = {"timestep_spacing": spacing, "prediction_type": prediction}
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
        recompute = recompute and torch.is_grad_enabled() and noise.requires_grad

        def denoised(x: Tensor, t: Tensor) -> Tensor:
            scaled = self.scheduler.scale_model_input(x, t)
            times = torch.full((len(x),), float(t), device=x.device, dtype=torch.promote_types(t.dtype, torch.int64))
            return checkpoint(denoise, scaled, times, use_reentrant=False) if recompute else denoise(scaled, times)

        x: Tensor = noise * self.scheduler.init_noise_sigma
        if self._method == "edict":
            return self._coupled(x, denoised)
        for i, t in enumerate(self.scheduler.timesteps):
            out = denoised(x, t)
            if isinstance(self.scheduler, DDIMScheduler):
                added = own[:, i] if own is not None and eta else None
                x = self.scheduler.step(out, t, x, eta=eta, variance_noise=added).prev_sample
            else:
                x = self.scheduler.step(out, t, x).prev_sample
        return x

    def _coupled(self, x: Tensor, denoised: Denoise) -> Tensor:
        """The first latent of EDICT's pair (Wallace et al., arXiv 2211.12446, eqs. 12 to 14), both of noise x.

        In each step one latent goes on by the noise that the other one tells, then the other by the first one's, in
        turn, and both are mixed: an exactly invertible chain, whose two ends are nearly the same.
        """
        pair = [x, x]
        for i, t in enumerate(self.scheduler.timesteps):
            for moved in (i % 2, (i + 1) % 2):
                pair[moved] = self.scheduler.step(denoised(pair[1 - moved], t), t, pair[moved]).prev_sample
            pair[0] = self._mix * pair[0] + (1 - self._mix) * pair[1]
            pair[1] = self._mix * pair[1] + (1 - self._mix) * pair[0]
        return pair[0]
