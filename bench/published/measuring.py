"""Measures the images of a results folder, metric by metric, so that the models of one are in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from refcore import images, registry
from refcore.config.settings import override
from refcore.contracts.metric import BenchmarkPrompt, Metric
from refcore.engine.loading import pick_device
from refcore.images import Levels
from refcore_bench.option_text import split
from refcore_bench.published.measurements import Measurements
from refcore_bench.published.task import MetricUse, Prompted, PublishedTask
from refcore_bench.results import KEY, Results
from refcore_bench.task import Progress, Row

CHUNK = 32
"""Images that a metric is given at a time; a kill loses those in progress."""


def resolved(task: PublishedTask, overrides: Mapping[str, Mapping[str, Any]]) -> dict[str, Metric]:
    """Label -> metric, not loaded: those of a benchmark, and further ones that measure every image.

    Args:
        task: the benchmark.
        overrides: label of a metric of the benchmark -> settings in place of its own; or name of another -> settings.

    Raises:
        RefcoreError: there is no such metric, or a setting is wrong.
    """
    uses = {**task.metrics, **{name: MetricUse(name) for name in overrides if name not in task.metrics}}
    return {
        label: registry.create("metrics", use.name, {**use.config, **overrides.get(label, {})}, f"--metric {label}")
        for label, use in uses.items()
    }


def measure(
    results: Results,
    overrides: Mapping[str, Mapping[str, Any]],
    progress: Progress,
    device: str = "auto",
    dtype: torch.dtype = torch.float32,
) -> None:
    """Measures every image that lacks a value, then writes `measurements.parquet`.

    Args:
        results: of a published benchmark, with pictures.
        overrides: label -> settings in place of the benchmark's.
        progress: progress callback; receives one line per chunk.
        device: torch device of the metrics, as in a run's config.
        dtype: of their weights.

    Raises:
        RefcoreError: a checkpoint is missing, a prompt cannot be measured, or the folder holds other values.
    """
    task = results.task
    assert isinstance(task, PublishedTask), "only published benchmarks have metrics"
    measurements, prompts = Measurements(results.path), _prompts(results)
    every = resolved(task, overrides)
    asked = {label: [row for row in results.prompts() if wants(task, label, row)] for label in every}
    metrics = {label: metric for label, metric in every.items() if asked[label]}
    for label, metric in metrics.items():
        own = [prompts[_key(row)] for row in asked[label]]
        metric.check([prompt.text for prompt in own])
        settings = metric.config.model_dump(mode="json")
        measurements.claim(label, metric.name, settings, metric.remarks(own))
    for label, metric in metrics.items():
        _measure(results, measurements, task, label, metric, prompts, progress, device, dtype)
    measurements.gather()


def _measure(
    results: Results,
    measurements: Measurements,
    task: PublishedTask,
    label: str,
    metric: Metric,
    prompts: Mapping[tuple[str, ...], BenchmarkPrompt],
    progress: Progress,
    device: str,
    dtype: torch.dtype,
) -> None:
    done, loaded, count = measurements.done(label), False, 0
    for rows in _chunks(results, task, label, done):
        if not loaded:
            progress(f"{label}: loading")
            metric.load(pick_device(device), dtype)
            loaded = True
        pictures = [_levels(row["image"]) for row in rows]
        found = metric.measure(pictures, [prompts[_key(row)] for row in rows])
        measurements.add(label, rows, found)
        count += len(rows)
        progress(f"{label}: {count + len(done)} images")


def _chunks(results: Results, task: PublishedTask, label: str, done: set[tuple[Any, ...]]) -> Iterator[Sequence[Row]]:
    """The images that a metric measures and has not measured yet, so many at a time."""
    waiting: list[Row] = []
    facts = {_key(row): row.get("facts", {}) for row in results.prompts()}
    for row in results.pictures():
        asked = {**{column: row[column] for column in KEY}, "facts": facts.get(_key(row), {})}
        if tuple(row[column] for column in KEY) not in done and wants(task, label, asked):
            waiting.append(row)
            if len(waiting) == CHUNK:
                yield waiting
                waiting = []
    if waiting:
        yield waiting


def _prompts(results: Results) -> dict[tuple[str, ...], BenchmarkPrompt]:
    """(split, category, prompt) -> the prompt with its facts."""
    return {
        _key(row): BenchmarkPrompt(row["prompt"], row["category"], row.get("facts", {})) for row in results.prompts()
    }


def wants(task: PublishedTask, label: str, prompt: Prompted) -> bool:
    """Whether a metric measures the images of a prompt: one that is not of the benchmark measures all."""
    return label not in task.metrics or label in task.metrics_of(prompt)


def _key(row: Mapping[str, Any]) -> tuple[str, ...]:
    return row["split"], row["category"], row["prompt"]


def _levels(png: bytes) -> Levels:
    return np.asarray(images.picture(png))


def use_of(text: str) -> tuple[str, dict[str, Any]]:
    """(label, settings) of `--metric LABEL,field=value`.

    >>> use_of("blip-vqa,model=/models/blip,batch=8")
    ('blip-vqa', {'model': '/models/blip', 'batch': 8})
    """
    label, *assignments = split(text)
    return label.strip(), override({}, assignments)


def uses(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Label -> settings of every `--metric`."""
    return dict(use_of(text) for text in texts)
