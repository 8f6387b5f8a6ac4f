"""Checks of a metric against `refcore.contracts.metric.Metric`."""

from __future__ import annotations

import math

import numpy as np

from refcore.contracts.metric import BenchmarkPrompt, Measurement
from refcore.errors import RefcoreError
from refcore.images import Levels
from refcore.testing.case import Case, Failed, global_randomness_untouched, require

SIDES = ((48, 64), (64, 48), (64, 64))
"""(height, width) of the images in turn; a metric takes any."""
NEAR = 1e-4
"""Difference allowed in the value of an image that is measured beside others."""


def _images(count: int) -> list[Levels]:
    """Images of noise, of different sizes."""
    draw = np.random.default_rng(0)
    return [draw.integers(0, 256, (*SIDES[i % len(SIDES)], 3), dtype=np.uint8) for i in range(count)]


def measures(case: Case) -> None:
    """Every image has a finite value, made of finite parts; images and prompts stay as they were."""
    metric, prompts = case.loaded(), _prompts(case)
    images = _images(len(prompts))
    before = [image.copy() for image in images]
    found = metric.measure(images, prompts)
    require(len(found) == len(images), f"measure returns {len(found)} values for {len(images)} images")
    for one in found:
        require(isinstance(one, Measurement), f"measure returns {type(one).__name__}; expected a Measurement")
        numbers = [one.value, *one.parts.values()]
        require(all(math.isfinite(number) for number in numbers), f"{one} is not finite")
    unchanged = all(np.array_equal(image, was) for image, was in zip(images, before, strict=True))
    require(unchanged, "measure changed an image in place; work on a copy")
    require(metric.measure([], []) == [], "measure of no image is not an empty list")


def no_dependence_on_batch_mates(case: Case) -> None:
    """An image alone has the value that it has beside others."""
    metric, prompts = case.loaded(), _prompts(case)
    images = _images(len(prompts))
    together = metric.measure(images, prompts)
    for i, (image, prompt) in enumerate(zip(images, prompts, strict=True)):
        (alone,) = metric.measure([image], [prompt])
        require(
            abs(alone.value - together[i].value) <= NEAR,
            f'image {i} ("{prompt.text}") measures {alone.value:.6f} alone and {together[i].value:.6f} beside others',
        )


def says_what_it_needs(case: Case) -> None:
    """A prompt without one of `needs` is refused by a RefcoreError that names it."""
    metric = case.loaded()
    for missing in metric.needs:
        prompts = _prompts(case)
        facts = {key: value for key, value in prompts[0].facts.items() if key != missing}
        try:
            metric.measure(_images(1), [BenchmarkPrompt(prompts[0].text, prompts[0].category, facts)])
        except RefcoreError as error:
            require(missing in str(error), f'the error on a prompt without "{missing}" does not name it: {error}')
        else:
            raise Failed(f'a prompt without "{missing}" is measured; expected a RefcoreError')


def no_global_randomness(case: Case) -> None:
    """Nothing is drawn from Python's, numpy's or torch's global generators."""
    metric, prompts = case.loaded(), _prompts(case)
    with global_randomness_untouched(type(case.plugin).__name__):
        metric.measure(_images(len(prompts)), prompts)


def _prompts(case: Case) -> list[BenchmarkPrompt]:
    return [BenchmarkPrompt(text, case.category, case.facts) for text in case.prompts]
