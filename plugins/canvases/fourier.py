"""Canvas `fourier`: an image as its spectrum, with the 1/f amplitudes and the decorrelated colours of photographs."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from refcore.contracts.canvas import Canvas, CanvasParams
from refcore.errors import RefcoreError
from refcore.plugin import PluginConfig
from refcore.rng import Rng
from refcore_plugins.models.decorrelation import from_rgb, to_rgb

_LOGIT_MARGIN = 1e-3
"""How far from black and white `encode` keeps a pixel, whose logit would be infinite there."""
_CONTRAST = 0.25
"""Scale of the pixels before the colour basis, as in lucid: spectra of std 0.01 decode to a nearly grey image."""


class Fourier(Canvas):
    """x = sigmoid(C irfft2(s * p)), p being real and imaginary parts and s falling as frequency ** -decay.

    Steps of one size in p change low frequencies most, as light does in photographs. Source: Olah et al., "Feature
    Visualization" (Distill 2017), section "Preconditioning and Parameterization"; lucid/optvis/param/spatial.py.
    """

    class Config(PluginConfig):
        decay: float = Field(
            1.0, ge=0, le=3, description="Amplitudes fall as frequency ** -decay; photographs: about 1"
        )
        color: Literal["decorrelated", "rgb"] = Field(
            "decorrelated", description="Basis in which colours are optimised"
        )
        noise: float = Field(0.01, ge=0, description="Std of the fresh spectrum, which differs between seeds")

    name = "fourier"
    config: Config

    def load(self, device: torch.device, dtype: torch.dtype, size: tuple[int, int] | None = None) -> None:
        """Any size of at least two pixels; 256x256 by default. `dtype` is not used: the spectrum is float32."""
        self.device = torch.device(device)
        self.size = size if size is not None else (256, 256)
        height, width = self.size
        if min(self.size) < 2:
            raise RefcoreError(
                f"size {height}x{width} (height x width): each side must be at least 2 pixels; "
                f"the nearest is {max(2, height)}x{max(2, width)}"
            )
        fy = torch.fft.fftfreq(height)[:, None]
        fx = torch.fft.rfftfreq(width)[None, :]
        frequency = (fx.square() + fy.square()).sqrt().clamp(min=1.0 / max(height, width))
        # sqrt(H W) makes the transform's amplitudes, and so a good step size, independent of the size.
        self._scale = (_CONTRAST * (height * width) ** 0.5 * frequency**-self.config.decay).to(device)

    def init(self, rng: Rng) -> CanvasParams:
        height, width = self.size
        return {"spectrum": self.config.noise * rng.normal(3, height, width // 2 + 1, 2).to(self.device)}

    def decode(self, params: CanvasParams) -> Tensor:
        spectrum = self._scale * torch.view_as_complex(params["spectrum"].contiguous())
        logits = torch.fft.irfft2(spectrum, s=self.size)
        return torch.sigmoid(to_rgb(logits) if self.config.color == "decorrelated" else logits)

    def encode(self, images: Tensor) -> CanvasParams:
        """The spectrum of the images' logits; exact but for pixels kept 0.001 away from black and white."""
        logits = torch.logit(images.to(self.device, torch.float32), _LOGIT_MARGIN)
        target = from_rgb(logits) if self.config.color == "decorrelated" else logits
        return {"spectrum": torch.view_as_real(torch.fft.rfft2(target) / self._scale).contiguous()}
