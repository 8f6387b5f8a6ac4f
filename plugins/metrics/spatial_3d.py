"""The `3d-owlv2` metric: T2I-CompBench's order in depth, with an open-vocabulary detector and a depth model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field

from refcore.contracts.metric import BenchmarkPrompt, Measurement
from refcore.images import Levels
from refcore_plugins.metrics.box_metric import LONGER, SHORTER, STAND_IN
from refcore_plugins.metrics.box_scores import (
    DEPTH_WORDS,
    Order,
    depth_order,
    highest,
    last_before_both,
    mean_depth,
    order_of,
    spatial_3d,
)
from refcore_plugins.metrics.nouns import PEOPLE, UNLISTED_3D, scorable
from refcore_plugins.metrics.two_things import TwoThings
from refcore_plugins.models.depth import Nearness, read_back
from refcore_plugins.models.detections import iou, resized_to


class Spatial3d(TwoThings):
    """Whether one thing is in front of another: T2I-CompBench++'s 3-D score (arXiv 2307.06350), by another detector.

    Score = 0.25 s1 + 0.25 s2 + 0.5 order: the mean nearness in the box of the first thing is larger, or smaller, than
    in that of the last, and their boxes overlap. Nothing is cut. The depth model is the published one, MiDaS.
    """

    class Config(TwoThings.Config):
        checkpoint_fields: ClassVar[tuple[str, ...]] = ("model", "depth")
        depth: str = Field(
            "Intel/dpt-hybrid-midas",
            description="A DPT, Depth Anything or Depth Pro of transformers: hub id or folder.",
        )
        depth_side: int | None = Field(
            480,
            ge=32,
            multiple_of=32,
            description="Side in pixels of the square that a DPT sees; its own checkpoint is of 384.",
        )
        matching: Literal["last", "best"] = Field(
            "last",
            description="last: of the boxes whose label contains the noun, the last before both things are found, as "
            "published. best: the one of the highest score whose label equals it.",
        )
        transposed: bool = Field(
            True, description="Whether the depth map is indexed [x, y], the mistake of the published code."
        )

    name = "3d-owlv2"
    unit = "share of boxes and order, 0 to 1"
    renamed: ClassVar[Mapping[str, str]] = PEOPLE
    unlisted: ClassVar[Sequence[str]] = UNLISTED_3D

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """See `Metric.load`."""
        super().load(device, dtype)
        self.nearness = Nearness(self.name, self.config.depth, device, dtype, self.config.depth_side)

    def one(self, image: Levels, prompt: BenchmarkPrompt) -> Measurement:
        """See `BoxMetric.one`."""
        first, second, order = self.read(prompt)
        found, names = self.look_for(image, (first, second)), (self.name_of(first), self.name_of(second))
        a, b = (
            last_before_both(found, *names)
            if self.config.matching == "last"
            else (highest(found, names[0]), highest(found, names[1]))
        )
        parts = {f"{first} (first)": a.score if a else 0.0, f"{second} (last)": b.score if b else 0.0}
        holds = 0.0
        if a is not None and b is not None:
            factor = resized_to(image.shape[0], image.shape[1], SHORTER, LONGER)
            height, width = (round(side * factor) for side in image.shape[:2])
            depth = read_back(self.nearness(image), image.shape[:2], (height, width))
            near = [mean_depth(depth, one.box, self.config.transposed) for one in (a, b)]
            overlap = iou(a.box, b.box)
            holds = depth_order(near[0], near[1], overlap, order)
            parts |= {"overlap": overlap}
            if not any(map(math.isnan, near)):
                parts |= {"nearness (first)": near[0], "nearness (last)": near[1]}
        return Measurement(spatial_3d(a, b, holds), {**parts, order: holds})

    def read(self, prompt: BenchmarkPrompt) -> tuple[str, str, Order]:
        """First and last noun of a prompt, and the order in depth of the first to the last.

        Raises:
            RefcoreError: it has no noun, or no order.
        """
        order = order_of(prompt.text)
        if order is None:
            raise self.cannot(prompt, f"expected one of {', '.join(word for word, _ in DEPTH_WORDS)}")
        return *self.first_and_last(prompt), order

    def remarks(self, prompts: Sequence[BenchmarkPrompt]) -> list[str]:
        """How many of the prompts the published detector's list of labels could score."""
        if not prompts:
            return []
        can = scorable([self.first_and_last(prompt) for prompt in prompts], self.unlisted)
        return [
            f"the label list of the published detector can score {can:,} of these {len(prompts):,} prompts in full: "
            f"no label of it contains {' or '.join(self.unlisted)}",
            STAND_IN,
        ]
