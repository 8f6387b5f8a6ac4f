"""Groups of random views of the image that referees judge."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from refcore.config.section import Section
from refcore.config.terms import PluginUse

CLEAN = "clean"
"""The view group that is always there: the whole image, once, as it is."""


class ViewGroup(Section):
    """Random views of the image that one or several terms judge."""

    count: int = Field(8, ge=1, description="Views per sample and step.")
    hardest: int | None = Field(
        None, ge=1, description="Only this many views, those of highest loss, get gradients; null or `count` for all."
    )
    augment: list[PluginUse] = Field(
        default_factory=list,
        description="Augmentations. The geometric ones are applied first, in order, as one resampling of the image; "
        "then the others, in order.",
    )
    padding: Literal["zeros", "border", "reflection"] = Field(
        "zeros", description="What lies outside the image: black, its edge repeated, or its mirror image."
    )
    fit: Literal["stretch", "crop", "pad"] = Field(
        "stretch",
        description="How an image of another aspect than the referee's input becomes a view: stretched to it, its "
        "middle cut out, or the whole of it with `padding` beside it.",
    )
    shrink: Literal["antialias", "pool"] = Field(
        "antialias",
        description="How a large image is brought near the referee's input size: antialiased bicubic, or the mean of "
        "average and max pooling, as the paper's code does.",
    )

    @model_validator(mode="after")
    def _enough_views(self) -> Self:
        if self.hardest is not None and self.hardest > self.count:
            raise ValueError(f"hardest is {self.hardest}, but count is only {self.count}; expected at most count")
        return self
