"""Base of the priors that use a Stable Diffusion model: config, text, noising, guidance and sampling."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from refcore.checkpoints import Download
from refcore.config.schedule import WholeSchedule, ascending, span
from refcore.contracts.canvas import Canvas
from refcore.contracts.conditioning import Conditioning
from refcore.contracts.prior import Prior
from refcore.errors import RefcoreError
from refcore.moment import Moment
from refcore.plugin import PluginConfig
from refcore.rng import Rng
from refcore_plugins.models.autoencoder import Autoencoder, latent_space, load_autoencoder
from refcore_plugins.models.caption_text import WHAT_BLIP_CAPTION_DOES, WORDS, Cleaning, clean
from refcore_plugins.models.diffusers_folder import PIPELINE, DiffusersFolder, download
from refcore_plugins.models.score_distillation import WEIGHTINGS, Predict, add_noise, guided_prediction
from refcore_plugins.models.stable_diffusion import StableDiffusion

Timestep = Annotated[WholeSchedule, Field(ge=0)]
Timesteps = Annotated[tuple[Timestep, Timestep], AfterValidator(ascending)]
"""[lowest, highest] with 0 <= lowest <= highest in every step."""


@dataclass(frozen=True)
class Noised:
    """Latents with the timesteps and noise drawn for them in a step. Every tensor has first dimension B."""

    latents: Tensor
    """[B, C, h, w]"""
    noise: Tensor
    noisy: Tensor
    """x_t, [B, C, h, w]"""
    timesteps: Tensor
    """[B] int64"""
    alpha_bar: Tensor
    """[B]"""
    target: Tensor
    """What `LatentDiffusionPrior.predicted` would be if the model knew the latents, [B, C, h, w]."""
    weight: Tensor
    """[B] w(t); 1 where predictions of clean latents are compared, whose differences contain it."""
    text: Tensor
    """[B, T, D] text features of the prompts."""
    negative: Tensor
    """[B, T, D] text features of the negative prompt."""

    def __getitem__(self, samples: Tensor) -> Self:
        return type(self)(*(getattr(self, field.name)[samples] for field in fields(self)))

    def __len__(self) -> int:
        return len(self.latents)


class LatentDiffusionPrior(Prior):
    """A prior on latents whose gradient comes from the noise that a Stable Diffusion model predicts in them.

    Subclasses implement the equation, `distil`. Such gradients are not those of a loss, so the value is None.
    """

    class Config(PluginConfig):
        model: str = Field(
            "playground:diffusion",
            description="Stable Diffusion 1.x or 2.x: folder, hub id or playground:diffusion.",
        )
        timesteps: Timesteps = Field(
            (50, 948),
            description="Lowest and highest timestep drawn, both inclusive, of the model's 1000; each an integer, or a "
            "schedule.",
        )
        anneal: int | None = Field(
            None,
            ge=1,
            description="Steps over which the timestep falls linearly from highest to lowest, where it stays; "
            "null: timesteps are drawn. The two are those of the step, where they are schedules.",
        )
        weighting: Literal["constant", "uniform", "sigma2", "fantasia3d", "x0"] = Field(
            "constant",
            description="Weight w(t). constant: 2 (as in the paper). uniform: 1. sigma2: 1 - alpha_bar (DreamFusion). "
            "fantasia3d: sqrt(alpha_bar) (1 - alpha_bar). x0: the step to the predicted clean latent.",
        )
        normalise: bool = Field(
            True, description="Divide the gradient by the latent's height x width, as in the paper."
        )
        negative_prompt: str = Field("", description="Prompt that guidance leads away from; empty for none.")
        text: Cleaning = Field(
            "as_given",
            description=f"Cleaning of the prompt, its template included. as_given: none. {WHAT_BLIP_CAPTION_DOES}, at "
            "most `words` words.",
        )
        words: int = Field(WORDS, ge=1, description=f"Words that blip_caption keeps. LAVIS: {WORDS}.")
        chunk: int | None = Field(
            None, ge=1, description="Samples in one UNet call (two latents each, with guidance); null: all at once."
        )

    space: ClassVar[Literal["latent", "image", "params"]] = "latent"
    can_sample: ClassVar[bool] = True
    shares: ClassVar[frozenset[str]] = frozenset({"autoencoder"})
    config: Any
    diffusion: StableDiffusion
    autoencoder: Autoencoder | None = None
    """Encoder of images; loaded only for canvases without latents."""

    def downloads(self) -> dict[str, Download]:
        """See `Plugin.downloads`: text encoder, UNet and autoencoder of the folder, without its other weights."""
        return {name: download(name, PIPELINE) for name in super().downloads()}

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = torch.device(device), dtype
        self.diffusion = StableDiffusion(DiffusersFolder(self.config.model), self.device, self.dtype)
        last = len(self.diffusion.alphas_cumprod) - 1
        highest = self._highest()
        if highest > last:
            raise RefcoreError(f'timesteps go up to {highest}: the last timestep of "{self.config.model}" is {last}')
        self.compares_clean = self.config.weighting == "x0" and self.diffusion.prediction != "epsilon"
        """Whether gradients are differences of clean latents, which are w(t) times those of noise, and finite."""
        if self.config.weighting == "x0" and not self.compares_clean and not self._has_signal():
            raise RefcoreError(
                f'weighting "x0" is infinite at timestep {last} of "{self.config.model}", which predicts noise where '
                f"no signal is left (zero terminal SNR); set the highest of timesteps to {last - 1}"
            )

    def _highest(self) -> int:
        """The highest timestep that may be drawn in any step."""
        return round(span(self.config.timesteps[1])[1])

    def _has_signal(self) -> bool:
        """Whether the noisy latents of every timestep that may be drawn contain some of the latents."""
        return bool(self.diffusion.alphas_cumprod[: self._highest() + 1].min() > 0)

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
                "they are of another autoencoder"
                if theirs.fingerprint != ours.fingerprint
                else f"they are scaled by {theirs.scale} and shifted by {theirs.shift}, "
                f"not by {ours.scale} and {ours.shift}"
            )
            raise RefcoreError(
                f'prior "{self.name}" ({folder.model}) cannot read the latents of canvas "{canvas.name}": {reason}; '
                "give both the same model, or use a canvas without latents"
            )

    def read(self, prompts: Sequence[str]) -> Conditioning:
        """Text features of the prompts, `text` [P, T, D], and of the negative prompt, `negative` [P, T, D]."""
        cleaned = clean(prompts, self.config.text, self.config.words)
        text = self.diffusion.encode_text(cleaned.read)
        negative = self.diffusion.encode_text([self.config.negative_prompt]).expand_as(text)
        truncated = cleaned.truncated([self.diffusion.truncated(read) for read in cleaned.read])
        return Conditioning(tuple(prompts), {"text": text, "negative": negative}, truncated, cleaned.notes)

    def finish_reading(self) -> None:
        self.diffusion.finish_reading()

    def encode(self, images: Tensor) -> Tensor:
        """See `Prior.encode`."""
        if self.autoencoder is None:
            self.autoencoder = load_autoencoder(self.diffusion.folder, self.device, self.dtype)
        return self.autoencoder.encode(images)

    @abstractmethod
    def distil(self, batch: Noised, at: Moment) -> Tensor:
        """[B, C, h, w] gradients, w(t) times a difference of noises, before `normalise`; samples are independent."""

    @torch.no_grad()
    def gradient(self, x: Tensor, conditioning: Conditioning, at: Moment, rng: Rng) -> tuple[Tensor, None]:
        """The gradient of `distil` for x [B, C, h, w], divided by h*w if `normalise`; each sample has its own draws."""
        batch = self.noised(x, conditioning, at, rng)
        gradient = torch.cat([self.distil(batch[samples], at) for samples in self.chunks(len(batch))])
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
        """See `Prior.sample`. DDIM, or SDEdit (arXiv 2108.01073) with `around`."""
        noise = rng.normal(*shape)
        parts = [
            self.diffusion.ddim(
                noise[samples],
                steps,
                lambda noisy, t, samples=samples: self.guided(  # type: ignore[misc]
                    noisy,
                    t,
                    conditioning["text"][samples],
                    conditioning["negative"][samples],
                    guidance,
                    self.diffusion.to_sample,
                ),
                None if around is None else around[samples],
                strength,
            )
            for samples in self.chunks(len(noise))
        ]
        return torch.cat(parts)

    @torch.no_grad()
    def noise_to(self, latents: Tensor, rng: Rng, steps: int, strength: float) -> Tensor:
        """See `Prior.noise_to`."""
        return self.diffusion.noised(latents, rng.normal(*latents.shape[1:]), steps, strength)

    def noised(self, x: Tensor, conditioning: Conditioning, at: Moment, rng: Rng) -> Noised:
        """Latents [B, C, h, w] with this step's timesteps and noise, in float32 (float64 for float64 latents)."""
        latents = x.detach().to(torch.promote_types(x.dtype, torch.float32))
        timesteps = self.draw_timesteps(at, rng).to(latents.device)
        noise = rng.normal(*latents.shape[1:]).to(latents)
        alpha_bar = self.diffusion.alphas_cumprod[timesteps].to(latents.dtype)
        weight = WEIGHTINGS["uniform" if self.compares_clean else self.config.weighting](alpha_bar)
        return Noised(
            latents,
            noise,
            add_noise(latents, noise, alpha_bar),
            timesteps,
            alpha_bar,
            -latents if self.compares_clean else noise,
            weight,
            conditioning["text"],
            conditioning["negative"],
        )

    def draw_timesteps(self, at: Moment, rng: Rng) -> Tensor:
        """[B] int64, uniform in the config's range, or with `anneal` the timestep of this step."""
        low, high = map(at.whole, self.config.timesteps)
        if self.config.anneal is not None:
            fallen = round((high - low) * min(1.0, at.step / self.config.anneal))
            return torch.full((rng.n,), high - fallen)
        return rng.integers(low, high + 1)

    def predicted(self, noisy: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
        """What gradients compare: the predicted noise or, if `compares_clean`, minus the predicted clean latents."""
        if self.compares_clean:
            return -self.diffusion.clean(noisy, timesteps, text)
        return self.diffusion.noise(noisy, timesteps, text)

    def guided(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        text: Tensor,
        negative: Tensor,
        guidance: float,
        predict: Predict | None = None,
    ) -> Tensor:
        """The guided prediction of `predict` (default: `predicted`); see `guided_prediction`."""
        return guided_prediction(predict or self.predicted, noisy, timesteps, text, negative, guidance)

    def chunks(self, n: int) -> tuple[Tensor, ...]:
        """Sample indices of each UNet call."""
        return torch.split(torch.arange(n, device=self.device), self.config.chunk or max(1, n))
