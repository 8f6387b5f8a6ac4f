"""The transform `spectral`: gradients with less of the high frequencies."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from refcore.config.schedule import Schedule
from refcore.contracts.canvas import CanvasParams
from refcore.contracts.transform import Transform
from refcore.errors import RefcoreError
from refcore.moment import Moment
from refcore.plugin import PluginConfig


def amplitudes(height: int, width: int, decay: float, like: Tensor) -> Tensor:
    """[H, W // 2 + 1] `(f0 / max(f, f0))^decay` of each frequency f of an image, where f0 = 1 / max(H, W)."""
    real = like.real.dtype if like.is_complex() else like.dtype
    fy = torch.fft.fftfreq(height, device=like.device, dtype=real)[:, None]
    fx = torch.fft.rfftfreq(width, device=like.device, dtype=real)[None, :]
    lowest = 1 / max(height, width)
    found: Tensor = (lowest / (fy.square() + fx.square()).sqrt().clamp_min(lowest)) ** decay
    return found


def spectrally_scaled(gradient: Tensor, decay: float) -> Tensor:
    """`F^-1 s^2 F g` of gradients [A, C, H, W], s the `amplitudes`.

    A step of plain descent with it is one of descent in the Fourier coefficients z of `x = F^-1 s z`.
    """
    height, width = gradient.shape[-2:]
    spectrum = torch.fft.rfft2(gradient, norm="ortho")
    scale = amplitudes(height, width, decay, gradient).square()
    found: Tensor = torch.fft.irfft2(spectrum * scale, s=(height, width), norm="ortho")
    return found


class Spectral(Transform):
    """A gradient whose high frequencies are damped, as if the image's Fourier coefficients were optimised.

    The preconditioning that lucid's canvas is (Olah et al., Feature Visualization, 2017), for any canvas whose tensors
    are images or latents. Tensors that are no [A, C, H, W] stay as they are.
    """

    class Config(PluginConfig):
        decay: Schedule = Field(
            1.0, ge=0, le=8, description="Power with which amplitudes fall with the frequency; 0: none."
        )

    name = "spectral"
    config: Config

    def apply(self, x: CanvasParams, before: CanvasParams, at: Moment) -> CanvasParams:
        """`F^-1 s^2 F g` of each tensor [A, C, H, W].

        Raises:
            RefcoreError: no tensor of the canvas has rows and columns.
        """
        if not any(value.dim() == 4 for value in x.values()):
            shapes = ", ".join(f"{name} {list(value.shape[1:])}" for name, value in x.items())
            raise RefcoreError(
                f"spectral: no tensor of the canvas has channels, rows and columns ({shapes}); use a canvas of pixels "
                "or latents"
            )
        decay = at.of(self.config.decay)
        changed = {}
        for name, value in x.items():
            wide = value.to(torch.promote_types(value.dtype, torch.float32))
            changed[name] = spectrally_scaled(wide, decay).to(value.dtype) if value.dim() == 4 else value
        return changed
