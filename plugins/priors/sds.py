"""The SDS prior: score distillation of a Stable Diffusion model pulls latents toward its images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from refcore.canvas import Canvas
from refcore.plugin import PluginConfig, RefcoreError
from refcore.prior import Prior
from refcore.randomness import Rng
from refcore.referee import Reading
from refcore_plugins.autoencoder import Autoencoder, latent_space, load_autoencoder
from refcore_plugins.diffusers_folder import DiffusersFolder
from refcore_plugins.priors.distillation import WEIGHTINGS, add_noise, guide, sds_gradient
from refcore_plugins.stable_diffusion import StableDiffusion


class Sds(Prior):
    """Score Distillation Sampling: noise the latent, let the diffusion model predict the noise, descend the difference.

    DreamFusion (arXiv 2209.14988), in the latent space of Stable Diffusion and with the settings of "Referee Can Play"
    (arXiv 2402.16305). The gradient is that of no loss, so its value is None.
    """

    class Config(PluginConfig):
        model: str = Field(
            "playground:diffusion",
            description="Stable Diffusion 1.x or 2.x folder or hub id, or playground:diffusion.",
        )
        guidance: float = Field(
            30.0, ge=0, description="Classifier-free guidance scale; 1 is none, 0 ignores the prompt. The paper's: 30."
        )
        timesteps: tuple[int, int] = Field(
            (50, 948), description="Lowest and highest timestep drawn, both included, of the model's 1000."
        )
        weighting: Literal["constant", "sigma2", "fantasia3d", "x0"] = Field(
            "constant",
            description="w(t). constant: 2 (the paper's). sigma2: 1 - alpha_bar (DreamFusion's). fantasia3d: "
            "sqrt(alpha_bar) (1 - alpha_bar). x0: the step to the predicted clean latent.",
        )
        normalise: bool = Field(True, description="Divide by the latent's height x width, as the paper does.")
        negative_prompt: str = Field("", description="What guidance leads away from; empty for no text.")
        chunk: int | None = Field(
            None, ge=1, description="Samples in one UNet call (two latents each, with guidance); null for all at once."
        )

        @model_validator(mode="after")
        def _ordered(self) -> Self:
            low, high = self.timesteps
            if not 0 <= low <= high:
                raise ValueError(f"timesteps {[low, high]}: expected [low, high] with 0 <= low <= high")
            return self

    name = "sds"
    space: ClassVar[Literal["latent", "image", "params"]] = "latent"
    config: Config
    diffusion: StableDiffusion
    autoencoder: Autoencoder | None = None
    """Only on canvases without latents."""

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = torch.device(device), dtype
        self.diffusion = StableDiffusion(DiffusersFolder(self.config.model), self.device, self.dtype)
        last = len(self.diffusion.alphas_cumprod) - 1
        if self.config.timesteps[1] > last:
            raise RefcoreError(
                f'timesteps {list(self.config.timesteps)}: the last timestep of "{self.config.model}" is {last}'
            )

    def accept(self, canvas: Canvas) -> None:
        folder = self.diffusion.folder
        if canvas.latent_space is None:
            self.autoencoder = load_autoencoder(folder, self.device, self.dtype)
            self.autoencoder.check_size(canvas.size)
            return
        theirs = canvas.latent_space
        if theirs.channels != self.diffusion.channels:
            raise RefcoreError(
                f'prior "sds" ({folder.model}) works on latents of {self.diffusion.channels} channels, but canvas '
                f'"{canvas.name}" has {theirs.channels}; give both the same model, or use a canvas without latents'
            )
        ours = latent_space(folder)
        if theirs != ours:
            reason = (
                "another autoencoder made them"
                if theirs.fingerprint != ours.fingerprint
                else f"they are scaled by {theirs.scale} and shifted by {theirs.shift}, "
                f"not by {ours.scale} and {ours.shift}"
            )
            raise RefcoreError(
                f'prior "sds" ({folder.model}) cannot read the latents of canvas "{canvas.name}": {reason}; '
                "give both the same model, or use a canvas without latents"
            )

    def read(self, prompts: Sequence[str]) -> Reading:
        """Text features "text" [P, T, D], and those of the negative prompt, "negative" [P, T, D]."""
        text = self.diffusion.encode_text(prompts)
        negative = self.diffusion.encode_text([self.config.negative_prompt]).expand_as(text)
        cut = tuple(self.diffusion.cut(prompt) for prompt in prompts)
        return Reading(tuple(prompts), {"text": text, "negative": negative}, cut)

    def encode(self, images: Tensor) -> Tensor:
        """Scaled latents of images [B, 3, H, W] in [0, 1], differentiable. `accept` has loaded the encoder."""
        if self.autoencoder is None:
            self.autoencoder = load_autoencoder(self.diffusion.folder, self.device, self.dtype)
        return self.autoencoder.encode(images)

    @torch.no_grad()
    def gradient(self, x: Tensor, reading: Reading, step: int, rng: Rng) -> tuple[Tensor, None]:
        """w(t) (eps_hat - eps), over h*w if `normalise`, for x [B, C, h, w]; timestep and noise are per sample."""
        latents = x.detach().to(torch.promote_types(x.dtype, torch.float32))
        low, high = self.config.timesteps
        timesteps = rng.integers(low, high + 1).to(latents.device)
        noise = rng.normal(*latents.shape[1:]).to(latents)
        alpha_bar = self.diffusion.alphas_cumprod[timesteps].to(latents.dtype)
        noisy = add_noise(latents, noise, alpha_bar)
        chunks = torch.arange(len(latents), device=latents.device).split(self.config.chunk or len(latents))
        predicted = torch.cat(
            [self._predict(noisy[i], timesteps[i], reading["text"][i], reading["negative"][i]) for i in chunks]
        )
        gradient = sds_gradient(noise, predicted, WEIGHTINGS[self.config.weighting](alpha_bar))
        if self.config.normalise:
            gradient = gradient / (latents.shape[-2] * latents.shape[-1])
        return gradient, None

    def _predict(self, noisy: Tensor, timesteps: Tensor, text: Tensor, negative: Tensor) -> Tensor:
        """The guided noise; both halves of guidance in one UNet call, and one half alone where the other cancels."""
        if self.config.guidance == 1:
            return self.diffusion.noise(noisy, timesteps, text)
        if self.config.guidance == 0:
            return self.diffusion.noise(noisy, timesteps, negative)
        both = self.diffusion.noise(torch.cat([noisy] * 2), torch.cat([timesteps] * 2), torch.cat([negative, text]))
        unconditional, conditional = both.chunk(2)
        return guide(unconditional, conditional, self.config.guidance)
