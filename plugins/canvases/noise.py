"""The `noise` canvas: the image is what a generator makes of optimised noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from refcore.checkpoints import Download
from refcore.contracts.canvas import CanvasParams, PromptedCanvas
from refcore.contracts.conditioning import Conditioning
from refcore.errors import RefcoreError
from refcore.moment import Moment
from refcore.plugin import PluginConfig
from refcore.rng import Rng
from refcore_plugins.models.autoencoder import Clamp, colours
from refcore_plugins.models.diffusers_folder import PARTS, DiffusersFolder, generator_download
from refcore_plugins.models.generators import load_generator
from refcore_plugins.models.generators.generator import Generator, Sources
from refcore_plugins.models.sampler import Method, Sampler, Spacing

NOISE, ADDED = "noise", "step_noise"
"""Names of the parameters: the start's noise [B, C, h, w], and with `eta` the noise that the steps add
[B, steps, C, h, w]."""
MEAN, LOG_VARIANCE = "mean", "log_variance"
"""Names of what is learned about the noise with `parameters: mean_variance`, each of its shape."""
NEGATIVE = "negative_"
"""What the names of the negative prompt's features begin with."""
WEIGHTS = "diffusion_pytorch_model.safetensors"
WITH_TIMESTEPS: tuple[Method, ...] = ("euler", "lcm", "ddpm", "own")
"""Samplers that take timesteps from elsewhere."""


class Noise(PromptedCanvas):
    """The noise of a short sampler: `image = (decode(sample(noise)) + 1) / 2`, clamped to [0, 1].

    With one step of a one-step generator this is ReNO's canvas (arXiv 2406.04312), with the steps of EDICT that of
    DOODL (2303.13703), and with `eta: 1` that of DNO (2405.18881), where the noise of all steps is optimised. The
    generator reads the prompt (`canvas.prompt`), which may be empty. Pictures stay ones that the generator makes.
    """

    class Config(PluginConfig):
        checkpoint_fields = ("model", "denoiser", "vae")
        model: str = Field(
            "playground:diffusion",
            description="Generator: folder in diffusers' layout, hub id, playground:diffusion or "
            "playground:turbo. Stable Diffusion 1.x, 2.x, Turbo, SDXL, PixArt-alpha, SANA-Sprint or FLUX.1.",
        )
        denoiser: str | None = Field(
            None,
            description="UNet or transformer in place of the model's: folder or hub id, or a safetensors file of its "
            "weights.",
        )
        denoiser_file: str | None = Field(
            None,
            min_length=1,
            description="Safetensors file in `denoiser` with the weights alone; the settings are the model's.",
        )
        vae: str | None = Field(None, description="Autoencoder in place of the model's: folder or hub id.")
        steps: int = Field(1, ge=1, le=1000, description="Number of sampling steps; each is differentiated through.")
        timesteps: list[Annotated[int, Field(ge=0)]] | None = Field(
            None, min_length=1, description="Timesteps, falling, one for each step; null: evenly spaced from the last."
        )
        sampler: Method = Field(
            "ddim",
            description="ddim; edict, the invertible sampler of two coupled latents (arXiv 2211.12446), the first of "
            "which is decoded; euler, which for one step is also euler_ancestral; lcm, for consistency models; ddpm; "
            "or own: the scheduler of the model's folder, the only one of SANA-Sprint and FLUX.1.",
        )
        spacing: Spacing = Field(
            "trailing",
            description="Places of the timesteps. trailing: the first step is at the last timestep. leading: the last "
            "one is near timestep 0, as Stable Diffusion 1.x is sampled by default. The sampler own has its own.",
        )
        mix: float = Field(
            0.93,
            gt=0.5,
            lt=1,
            description="Weight of each latent in its own mixture, of edict: 0.93 for 50 steps, 0.7 for 20, 0.6 for "
            "10; with a higher one the two latents part.",
        )
        eta: float = Field(
            0.0,
            ge=0,
            le=1,
            description="Noise that each step of ddim but the last adds: 0 none, 1 that of DDPM. It is optimised, too.",
        )
        parameters: Literal["noise", "mean_variance"] = Field(
            "noise",
            description="What is optimised. noise: the noise. mean_variance: mean and log variance of each of its "
            "elements, both from 0, as in InitNO; the noise drawn at the start is then scaled and shifted by them.",
        )
        guidance: float = Field(
            1.0,
            ge=0,
            le=1000,
            description="Guidance scale; 1: the prompt alone, without guidance. A network with a guidance embedding, "
            "as SANA-Sprint's, is told it.",
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
            "memory of one step, and of a single step and the decoder that of one block, at the price of a second "
            "evaluation of each.",
        )
        dtype: Literal["float32", "float64", "bfloat16", "float16"] | None = Field(
            None, description="Dtype of the generator's weights; null: that of the run. Noise and images are float32."
        )

        @model_validator(mode="after")
        def _sensible(self) -> Self:
            if self.eta and self.sampler != "ddim":
                raise ValueError(f"eta is {self.eta}, which only ddim has; sampler is {self.sampler}")
            if self.denoiser_file is not None and self.denoiser is None:
                raise ValueError(f'denoiser_file is "{self.denoiser_file}", but denoiser, which has it, is not given')
            if self.eta and self.parameters != "noise":
                raise ValueError(f"eta is {self.eta}, but parameters is {self.parameters}; expected noise")
            if self.timesteps is not None:
                if self.sampler not in WITH_TIMESTEPS:
                    raise ValueError(
                        f"timesteps are given, but {self.sampler} has its own; "
                        f"expected sampler {', '.join(WITH_TIMESTEPS)}"
                    )
                if len(self.timesteps) != self.steps:
                    raise ValueError(f"{len(self.timesteps)} timesteps are given; expected {self.steps}, one a step")
                if sorted(set(self.timesteps), reverse=True) != self.timesteps:
                    raise ValueError(f"timesteps are {self.timesteps}; expected falling ones")
            return self

    name = "noise"
    config: Config
    generator: Generator

    def downloads(self) -> dict[str, Download]:
        """See `Plugin.downloads`: of each repository, what the generator's components are read from."""
        own, found = self.config, {}
        replaced = frozenset(part for part, other in (("unet", own.denoiser), ("vae", own.vae)) if other is not None)
        for name in super().downloads():
            if name == own.model:
                found[name] = generator_download(name, replaced)
            elif name == own.vae:
                wanted = ("config.json", "vae/config.json", f"vae/{WEIGHTS}", WEIGHTS)
                found[name] = Download(wanted, {part: n for part, n in PARTS.get(name, {}).items() if part == "vae"})
            else:
                networks = {part: n for part, n in PARTS.get(name, {}).items() if part in ("unet", "transformer")}
                files = ("*.json", "unet/*.safetensors", "transformer/*.safetensors")
                found[name] = Download(files if own.denoiser_file is None else (own.denoiser_file,), networks)
        return found

    def load(self, device: torch.device, dtype: torch.dtype, size: tuple[int, int] | None = None) -> None:
        own, self.device = self.config, torch.device(device)
        dtype = dtype if own.dtype is None else getattr(torch, own.dtype)
        sources = Sources(DiffusersFolder(own.model), own.denoiser, own.denoiser_file, own.vae)
        self.generator = load_generator(sources, self.device, dtype, size, own.guidance)
        self.size, self.latent_space = self.generator.size, self.generator.space
        self._guidance = 1.0 if self.generator.embeds_guidance else own.guidance
        if own.negative_prompt and self._guidance == 1:
            raise RefcoreError(
                f'negative_prompt is "{own.negative_prompt}", which has no effect: '
                + (
                    f'"{own.model}" is told the guidance scale, and makes no second prediction'
                    if self.generator.embeds_guidance
                    else "guidance is 1; expected another"
                )
            )
        self._sampler = Sampler(self.generator, own.sampler, own.steps, own.timesteps, own.spacing, own.mix)
        if own.recompute and own.steps == 1:
            self.generator.recompute_blocks()

    def init(self, rng: Rng) -> CanvasParams:
        shape = self.generator.noise_shape()
        params = {NOISE: rng.normal(*shape).to(self.device)}
        if self.config.eta:
            params[ADDED] = rng.normal(self.config.steps, *shape).to(self.device)
        if self.config.parameters == "mean_variance":
            params |= {name: torch.zeros_like(params[NOISE]) for name in (MEAN, LOG_VARIANCE)}
        return params

    def read(self, prompts: Sequence[str]) -> Conditioning:
        """Features of the prompts [P, ...], `text` among them, and with guidance those of the negative prompt."""
        features = self.generator.encode(prompts)
        if self._guidance != 1:
            negative = self.generator.encode_negative(self.config.negative_prompt)
            features |= {
                NEGATIVE + name: value.expand(len(prompts), *value.shape[1:]) for name, value in negative.items()
            }
        truncated = tuple(self.generator.truncated(prompt) for prompt in prompts)
        return Conditioning(tuple(prompts), features, truncated)

    def finish_reading(self) -> None:
        self.generator.finish_reading()

    def decode(
        self, params: CanvasParams, at: Moment, conditioning: Conditioning | None = None, rng: Rng | None = None
    ) -> Tensor:
        """See `PromptedCanvas.decode`; it is the same at every step."""
        assert conditioning is not None, "the generator reads prompts"
        own, given = self.config, conditioning.tensors
        text = {name: value for name, value in given.items() if not name.startswith(NEGATIVE)}
        negative = {name: given[NEGATIVE + name] for name in text} if self._guidance != 1 else None

        def denoise(noisy: Tensor, timesteps: Tensor) -> Tensor:
            return self.generator.guided(noisy, timesteps, text, negative, self._guidance)

        step_by_step = own.recompute and own.steps > 1
        latents = self._sampler(noise_of(params), denoise, own.eta, params.get(ADDED), step_by_step, rng)
        if own.recompute and torch.is_grad_enabled() and latents.requires_grad:
            images = self.generator.decode_by_blocks(latents)
        else:
            images = self.generator.decode(latents)
        return colours(images, own.clamp)

    def latent_name(self) -> str | None:
        return NOISE if self.config.parameters == "noise" else None


def noise_of(params: CanvasParams) -> Tensor:
    """The noise that the sampler starts from: with mean and log variance `eps exp(log_variance / 2) + mean`.

    InitNO (arXiv 2404.04650), section 3.3. eps, the noise that was drawn, is then no parameter and has no gradient.
    """
    if MEAN not in params:
        return params[NOISE]
    return params[NOISE].detach() * (params[LOG_VARIANCE] / 2).exp() + params[MEAN]
