"""The transform `white_noise`: GPER's projection on tensors with the spectrum of white noise."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from refcore.contracts.canvas import CanvasParams
from refcore.contracts.transform import Place, Transform
from refcore.errors import RefcoreError
from refcore.moment import Moment
from refcore.plugin import PluginConfig


def compact_spectrum(x: Tensor) -> Tensor:
    """[A, N / 2] complex spectrum of rows x [A, N], N even: orthonormal, without its redundant half.

    The real numbers at frequency 0 and at the Nyquist frequency are the parts of the first entry, over the root of 2,
    so that every entry of white noise of variance 1 has a mean squared magnitude of 1.
    """
    full = torch.fft.rfft(x, norm="ortho")
    ends = torch.complex(full[:, 0].real, full[:, -1].real) / math.sqrt(2)
    return torch.cat([ends[:, None], full[:, 1:-1]], dim=1)


def from_compact_spectrum(y: Tensor) -> Tensor:
    """The inverse of `compact_spectrum`: [A, N] from [A, N / 2]."""
    ends = y[:, :1] * math.sqrt(2)
    zero = torch.zeros_like(ends.real)
    full = torch.cat([torch.complex(ends.real, zero), y[:, 1:], torch.complex(ends.imag, zero)], dim=1)
    found: Tensor = torch.fft.irfft(full, n=2 * y.shape[1], norm="ortho")
    return found


def projected_magnitudes(m: Tensor) -> Tensor:
    """The nearest magnitudes to m [..., B] >= 0 that sum to sqrt(pi) B / 2 and whose squares sum to B.

    These are what the magnitudes of white noise, which have a Rayleigh distribution, sum to on average. With the j
    largest kept, the nearest are `s max(m - l, 0)`, where `l = (S1 - sqrt(g / (j - g) (j S2 - S1^2))) / j`, S1 and S2
    are the sums of the j largest and of their squares, g = pi B / 4, and s makes the sum of squares B. Of all j the one
    is right at which l lies between the j-th and the next magnitude. Blocks whose magnitudes are all equal, for which
    there is no nearest, are only scaled; blocks of 0 stay.
    """
    block = m.shape[-1]
    g = math.pi * block / 4
    largest = m.amax(-1, keepdim=True)
    unit = m / largest.where(largest > 0, 1.0)  # squares of small gradients would vanish
    sorted_, _ = unit.sort(dim=-1, descending=True)
    s1, s2 = sorted_.cumsum(-1), sorted_.square().cumsum(-1)
    j = torch.arange(1, block + 1, device=m.device, dtype=m.dtype)
    able = j > g
    spread = (j * s2 - s1.square()).clamp_min(0)
    threshold = (s1 - (g / (j - g).where(able, 1.0) * spread).sqrt()) / j
    next_one = torch.cat([sorted_[..., 1:], torch.full_like(sorted_[..., :1], -math.inf)], dim=-1)
    right = able & (threshold < sorted_) & (threshold >= next_one)
    first = right.to(m.dtype).argmax(-1, keepdim=True)
    kept = (unit - threshold.gather(-1, first)).clamp_min(0)
    kept = kept.where(right.any(-1, keepdim=True), unit)
    norm = kept.square().sum(-1, keepdim=True).sqrt()
    return kept * (math.sqrt(block) / norm.where(norm > 0, 1.0))


def white(x: Tensor, block: int) -> Tensor:
    """The nearest rows to x [A, N] whose spectrum has, in each block of frequencies, the magnitudes of white noise.

    Args:
        x: rows; N is a multiple of 2 * block.
        block: number of neighbouring frequencies whose sum of magnitudes and of squares is prescribed.
    """
    y = compact_spectrum(x)
    blocks = y.view(len(y), -1, block)
    magnitude = blocks.abs()
    phase = blocks / magnitude.where(magnitude > 0, 1.0)
    return from_compact_spectrum((phase * projected_magnitudes(magnitude)).view_as(y))


class WhiteNoise(Transform):
    """A gradient, or a latent, with the spectrum of white noise, tensor by tensor.

    Each sample's tensor is flattened, and its spectrum cut into blocks of neighbouring frequencies, in each of which
    the magnitudes get the mean and mean square that white noise has; phases stay. So noise that is optimised stays
    noise, without a weight to tune. A zero tensor stays zero. Source: GPER (Hwang and Sung, arXiv
    2602.08646), which projects each reward's gradient, and the latent.
    """

    class Config(PluginConfig):
        block: int = Field(16, ge=4, le=4096, description="Number of neighbouring frequencies in a block.")

    name = "white_noise"
    places: ClassVar[tuple[Place, ...]] = ("gradient", "terms", "parameters")
    config: Config

    def apply(self, x: CanvasParams, before: CanvasParams, at: Moment) -> CanvasParams:
        """The projection; computed in float32, or float64 for float64.

        Raises:
            RefcoreError: a tensor has a number of elements that is no multiple of 2 * block.
        """
        changed = {}
        for name, value in x.items():
            count = value[0].numel()
            if count % (2 * self.config.block):
                raise RefcoreError(
                    f'white_noise: the tensor "{name}" has {count} elements a sample, no multiple of twice the block, '
                    f"{2 * self.config.block}; expected a smaller block, or another size of the image"
                )
            flat = value.flatten(1).to(torch.promote_types(value.dtype, torch.float32))
            changed[name] = white(flat, self.config.block).view_as(value).to(value.dtype)
        return changed
