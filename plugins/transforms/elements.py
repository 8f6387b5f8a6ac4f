"""The transforms `clamp` and `sign`, which change every element by itself."""

from __future__ import annotations

from pydantic import Field

from refcore.config.schedule import LARGEST, Schedule
from refcore.contracts.canvas import CanvasParams
from refcore.contracts.transform import Transform
from refcore.moment import Moment
from refcore.plugin import PluginConfig


class Clamp(Transform):
    """Every element of a gradient within a limit, as DOODL (arXiv 2303.13703) clips its gradient to 0.001."""

    class Config(PluginConfig):
        limit: Schedule = Field(1e-3, gt=0, le=LARGEST, description="Largest magnitude of an element.")

    name = "clamp"
    config: Config

    def apply(self, x: CanvasParams, before: CanvasParams, at: Moment) -> CanvasParams:
        """`min(max(g, -limit), limit)`."""
        limit = at.of(self.config.limit)
        return {name: value.clamp(-limit, limit) for name, value in x.items()}


class Sign(Transform):
    """The sign of every element: with `sgd`, steps of one size everywhere (sign SGD; Bernstein et al., 1802.04434)."""

    name = "sign"

    def apply(self, x: CanvasParams, before: CanvasParams, at: Moment) -> CanvasParams:
        """`sign(g)`."""
        return {name: value.sign() for name, value in x.items()}
