"""What every prior made of a Stable Diffusion model shares: models, latents, text, draws, guidance and samples."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from refcore.checkpoints import Download
from refcore.contracts.canvas import Canvas
from refcore.contracts.conditioning import Conditioning
from refcore.contracts.prior import Prior
from refcore.errors import RefcoreError
from refcore.plugin import PluginConfig
from refcore.rng import Rng
from refcore_plugins.models.autoencoder import Autoencoder, latent_space, load_autoencoder
from refcore_plugins.models.diffusers_folder import PIPELINE, DiffusersFolder, download
from refcore_plugins.models.distillation import WEIGHTINGS, add_noise, guide
from refcore_plugins.models.stable_diffusion import StableDiffusion


@dataclass(frozen=True)
class Noised:
    """Latents with the noise that was drawn for them in a step. Everything has B rows."""

    latents: Tensor
    """[B, C, h, w]"""
    noise: Tensor
    noisy: Tensor
    """x_t, [B, C, h, w]"""
    timesteps: Tensor
    """[B] int64"""
    alpha_bar: Tensor
    """[B]"""
    weight: Tensor
    """w(t), [B]"""
    text: Tensor
    """[B, T, D] text features of the prompts."""
    negative: Tensor
    """[B, T, D], of the negative prompt."""

    def __getitem__(self, rows: Tensor) -> Noised:
        return Noised(*(getattr(self, field.name)[rows] for field in fields(self)))

    def __len__(self) -> int:
        return len(self.latents)


class LatentDiffusionPrior(Prior):
    """A prior on latents whose gradient comes from the noise that a Stable Diffusion model predicts in them.

    Subclasses give the equation, `distil`. Such gradients are those of no loss, so the value is None.
    """

    class Config(PluginConfig):
        model: str = Field(
            "playground:diffusion",
            description="Stable Diffusion 1.x or 2.x folder or hub id, or playground:diffusion.",
        )
        timesteps: tuple[int, int] = Field(
            (50, 948), description="Lowest and highest timestep drawn, both included, of the model's 1000."
        )
        anneal: int | None = Field(
            None,
            ge=1,
            description="Steps over which the timestep falls evenly from the highest to the lowest, instead of being "
            "drawn; it stays there. null: drawn.",
        )
        weighting: Literal["constant", "uniform", "sigma2", "fantasia3d", "x0"] = Field(
            "constant",
            description="w(t). constant: 2 (the paper's). uniform: 1. sigma2: 1 - alpha_bar (DreamFusion's). "
            "fantasia3d: sqrt(alpha_bar) (1 - alpha_bar). x0: the step to the predicted clean latent.",
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

    space: ClassVar[Literal["latent", "image", "params"]] = "latent"
    can_sample: ClassVar[bool] = True
    config: Any
    diffusion: StableDiffusion
    autoencoder: Autoencoder | None = None
    """Only on canvases without latents."""

    def downloads(self) -> dict[str, Download]:
        """See `Plugin.downloads`: text encoder, UNet and autoencoder of the folder, without its other weights."""
        return {name: download(name, PIPELINE) for name in super().downloads()}

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
                f'prior "{self.name}" ({folder.model}) works on latents of {self.diffusion.channels} channels, but '
                f'canvas "{canvas.name}" has {theirs.channels}; give both the same model, or use a canvas without '
                "latents"
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
                f'prior "{self.name}" ({folder.model}) cannot read the latents of canvas "{canvas.name}": {reason}; '
                "give both the same model, or use a canvas without latents"
            )

    def read(self, prompts: Sequence[str]) -> Conditioning:
        """Text features "text" [P, T, D], and those of the negative prompt, "negative" [P, T, D]."""
        text = self.diffusion.encode_text(prompts)
        negative = self.diffusion.encode_text([self.config.negative_prompt]).expand_as(text)
        truncated = tuple(self.diffusion.cut(prompt) for prompt in prompts)
        return Conditioning(tuple(prompts), {"text": text, "negative": negative}, truncated)

    def finish_reading(self) -> None:
        self.diffusion.finish_reading()

    def encode(self, images: Tensor) -> Tensor:
        """Scaled latents of images [B, 3, H, W] in [0, 1], differentiable. `accept` has loaded the encoder."""
        if self.autoencoder is None:
            self.autoencoder = load_autoencoder(self.diffusion.folder, self.device, self.dtype)
        return self.autoencoder.encode(images)

    @abstractmethod
    def distil(self, batch: Noised, step: int) -> Tensor:
        """[B, C, h, w]: the gradient that is w(t) times a difference of noises, row by row, before `normalise`."""

    @torch.no_grad()
    def gradient(self, x: Tensor, conditioning: Conditioning, step: int, rng: Rng) -> tuple[Tensor, None]:
        """The gradient of `distil`, over h*w if `normalise`, for x [B, C, h, w]; timestep and noise are per sample."""
        batch = self.noised(x, conditioning, step, rng)
        gradient = torch.cat([self.distil(batch[rows], step) for rows in self.chunks(len(batch))])
        if self.config.normalise:
            gradient = gradient / (x.shape[-2] * x.shape[-1])
        return gradient, None

    @torch.no_grad()
    def sample(
        self,
        shape: Sequence[int],
        conditioning: Conditioning,
        rng: Rng,
        steps: int,
        guidance: float,
        around: Tensor | None = None,
        strength: float = 1.0,
    ) -> Tensor:
        """See `Prior.sample`. DDIM, and SDEdit (arXiv 2108.01073) where there is an `around`."""
        noise = rng.normal(*shape)
        parts = [
            self.diffusion.ddim(
                noise[rows],
                steps,
                lambda noisy, t, rows=rows: self.guided(  # type: ignore[misc]
                    noisy, t, conditioning["text"][rows], conditioning["negative"][rows], guidance
                ),
                None if around is None else around[rows],
                strength,
            )
            for rows in self.chunks(len(noise))
        ]
        return torch.cat(parts)

    def noised(self, x: Tensor, conditioning: Conditioning, step: int, rng: Rng) -> Noised:
        """Latents [B, C, h, w] with this step's timesteps and noise, in float32 (float64 for float64 latents)."""
        latents = x.detach().to(torch.promote_types(x.dtype, torch.float32))
        timesteps = self.draw_timesteps(step, rng).to(latents.device)
        noise = rng.normal(*latents.shape[1:]).to(latents)
        alpha_bar = self.diffusion.alphas_cumprod[timesteps].to(latents.dtype)
        return Noised(
            latents,
            noise,
            add_noise(latents, noise, alpha_bar),
            timesteps,
            alpha_bar,
            WEIGHTINGS[self.config.weighting](alpha_bar),
            conditioning["text"],
            conditioning["negative"],
        )

    def draw_timesteps(self, step: int, rng: Rng) -> Tensor:
        """[B] int64, uniform in the config's range, or where `anneal` has come to at this step."""
        low, high = self.config.timesteps
        if self.config.anneal is not None:
            fallen = round((high - low) * min(1.0, step / self.config.anneal))
            return torch.full((rng.n,), high - fallen)
        return rng.integers(low, high + 1)

    def guided(self, noisy: Tensor, timesteps: Tensor, text: Tensor, negative: Tensor, guidance: float) -> Tensor:
        """The guided noise; both halves of guidance in one UNet call, and one half alone where the other cancels."""
        if guidance == 1:
            return self.diffusion.noise(noisy, timesteps, text)
        if guidance == 0:
            return self.diffusion.noise(noisy, timesteps, negative)
        return guide(*self.both(noisy, timesteps, text, negative), guidance)

    def both(self, noisy: Tensor, timesteps: Tensor, text: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
        """The noise predicted for the negative prompt and for the prompt, in one UNet call."""
        out = self.diffusion.noise(torch.cat([noisy] * 2), torch.cat([timesteps] * 2), torch.cat([negative, text]))
        without, given = out.chunk(2)
        return without, given

    def chunks(self, n: int) -> tuple[Tensor, ...]:
        """The rows of each UNet call."""
        return torch.arange(n, device=self.device).split(self.config.chunk or max(1, n))
