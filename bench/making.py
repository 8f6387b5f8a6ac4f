"""Makes the images of one batch of a variant, and counts what it took."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

import torch
from torch import Tensor

from refcore import images
from refcore.config.run import RunConfig
from refcore.config.schedule import LARGEST
from refcore.engine.candidates import best_first, lowest_first, spread
from refcore.engine.models import Models
from refcore.engine.panel import Panel
from refcore.engine.step import Engine
from refcore.runs.observers import Observer
from refcore.runs.run import Run
from refcore_bench.evaluations import Tally, counting
from refcore_bench.samples import pipeline_samples
from refcore_bench.samples.pipelines import Pipeline
from refcore_bench.samples.sampling import Sampler, Sampling
from refcore_bench.scoring import Rank, losses_of, pixels, ranking_panel, ranks, score, scoring_panel
from refcore_bench.variants import Variant

BUDGET_PROMPT = "a red circle"
"""Prompt with which the cost of an inversion is counted; the cost of a try hardly depends on it."""
TURNS, TIMED, TIMED_OF_PIPELINE = 3, 64, 1
"""Number of times that inversion and samples are timed in turns, and the number of samples each time."""
Draw = Callable[[Sequence[tuple[str, int]], int], Tensor]
"""(prompt and number of each of N samples, seed) -> their images [N, 3, H, W] in [0, 1]."""


@dataclass(frozen=True)
class Made:
    """A batch of images with the cost of each: times and evaluations of the batch, divided by its images."""

    levels: list[images.Levels]
    scores: dict[str, list[float]]
    """Scorer's label -> score of each image as it is saved."""
    steps: int
    """Steps of the optimiser or the sampler."""
    seconds: float
    """Wall-clock time, without loading models and without scoring."""
    load_seconds: float
    evaluations: dict[str, float]
    """Model evaluations an image by kind; see `refcore_bench.evaluations`."""
    ranks: dict[str, list[Rank]] = field(default_factory=dict)
    """Label of a scorer that is a classifier -> what it sees in each image, as it is saved."""


def make(
    variant: Variant,
    prompts: Sequence[str],
    seed: int,
    budget: float | None = None,
    models: Models | None = None,
    observers: Sequence[Observer] = (),
) -> Made:
    """One image a prompt.

    Args:
        variant: the method.
        prompts: distinct prompts.
        seed: random seed of every image.
        budget: for a variant that chooses among samples, what it may spend on an image; see `budget`.
        models: where loaded models are looked for first, and kept for later batches.
        observers: what else watches the run of a variant that inverts.

    Raises:
        RefcoreError: whatever the run raises: a missing checkpoint, NaN from a referee.
    """
    began = time.perf_counter()
    with counting(by_input=variant.method == "pipeline") as tally:
        if variant.method == "inversion":
            made, steps, loaded = _invert(variant.settings, prompts, seed, tally, models, observers)
        else:
            made, steps, loaded = _sample(variant, prompts, seed, budget, tally, models)
    took = time.perf_counter() - loaded
    levels = [images.levels(image) for image in made]
    scoring, saved = scoring_panel(variant.scorers, prompts, models), pixels(levels)
    n, scores, ranked = len(prompts), score(scoring, saved), ranks(scoring, saved)
    return Made(levels, scores, steps, took / n, (loaded - began) / n, tally.per_image(n), ranked)


def cost(settings: dict[str, Any], prompt: str = BUDGET_PROMPT, seed: int = 0) -> float:
    """Model evaluations an image of an inversion with these settings, counted while one is made."""
    with counting() as tally:
        _invert(settings, [prompt], seed, tally)
    return float(tally.total())


def budget(variant: Variant) -> float:
    """What a variant that chooses among samples may spend on an image, by its `equal`: model evaluations.

    Of a pipeline: samples. What one costs is counted, since no formula holds for all of them.
    """
    try:
        if variant.settings["equal"] == "seconds":
            return worth(variant)
        spent = cost(_to_the_last_try(variant.settings["budget"]))
        if variant.method != "pipeline":
            return spent
        with counting(by_input=True) as tally:
            _sample(_few(variant, 1), [BUDGET_PROMPT], 0, None, tally)
        return spent / tally.total()
    finally:
        pipeline_samples.release()  # a worker that makes the images loads its own


def worth(variant: Variant) -> float:
    """Model evaluations, or of a pipeline samples, that take as long as an image of the inversion that is a variant's
    budget.

    The two are timed in turns, `TURNS` times, and the median of the ratios counts.
    """
    settings, ratios = _to_the_last_try(variant.settings["budget"]), []
    timed = TIMED_OF_PIPELINE if variant.method == "pipeline" else TIMED
    few = _few(variant, timed)
    with counting() as tally:
        for turn in range(TURNS):
            *_, began = _invert(settings, [BUDGET_PROMPT], turn, tally)
            inverted = time.perf_counter()
            *_, loaded = _sample(few, [BUDGET_PROMPT], turn, None, tally)
            ratios.append((inverted - began) / (time.perf_counter() - loaded))
    sampling = _settings(variant)
    each = _each(sampling, len(variant.optimised)) if isinstance(sampling, Sampling) else 1
    return median(ratios) * timed * each


def _few(variant: Variant, count: int) -> Variant:
    """The variant with this many samples to choose from."""
    return replace(variant, settings={**variant.settings, "count": count})


def _to_the_last_try(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with which every sample takes all its tries: what an image costs at most."""
    candidates = settings.get("candidates") or {}
    if candidates.get("until") is None:
        return settings
    return {**settings, "candidates": {**candidates, "until": -LARGEST}}


def _settings(variant: Variant) -> Sampling | Pipeline:
    """How a variant samples, without its budget."""
    kind: type[Sampling | Pipeline] = Pipeline if variant.method == "pipeline" else Sampling
    return kind(**{name: value for name, value in variant.settings.items() if name != "budget"})


def _drawer(settings: Sampling | Pipeline, chunk: int) -> tuple[Draw, int]:
    """How samples are drawn, the models loaded, and the number of steps of each.

    Args:
        settings: of the samples.
        chunk: number of images that a pipeline draws side by side.
    """
    if isinstance(settings, Pipeline):
        drawn = pipeline_samples.loaded(settings)
        return lambda samples, seed: drawn.draw(samples, seed, settings, chunk), drawn.steps(settings)
    sampler = Sampler(settings.model)
    return lambda samples, seed: sampler.draw(samples, seed, settings), settings.steps


def choices(sampling: Sampling, ranked_by: int, budget: float) -> int:
    """Number of samples that cost at least `budget` evaluations, judging by `ranked_by` referees included.

    >>> choices(Sampling(steps=50, guidance=7.5, choose=True), ranked_by=2, budget=1921)
    19
    """
    return max(1, math.ceil(budget / _each(sampling, ranked_by)))


def _each(sampling: Sampling, ranked_by: int) -> int:
    """Model evaluations of one sample, judged by `ranked_by` referees."""
    halves = 1 if sampling.guidance in (0, 1) else 2
    return sampling.steps * halves + 1 + ranked_by


def _invert(
    settings: dict[str, Any],
    prompts: Sequence[str],
    seed: int,
    tally: Tally,
    models: Models | None = None,
    observers: Sequence[Observer] = (),
) -> tuple[Tensor, int, float]:
    pipeline_samples.release()  # a run takes the whole memory
    config = RunConfig.from_settings({**settings, "prompts": list(prompts), "seeds": [seed]})
    counter = _Counter(tally)
    run = Run(config, observers=[counter, *observers], models=models)
    inversion = run.loop()
    if run.error is not None:
        raise run.error
    return inversion.images(), config.steps, counter.loaded


class _Counter(Observer):
    """Counts a run's model evaluations from the moment its models are loaded."""

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self.loaded = 0.0
        """Time at which the models were loaded."""

    def on_load(self, engine: Engine) -> None:
        self.loaded = time.perf_counter()
        self.tally.watch(engine)


def _sample(
    variant: Variant,
    prompts: Sequence[str],
    seed: int,
    budget: float | None,
    tally: Tally,
    models: Models | None = None,
) -> tuple[Tensor, int, float]:
    sampling = _settings(variant)
    draw, steps = _drawer(sampling, len(prompts))
    ranking = variant.optimised if sampling.choose else []
    count = _count(sampling, len(ranking), budget)
    samples = [(prompt, number) for prompt in prompts for number in range(count)]
    referees = ranking_panel(ranking, [prompt for prompt, _ in samples], models) if ranking else None
    loaded = time.perf_counter()
    drawn = draw(samples, seed)
    if referees is not None:
        drawn = drawn[_best(referees, drawn, count, sampling.by, tally)]
    return drawn, steps, loaded


def _count(sampling: Sampling | Pipeline, ranked_by: int, budget: float | None) -> int:
    """Number of samples of a prompt."""
    if not sampling.choose:
        return 1
    assert sampling.count or budget, "a variant that chooses needs a budget"
    if isinstance(sampling, Pipeline):
        return sampling.count or max(1, math.ceil(budget or 0))
    return sampling.count or choices(sampling, ranked_by, budget or 0)


def _best(referees: Panel, drawn: Tensor, count: int, by: str, tally: Tally) -> list[int]:
    """Index of each prompt's best sample by the referees, compared as the candidates of an inversion are."""
    if by == "loss":
        judged = list(losses_of(referees, drawn).values())
    else:
        judged = [[-value for value in values] for values in score(referees, drawn).values()]
    tally["referee_forward"] += sum(map(len, judged))
    losses = torch.tensor(judged).view(len(judged), -1, count)
    chosen = []
    for b in range(losses.shape[1]):
        own = losses[:, b]
        ordered = lowest_first(own.sum(0)) if by == "loss" else best_first(own, spread(own), own.sum(0))
        chosen.append(b * count + ordered[0])
    return chosen
