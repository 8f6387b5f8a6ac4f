"""The `multires` canvas: an image as a sum of tensors at many resolutions, after Direct Ascent Synthesis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from refcore.config.schedule import Schedule
from refcore.contracts.canvas import Canvas, CanvasParams
from refcore.moment import Moment
from refcore.plugin import PluginConfig
from refcore.rng import Rng
from refcore_plugins.models.canvas_size import check_least_side
from refcore_plugins.models.colour_decorrelation import LOGIT_MARGIN, ColourBasis, images_of, logits_of

FIRST = Moment(0, 1)
"""Step 0 of a run of any length."""


class Multires(Canvas):
    """x = sigmoid(s C sum_r g_r up(p_r)), with tensors p_r from `smallest` pixels to full size and colour basis C.

    A gradient step changes every resolution at once, so coarse structure, on which many pixels agree, appears before
    fine structure. A plain pixel canvas has no such preference and fills with high-frequency noise. Source: Fort and
    Whitaker, "Direct Ascent Synthesis" (DAS, arXiv 2502.07753), section 3. The sum is evaluated from coarse to fine,
    upsampling each partial sum to the next resolution, which costs about two full-size upsamplings instead of one per
    resolution; or, as published, by upsampling each tensor to full size.
    """

    class Config(PluginConfig):
        smallest: int = Field(1, ge=1, description="Longer side of the coarsest tensor, in pixels.")
        finest: int | None = Field(
            None,
            ge=1,
            description="Longer side of the finest tensor, in pixels; the sum is enlarged from there, so that a coarse "
            "one leaves strokes and areas, but no grain. null: the image's own.",
        )
        per_octave: float = Field(2.0, gt=0, le=8, description="Resolutions per doubling of the side.")
        step: int | None = Field(
            None,
            ge=1,
            description="Pixels from one side to the next, in place of `per_octave`: the sides are `smallest`, "
            "`smallest` + step, ..., at most `finest`. 1: every size, as in DAS.",
        )
        upsampling: Literal["cascade", "direct"] = Field(
            "cascade",
            description="Bicubic in both. cascade: each partial sum is upsampled to the next resolution. direct: each "
            "tensor is upsampled to full size, as in DAS.",
        )
        gain: Schedule = Field(
            0.0,
            ge=-2,
            le=2,
            description="The amplitude of a tensor with side r is proportional to r ** gain. A schedule from -1 to "
            "0 draws coarse structure first.",
        )
        sharpness: Schedule = Field(
            1.0,
            gt=0,
            le=100,
            description="Factor of the sum before the sigmoid. One that rises well above 1 leaves two tones with "
            "smooth outlines between them, as fine as `finest`. 2 is the activation of DAS, "
            "(tanh(sum + atanh(2 paper - 1)) + 1) / 2.",
        )
        color: ColourBasis | Literal["gray"] = Field(
            "decorrelated", description="Basis in which colours are optimised; gray: one channel for all three."
        )
        paper: float = Field(0.5, gt=0, lt=1, description="Grey of the image where all tensors are 0.")
        noise: float = Field(0.01, ge=0, description="Std of the initial parameters, which differ between seeds.")

        @model_validator(mode="after")
        def _one_spacing(self) -> Self:
            if self.step is not None and self.per_octave != type(self).model_fields["per_octave"].default:
                raise ValueError(f"step is {self.step} and per_octave is {self.per_octave:g}; expected one of them")
            return self

    name = "multires"
    config: Config

    def load(self, device: torch.device, dtype: torch.dtype, size: tuple[int, int] | None = None) -> None:
        """Any size of at least 1x1 pixels; 256x256 by default. `dtype` is ignored: the tensors are float32."""
        self.device = torch.device(device)
        self.size = size if size is not None else (256, 256)
        check_least_side(self.size, 1)
        longest = max(self.size)
        shrunk = min(1.0, (self.config.finest or longest) / longest)
        finest = (max(1, round(self.size[0] * shrunk)), max(1, round(self.size[1] * shrunk)))
        if self.config.step is None:
            self.resolutions = resolutions(finest, self.config.smallest, self.config.per_octave)
        else:
            self.resolutions = evenly_spaced(finest, self.config.smallest, self.config.step)
        self._sum_size = self.size if self.config.upsampling == "direct" else self.resolutions[-1]
        """(height, width) at which the tensors are summed."""
        self._matrices: dict[tuple[torch.dtype, int, int], Tensor] = {}
        """(dtype, side to, side from) -> its `bicubic_matrix`, once used."""
        self._known: dict[float, list[float]] = {}
        """Gain -> the amplitude of each resolution."""
        paper = torch.full((1, 3, 1, 1), self.config.paper, device=self.device)
        self._paper = self._logits_of(paper) / FIRST.of(self.config.sharpness)
        """Added to the sum; [1, 1 or 3, 1, 1]."""
        self._gains(FIRST)  # here, so that a decode reads no tensor back

    def init(self, rng: Rng) -> CanvasParams:
        return {
            _name(level): self.config.noise * rng.normal(self._channels, *side).to(self.device)
            for level, side in enumerate(self.resolutions)
        }

    def decode(self, params: CanvasParams, at: Moment) -> Tensor:
        total = self._sum(params, self._gains(at)) + self._paper
        if self._sum_size != self.size:
            total = _upsample(total, self.size)
        total = at.of(self.config.sharpness) * total
        if self.config.color == "gray":
            return torch.sigmoid(total).expand(-1, 3, -1, -1)
        return images_of(total, self.config.color)

    def encode(self, images: Tensor) -> CanvasParams:
        """Parameters in which each resolution holds the residual of the coarser ones, so that the sum is exact.

        Pixels are kept 0.001 away from black and white. Gains and sharpness are those of step 0, in a run of any
        length. With `finest`, finer detail is lost; with gray, colours are.
        """
        sharpness = FIRST.of(self.config.sharpness)
        target = self._logits_of(images.to(self.device, torch.float32)) / sharpness - self._paper
        params: CanvasParams = {}
        if self.config.upsampling == "direct":
            left = target
            for level, (side, gain) in enumerate(zip(self.resolutions, self._gains(FIRST), strict=True)):
                own = left if side == self.size else F.interpolate(left, side, mode="bilinear", antialias=True)
                params[_name(level)] = own / gain
                left = left - self._upsampled(own, level)
            return params
        total: Tensor | None = None
        for level, (side, gain) in enumerate(zip(self.resolutions, self._gains(FIRST), strict=True)):
            wanted = target if side == self.size else F.interpolate(target, side, mode="bilinear", antialias=True)
            total = torch.zeros_like(wanted) if total is None else _upsample(total, side)
            params[_name(level)] = (wanted - total) / gain
            total = wanted
        return params

    @property
    def _channels(self) -> int:
        return 1 if self.config.color == "gray" else 3

    def _logits_of(self, images: Tensor) -> Tensor:
        if self.config.color == "gray":
            return torch.logit(images.mean(1, keepdim=True), LOGIT_MARGIN)
        return logits_of(images, self.config.color)

    def _gains(self, at: Moment) -> list[float]:
        """The amplitude of each resolution; root mean square 1, so that it does not change the learning rate."""
        gain = at.of(self.config.gain)
        if gain not in self._known:
            gains = torch.tensor([float(max(side)) ** gain for side in self.resolutions])
            self._known[gain] = (gains / gains.square().mean().sqrt()).tolist()
        return self._known[gain]

    def _sum(self, params: CanvasParams, gains: Sequence[float]) -> Tensor:
        if self.config.upsampling == "direct":
            return sum(
                (self._upsampled(gain * params[_name(level)], level) for level, gain in enumerate(gains)),
                torch.zeros((), device=self.device),
            )
        total = gains[0] * params[_name(0)]
        for level, side in enumerate(self.resolutions[1:], start=1):
            total = _upsample(total, side) + gains[level] * params[_name(level)]
        return total

    def _upsampled(self, own: Tensor, level: int) -> Tensor:
        """[B, C, *size] from one resolution: the map is linear along each side, so it is two products of matrices.

        With its backward pass, that takes a quarter of the time of `F.interpolate` for all sizes up to 96, half to 336.
        """
        down, across = (
            self._matrix(to, side, own) for to, side in zip(self.size, self.resolutions[level], strict=True)
        )
        return down @ (own @ across.T)

    def _matrix(self, to: int, side: int, like: Tensor) -> Tensor:
        key = (like.dtype, to, side)
        if key not in self._matrices:
            self._matrices[key] = bicubic_matrix(to, side, like)
        return self._matrices[key]


def resolutions(size: tuple[int, int], smallest: int, per_octave: float) -> list[tuple[int, int]]:
    """(height, width) of each tensor, from coarse to fine, ending in `size`, with its aspect ratio up to rounding."""
    longest = max(size)
    steps = max(0, math.floor(per_octave * math.log2(longest / smallest) + 1e-9)) if longest > smallest else 0
    found: list[tuple[int, int]] = []
    for k in range(steps, -1, -1):
        scale = 2.0 ** (-k / per_octave)
        side = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
        if side not in found:
            found.append(side)
    return found


def evenly_spaced(size: tuple[int, int], smallest: int, step: int) -> list[tuple[int, int]]:
    """(height, width) of tensors whose longer sides are `smallest`, `smallest` + step, ..., at most that of `size`."""
    longest = max(size)
    sides = range(min(smallest, longest), longest + 1, step)
    return [(max(1, round(size[0] * side / longest)), max(1, round(size[1] * side / longest))) for side in sides]


@torch.no_grad()
def bicubic_matrix(to: int, side: int, like: Tensor) -> Tensor:
    """[to, side] weights by which bicubic interpolation makes `to` numbers of `side`; 1s for one, as nearest does."""
    if side == 1:
        return torch.ones(to, 1, dtype=like.dtype, device=like.device)
    unit = torch.eye(side, dtype=like.dtype, device=like.device).view(1, side, side, 1)
    weights: Tensor = F.interpolate(unit, (to, 1), mode="bicubic", align_corners=False)[0, :, :, 0].T
    return weights.contiguous()


def _upsample(total: Tensor, side: tuple[int, int]) -> Tensor:
    return F.interpolate(total, side, mode="bicubic", align_corners=False)


def _name(level: int) -> str:
    return f"level_{level:02d}"
