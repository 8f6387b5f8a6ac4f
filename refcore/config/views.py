"""Groups of random views of the image that referees judge."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from refcore.config.section import Section
from refcore.config.terms import PluginUse

CLEAN = "clean"
"""The view group that always exists: one view, the unchanged image."""


class ViewGroup(Section):
    """Random views of the image, judged by one or more referees."""

    count: int = Field(
        8,
        ge=1,
        le=10_000,
        description="Views per sample and step; at most 10,000, since every step judges all of them.",
    )
    hardest: int | None = Field(
        None, ge=1, description="Only this many views, those with the highest loss, get gradients; null: all."
    )
    augment: list[PluginUse] = Field(
        default_factory=list,
        description="Augmentations. The geometric ones are applied first, in order, as a single resampling of the "
        "image; then the others, in order.",
    )
    padding: Literal["zeros", "ones", "border", "reflection"] = Field(
        "zeros", description="Pixels outside the image: black, white, the nearest edge pixel, or the mirror image."
    )
    fit: Literal["stretch", "crop", "pad"] = Field(
        "stretch",
        description="Fit of an image whose aspect ratio differs from the referee's input: stretched, cropped at the "
        "centre, or padded by `padding`.",
    )
    shrink: Literal["antialias", "pool"] = Field(
        "antialias",
        description="Downscaling of a large image to about the referee's input size: antialiased bicubic, or the mean "
        "of average and max pooling, as in the paper's code.",
    )

    @model_validator(mode="after")
    def _enough_views(self) -> Self:
        if self.hardest is not None and self.hardest > self.count:
            raise ValueError(f"hardest is {self.hardest}, but count is only {self.count}; expected at most count")
        return self
