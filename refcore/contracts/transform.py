"""The contract of a transform: a change of gradients on their way to the optimiser, or of the parameters after it."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

from refcore.contracts.canvas import CanvasParams
from refcore.moment import Moment
from refcore.plugin import Kind, Plugin

Place = Literal["terms", "gradient", "parameters"]
"""Where a transform stands: each term's gradient before they are combined, the combined gradient, or the parameters
after the optimiser's update."""


class Transform(Plugin):
    """A change of gradients or parameters that needs nothing but them. Samples do not interact in it.

    Gradients are those at the canvas's parameters, with the terms' weights, as they have been pulled back.
    """

    kind: ClassVar[Kind] = "transforms"
    facts: ClassVar[tuple[str, ...]] = ("places",)
    usage: ClassVar[str] = "transforms:\n  - name: NAME\n    config: {}"
    places: ClassVar[tuple[Place, ...]] = ("gradient", "terms")
    """Where it may stand; the first one is where it stands if the config does not say."""

    @abstractmethod
    def apply(self, x: CanvasParams, before: CanvasParams, at: Moment) -> CanvasParams:
        """`x` changed: the same names, shapes and dtypes. Zero gradients stay zero.

        Args:
            x: each tensor [A, ...], one row per track: a gradient, or the parameters after an update.
            before: the parameters before the update, each tensor [A, ...].
            at: the step.

        Raises:
            RefcoreError: a tensor has a shape that it does not support; the message names the tensor.
        """
