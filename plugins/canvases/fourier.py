"""The `fourier` canvas: an image by its Fourier spectrum, with 1/f amplitudes and decorrelated colours."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from refcore.contracts.canvas import Canvas, CanvasParams
from refcore.moment import Moment
from refcore.plugin import PluginConfig
from refcore.rng import Rng
from refcore_plugins.models.canvas_size import check_least_side
from refcore_plugins.models.colour_decorrelation import ColourBasis, images_of, logits_of

_CONTRAST = 0.25
"""Scale of the pixels before the colour basis, as in lucid; spectra of std 0.01 decode to a nearly grey image."""


class Fourier(Canvas):
    """x = sigmoid(C irfft2(s * p)), with p the real and imaginary parts and s proportional to frequency ** -decay.

    A step in p changes low frequencies most, which dominate photographs, too. Source: Olah et al., "Feature
    Visualization" (Distill 2017), section "Preconditioning and Parameterization"; lucid/optvis/param/spatial.py.
    """

    class Config(PluginConfig):
        decay: float = Field(
            1.0, ge=0, le=3, description="Amplitudes are proportional to frequency ** -decay; about 1 in photographs."
        )
        color: ColourBasis = Field("decorrelated", description="Basis in which colours are optimised.")
        noise: float = Field(0.01, ge=0, description="Std of the initial spectrum, which differs between seeds.")

    name = "fourier"
    config: Config

    def load(self, device: torch.device, dtype: torch.dtype, size: tuple[int, int] | None = None) -> None:
        """Any size of at least 2x2 pixels; 256x256 by default. `dtype` is ignored: the spectrum is float32."""
        self.device = torch.device(device)
        self.size = size if size is not None else (256, 256)
        height, width = self.size
        check_least_side(self.size, 2)
        fy = torch.fft.fftfreq(height)[:, None]
        fx = torch.fft.rfftfreq(width)[None, :]
        frequency = (fx.square() + fy.square()).sqrt().clamp(min=1.0 / max(height, width))
        # sqrt(H W) makes the transform's amplitudes, and so a good learning rate, independent of the size.
        self._scale = (_CONTRAST * (height * width) ** 0.5 * frequency**-self.config.decay).to(device)

    def init(self, rng: Rng) -> CanvasParams:
        height, width = self.size
        return {"spectrum": self.config.noise * rng.normal(3, height, width // 2 + 1, 2).to(self.device)}

    def decode(self, params: CanvasParams, at: Moment) -> Tensor:
        spectrum = self._scale * torch.view_as_complex(params["spectrum"].contiguous())
        return images_of(torch.fft.irfft2(spectrum, s=self.size), self.config.color)

    def encode(self, images: Tensor) -> CanvasParams:
        """The spectrum of the images' logits; exact, except that pixels are kept 0.001 away from black and white."""
        target = logits_of(images.to(self.device, torch.float32), self.config.color)
        return {"spectrum": torch.view_as_real(torch.fft.rfft2(target) / self._scale).contiguous()}
