"""Stable Diffusion 1.x, 2.x and Turbo as a generator."""

from __future__ import annotations

from collections.abc import Sequence

from diffusers.models import UNet2DConditionModel
from torch import Tensor

from refcore_plugins.models.autoencoder import load_autoencoder
from refcore_plugins.models.generators.generator import Generator, Text
from refcore_plugins.models.stable_diffusion import StableDiffusion


class StableDiffusionGenerator(Generator):
    """`StableDiffusion` and its autoencoder. Its text is the last layer of one CLIP."""

    def _load(self) -> None:
        unet = None
        if self.sources.denoiser is not None:
            unet = self.sources.network(UNet2DConditionModel, self.component, self.dtype)
        self._diffusion = StableDiffusion(self.folder, self.device, self.dtype, unet)
        self.network = self._diffusion.unet
        self.schedule = {**self.schedule, "prediction_type": self._diffusion.prediction}
        self.autoencoder = load_autoencoder(self.sources.autoencoder(), self.device, self.dtype)

    @property
    def default_size(self) -> tuple[int, int]:
        side = self.network.config.sample_size
        if isinstance(side, int):
            return (side * self.autoencoder.factor,) * 2
        size: tuple[int, int] = self.autoencoder.default_size
        return size

    def _check_size(self) -> None:
        self.autoencoder.check_size(self.size)

    def encode(self, prompts: Sequence[str]) -> Text:
        return {"text": self._diffusion.encode_text(prompts)}

    def truncated(self, prompt: str) -> str:
        return self._diffusion.truncated(prompt)

    def finish_reading(self) -> None:
        self._diffusion.finish_reading()

    def denoise(self, noisy: Tensor, timesteps: Tensor, text: Text) -> Tensor:
        return self._diffusion.output(noisy, timesteps, text["text"])
