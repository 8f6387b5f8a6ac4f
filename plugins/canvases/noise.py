"""The `noise` canvas: the image is what a generator makes of optimised noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from refcore.checkpoints import Download
from refcore.contracts.canvas import CanvasParams, LatentSpace, PromptedCanvas
from refcore.contracts.conditioning import Conditioning
from refcore.moment import Moment
from refcore.plugin import PluginConfig
from refcore.rng import Rng
from refcore_plugins.models.autoencoder import Autoencoder, Clamp, colours, load_autoencoder
from refcore_plugins.models.diffusers_folder import PIPELINE, DiffusersFolder, download
from refcore_plugins.models.sampler import Method, Sampler
from refcore_plugins.models.score_distillation import guided_prediction
from refcore_plugins.models.stable_diffusion import StableDiffusion

NOISE, ADDED = "noise", "step_noise"
"""Names of the parameters: the start's noise [B, C, h, w], and with `eta` the noise that the steps add
[B, steps, C, h, w]."""


class Noise(PromptedCanvas):
    """The noise of a short sampler: `image = (decode(sample(noise)) + 1) / 2`, clamped to [0, 1].

    With one step of a one-step generator this is ReNO's canvas (arXiv 2406.04312), with many deterministic steps that
    of DOODL (2303.13703), and with `eta: 1` that of DNO (2405.18881), where the noise of all steps is optimised. The
    generator reads the prompt (`canvas.prompt`), which may be empty. Pictures stay ones that the generator makes.
    """

    class Config(PluginConfig):
        model: str = Field(
            "playground:diffusion",
            description="Stable Diffusion 1.x, 2.x or Turbo: folder, hub id, playground:diffusion or playground:turbo.",
        )
        steps: int = Field(1, ge=1, le=1000, description="Number of sampling steps; each is differentiated through.")
        timesteps: list[Annotated[int, Field(ge=0)]] | None = Field(
            None, min_length=1, description="Timesteps, falling, one for each step; null: evenly spaced from the last."
        )
        sampler: Method = Field(
            "ddim",
            description="ddim; euler, which for one step is also Euler ancestral; or lcm, for consistency models.",
        )
        eta: float = Field(
            0.0,
            ge=0,
            le=1,
            description="Noise that each step adds, of ddim: 0 none, 1 that of DDPM. It is optimised, too.",
        )
        guidance: float = Field(
            1.0, ge=0, le=1000, description="Guidance scale; 1: the prompt alone, without guidance."
        )
        negative_prompt: str = Field("", description="Prompt that guidance leads away from; empty for none.")
        clamp: Clamp = Field(
            "hard",
            description="Clamping of images to [0, 1]. hard: no gradient in saturated pixels. straight_through: the "
            "same image, with the gradient of the image before clamping.",
        )
        recompute: bool = Field(
            False,
            description="Evaluate the networks again in the backward pass, instead of storing their activations: the "
            "memory of one step, at the price of a second evaluation of each.",
        )
        dtype: Literal["float32", "float64", "bfloat16", "float16"] | None = Field(
            None, description="Dtype of the generator's weights; null: that of the run. Noise and images are float32."
        )

        @model_validator(mode="after")
        def _sensible(self) -> Self:
            if self.eta and self.sampler != "ddim":
                raise ValueError(f"eta is {self.eta}, which only ddim has; sampler is {self.sampler}")
            if self.timesteps is not None:
                if self.sampler == "ddim":
                    raise ValueError("timesteps are given, but ddim has its own; expected sampler euler or lcm")
                if len(self.timesteps) != self.steps:
                    raise ValueError(f"{len(self.timesteps)} timesteps are given; expected {self.steps}, one a step")
                if sorted(set(self.timesteps), reverse=True) != self.timesteps:
                    raise ValueError(f"timesteps are {self.timesteps}; expected falling ones")
            return self

    name = "noise"
    config: Config
    diffusion: StableDiffusion
    autoencoder: Autoencoder

    def downloads(self) -> dict[str, Download]:
        """See `Plugin.downloads`: text encoder, UNet and autoencoder of the folder, without its other weights."""
        return {name: download(name, PIPELINE) for name in super().downloads()}

    def load(self, device: torch.device, dtype: torch.dtype, size: tuple[int, int] | None = None) -> None:
        self.device = torch.device(device)
        dtype = dtype if self.config.dtype is None else getattr(torch, self.config.dtype)
        folder = DiffusersFolder(self.config.model)
        self.diffusion = StableDiffusion(folder, self.device, dtype)
        self.autoencoder = load_autoencoder(folder, self.device, dtype)
        own = self.autoencoder.space
        # Its latent is noise and no picture's, so a prior of pictures' latents does not accept it.
        self.latent_space = LatentSpace(f"noise of {own.fingerprint}", own.channels, 1.0)
        side = self.diffusion.unet.config.sample_size
        default = (side * self.autoencoder.factor,) * 2 if isinstance(side, int) else self.autoencoder.default_size
        self.size = size if size is not None else default
        self.autoencoder.check_size(self.size)
        self._sampler = Sampler(self.diffusion, self.config.sampler, self.config.steps, self.config.timesteps)

    def init(self, rng: Rng) -> CanvasParams:
        height, width = (side // self.autoencoder.factor for side in self.size)
        shape = (self.diffusion.channels, height, width)
        params = {NOISE: rng.normal(*shape).to(self.device)}
        if self.config.eta:
            params[ADDED] = rng.normal(self.config.steps, *shape).to(self.device)
        return params

    def read(self, prompts: Sequence[str]) -> Conditioning:
        """Text features of the prompts, `text` [P, T, D], and of the negative prompt, `negative` [P, T, D]."""
        text = self.diffusion.encode_text(prompts)
        negative = self.diffusion.encode_text([self.config.negative_prompt]).expand_as(text)
        truncated = tuple(self.diffusion.truncated(prompt) for prompt in prompts)
        return Conditioning(tuple(prompts), {"text": text, "negative": negative}, truncated)

    def finish_reading(self) -> None:
        self.diffusion.finish_reading()

    def decode(self, params: CanvasParams, at: Moment, conditioning: Conditioning | None = None) -> Tensor:
        """See `PromptedCanvas.decode`; it is the same at every step."""
        assert conditioning is not None, "the generator reads prompts"
        text, negative = conditioning["text"], conditioning["negative"]

        def denoise(noisy: Tensor, timesteps: Tensor) -> Tensor:
            output = self.diffusion.output
            return guided_prediction(output, noisy, timesteps, text, negative, self.config.guidance)

        latents = self._sampler(params[NOISE], denoise, self.config.eta, params.get(ADDED), self.config.recompute)
        if self.config.recompute and torch.is_grad_enabled() and latents.requires_grad:
            images = checkpoint(self.autoencoder.decode, latents, use_reentrant=False)
        else:
            images = self.autoencoder.decode(latents)
        return colours(images, self.config.clamp)

    def latent_name(self) -> str:
        return NOISE
