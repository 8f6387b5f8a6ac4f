"""The transforms `clip`, `normalize` and `renormalize`: norms of a sample, over all of its tensors or each of them."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor, cat

from refcore.config.schedule import LARGEST, Schedule
from refcore.contracts.canvas import CanvasParams
from refcore.contracts.transform import Place, Transform
from refcore.moment import Moment
from refcore.plugin import PluginConfig


def norm_of(x: CanvasParams) -> Tensor:
    """[A] Euclidean norm of each row over all tensors [A, ...]."""
    norm: Tensor = cat([value.flatten(1) for value in x.values()], dim=1).norm(dim=1)
    return norm


def scaled(x: CanvasParams, factor: Tensor) -> CanvasParams:
    """Each row of tensors [A, ...] times its factor [A]."""
    return {name: value * factor.view(-1, *[1] * (value.dim() - 1)) for name, value in x.items()}


def clipped(x: CanvasParams, limit: float) -> CanvasParams:
    """`g min(1, limit / |g|)`, |g| over all tensors of a row."""
    return scaled(x, limit / norm_of(x).clamp_min(limit))


def normalized(x: CanvasParams, length: float = 1.0) -> CanvasParams:
    """`length g / |g|`, |g| over all tensors of a row; zero rows stay."""
    norm = norm_of(x)
    return scaled(x, length / norm.where(norm > 0, 1.0))


class Clip(Transform):
    """A gradient no longer than a norm, for each sample.

    On terms with a small limit every term has an equal vote: CARINOX (arXiv 2509.17458) clips each reward's gradient,
    then their sum, to 0.1, as ReNO (arXiv 2406.04312) does with the sum alone.
    """

    class Config(PluginConfig):
        norm: Schedule = Field(1.0, gt=0, le=LARGEST, description="Maximum norm, over all tensors of a sample.")

    name = "clip"
    config: Config

    def apply(self, x: CanvasParams, before: CanvasParams, at: Moment) -> CanvasParams:
        """`g min(1, norm / |g|)`."""
        return clipped(x, at.of(self.config.norm))


class Normalize(Transform):
    """A gradient of a given norm, for each sample; a gradient of 0 stays 0."""

    class Config(PluginConfig):
        norm: Schedule = Field(1.0, gt=0, le=LARGEST, description="Norm, over all tensors of a sample.")

    name = "normalize"
    config: Config

    def apply(self, x: CanvasParams, before: CanvasParams, at: Moment) -> CanvasParams:
        """`norm g / |g|`."""
        return normalized(x, at.of(self.config.norm))


class Renormalize(Transform):
    """The norm of each tensor after an update, brought back to what it was, as DOODL does with its latent.

    The norm of the start is kept through the run. Source: Wallace et al., DOODL (arXiv 2303.13703).
    """

    name = "renormalize"
    places: ClassVar[tuple[Place, ...]] = ("parameters",)

    def apply(self, x: CanvasParams, before: CanvasParams, at: Moment) -> CanvasParams:
        """`z |z_before| / |z|`, for each tensor of each sample; a tensor that was or is 0 stays as it is."""
        changed: CanvasParams = {}
        for name, value in x.items():
            now, then = value.flatten(1).norm(dim=1), before[name].flatten(1).norm(dim=1)
            factor = (then / now.where(now > 0, 1.0)).where((now > 0) & (then > 0), 1.0)
            changed |= scaled({name: value}, factor)
        return changed
