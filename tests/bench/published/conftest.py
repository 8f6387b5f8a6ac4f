"""A metric of the tests in place of a benchmark's own, and images that say by their brightness how good they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import Field

from refcore import registry
from refcore.contracts.metric import BenchmarkPrompt, Measurement, Metric
from refcore.plugin import PluginConfig
from refcore_bench import making
from refcore_bench.evaluations import KINDS


class Brightness(Metric):
    """Mean level of the picture, times a gain."""

    unit = "mean level, 0 to 1"

    class Config(PluginConfig):
        gain: float = Field(1.0, description="Factor.")

    def load(self, device, dtype):
        self.loaded_on = device

    def measure(self, images, prompts):
        for prompt in prompts:
            assert isinstance(prompt, BenchmarkPrompt)
        assert self.loaded_on == torch.device("cpu")
        return [
            Measurement(self.config.gain * float(image.mean()) / 255, {"red": float(image[..., 0].mean()) / 255})
            for image in images
        ]

    def remarks(self, prompts):
        return [f"{len(prompts)} prompts were asked."]


@pytest.fixture(autouse=True)
def brightness():
    """Registered as `brightness`."""
    registry.register("metrics", "brightness", Brightness, "of the tests")


@pytest.fixture
def grey(monkeypatch):
    """Every batch is grey pictures, as bright as the variant's name and the seed say; the list of what was made."""
    made = []

    def make(variant, prompts, seed, budget=None, models=None):
        made.extend((variant.name, prompt, seed) for prompt in prompts)
        level = {"dark": 51, "bright": 204}[variant.name] + seed
        pictures = [np.full((8, 8, 3), level, np.uint8)] * len(prompts)
        return making.Made(pictures, {}, 2, 0.5, 0.1, dict.fromkeys(KINDS, 1.0))

    monkeypatch.setattr(making, "make", make)
    return made
