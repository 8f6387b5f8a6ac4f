"""Measures the images of a results folder, metric by metric, in jobs of an executor."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from refcore import images, registry
from refcore.config.settings import override
from refcore.contracts.metric import BenchmarkPrompt, Metric
from refcore.engine.loading import pick_device
from refcore.engine.models import Models
from refcore.errors import RefcoreError, shortened
from refcore_bench.executors.job import Executor, Job
from refcore_bench.executors.local import Local
from refcore_bench.option_text import split
from refcore_bench.published.measurements import Measurements
from refcore_bench.published.task import MetricUse, Prompted, PublishedTask
from refcore_bench.storing.results import KEY, Results
from refcore_bench.task import Progress

CHUNK = 32
"""Images that a metric is given at a time; a kill loses those in progress."""
Key = tuple[Any, ...]
"""The columns `KEY` of an image."""


@dataclass(frozen=True)
class Chunk:
    """Images that one metric measures at a time."""

    label: str
    files: Mapping[str, Sequence[Key]]
    """File of pictures -> its images that are measured."""
    prompts: Mapping[Key, BenchmarkPrompt]

    @property
    def keys(self) -> list[Key]:
        return [key for own in self.files.values() for key in own]


def uses(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Label -> settings of every `--metric LABEL,field=value`; those of one label are joined.

    Raises:
        RefcoreError: an assignment is none.

    >>> uses(["blip-vqa,model=/models/blip,batch=8"])
    {'blip-vqa': {'model': '/models/blip', 'batch': 8}}
    """
    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        label, *assignments = split(text)
        try:
            found[label.strip()] = override(found.get(label.strip(), {}), assignments)
        except RefcoreError as error:
            raise RefcoreError(f'--metric "{text}": {str(error).removeprefix("--set ")}') from error
    return found


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


def prepared(
    task: PublishedTask, prompts: Sequence[Prompted], overrides: Mapping[str, Mapping[str, Any]], device: str = "auto"
) -> dict[str, Metric]:
    """The metrics of `resolved` that measure any of the prompts, checked as far as that takes no model.

    Raises:
        RefcoreError: as `resolved`; there is no such device, a package or a local checkpoint is missing, or a prompt
            cannot be measured.
    """
    pick_device(device)
    found = {}
    for label, metric in resolved(task, overrides).items():
        if own := [row for row in prompts if wants(task, label, row)]:
            metric.check([row["prompt"] for row in own])
            found[label] = metric
    return found


def measure(
    results: Results,
    overrides: Mapping[str, Mapping[str, Any]],
    progress: Progress,
    device: str = "auto",
    executor: Executor | None = None,
) -> None:
    """Measures every image that lacks a value, then writes `measurements.parquet`.

    Args:
        results: of a published benchmark, with pictures.
        overrides: settings of metrics; see `resolved`.
        progress: progress callback; receives one line per chunk.
        device: torch device of the metrics, as in a run's config.
        executor: where they run; by default in this process.

    Raises:
        RefcoreError: a checkpoint is missing, a prompt cannot be measured, or the folder holds other values; what is
            measured is kept.
    """
    task = results.task
    assert isinstance(task, PublishedTask), "only published benchmarks have metrics"
    measurements = Measurements(results.place)
    prompts = {_prompt_of(row): row for row in results.prompts()}
    metrics = prepared(task, list(prompts.values()), overrides, device)
    for label, metric in metrics.items():
        own = [_benchmark_prompt(row) for row in prompts.values() if wants(task, label, row)]
        settings = metric.config.model_dump(mode="json")
        measurements.claim(label, metric.name, settings, metric.remarks(own))
    keys, before = results.keys(), measurements.done()
    jobs: dict[Job, Chunk] = {}
    done = {label: before.get(label, set()) for label in metrics}
    if gone := _without_pictures(task, results, keys, prompts, done):
        progress(f"{gone} images cannot be measured, since their pictures are not in the folder")
    for label, metric in metrics.items():
        for chunk in _chunks(task, label, keys, prompts, done[label]):
            settings = metric.config.model_dump(mode="json")
            name = f"{len(chunk.keys)} images of {label}"
            jobs[Job(name, _measure, (results.place, chunk, metric.name, settings, device), label)] = chunk
    _run(jobs, executor or Local(), progress)
    measurements.gather()


def _without_pictures(
    task: PublishedTask,
    results: Results,
    keys: Mapping[str, Sequence[Key]],
    prompts: Mapping[Key, Prompted],
    done: Mapping[str, set[Key]],
) -> int:
    """Number of images that lack a value, and the picture to measure it on."""
    kept = {key for own in keys.values() for key in own}
    rows = ((variant, *image) for variant, own in results.done().items() for image in own)
    return sum(
        any(key not in measured and wants(task, label, _of(prompts, key)) for label, measured in done.items())
        for key in rows
        if key not in kept
    )


def wants(task: PublishedTask, label: str, prompt: Prompted) -> bool:
    """Whether a metric measures the images of a prompt: one that is not of the benchmark measures all."""
    return label not in task.metrics or label in task.metrics_of(prompt)


def _run(jobs: Mapping[Job, Chunk], executor: Executor, progress: Progress) -> None:
    total = {chunk.label: 0 for chunk in jobs.values()}
    for chunk in jobs.values():
        total[chunk.label] += len(chunk.keys)
    have, lost = dict.fromkeys(total, 0), []
    with closing(executor.run(list(jobs))) as outcomes:
        for job, outcome in outcomes:
            label = jobs[job].label
            if outcome.lost:
                lost.append(str(outcome.error))
                progress(lost[-1])
                continue
            if outcome.error is not None:
                raise outcome.error
            have[label] += len(jobs[job].keys)
            progress(f"{label}: {have[label]} of {total[label]} images")
    if lost:
        raise RefcoreError(
            f"{lost[0]}, perhaps for lack of memory; what is measured is kept, and the same command continues: try "
            f"fewer --workers, or a smaller batch of the metric"
        )


def _measure(models: Models, place: str, chunk: Chunk, name: str, settings: Mapping[str, Any], device: str) -> None:
    """Measures a chunk and writes it where it is measured: what is finished survives the worker and the benchmark."""
    where = pick_device(device)
    made = registry.create("metrics", name, settings, f"--metric {chunk.label}")
    metric: Metric = models.loaded(made, lambda fresh: fresh.load(where, torch.float32), where)
    results, pictures = Results(place), []
    for file, own in chunk.files.items():
        every = results.pictures_in(file)
        pictures += [np.asarray(images.picture(every[key])) for key in own]
    try:
        found = metric.measure(pictures, [chunk.prompts[key] for key in chunk.keys])
    except RefcoreError as error:
        raise RefcoreError(f'metric "{chunk.label}": {error}') from error
    for key, one in zip(chunk.keys, found, strict=True):
        if not math.isfinite(one.value):
            raise RefcoreError(
                f'metric "{chunk.label}" gave {one.value} to an image of "{shortened(chunk.prompts[key].text, 80)}"; '
                "expected a finite number: look at its checkpoint and settings"
            )
    Measurements(place).add(chunk.label, chunk.keys, found)


def _chunks(
    task: PublishedTask,
    label: str,
    keys: Mapping[str, Sequence[Key]],
    prompts: Mapping[Key, Prompted],
    done: set[Key],
) -> Iterator[Chunk]:
    """The images that a metric measures and has not measured yet, so many at a time."""
    files: dict[str, list[Key]] = {}
    for file, own in keys.items():
        for key in own:
            if key not in done and wants(task, label, _of(prompts, key)):
                files.setdefault(file, []).append(key)
                if sum(map(len, files.values())) == CHUNK:
                    yield _chunk(label, files, prompts)
                    files = {}
    if files:
        yield _chunk(label, files, prompts)


def _chunk(label: str, files: Mapping[str, Sequence[Key]], prompts: Mapping[Key, Prompted]) -> Chunk:
    keys = [key for own in files.values() for key in own]
    return Chunk(label, files, {key: _benchmark_prompt(_of(prompts, key)) for key in keys})


def _of(prompts: Mapping[Key, Prompted], key: Key) -> Prompted:
    """The prompt of an image."""
    row = dict(zip(KEY, key, strict=True))
    return prompts.get(_prompt_of(row), {**row, "facts": {}})


def _prompt_of(row: Mapping[str, Any]) -> Key:
    return row["split"], row["category"], row["prompt"]


def _benchmark_prompt(row: Prompted) -> BenchmarkPrompt:
    return BenchmarkPrompt(row["prompt"], row["category"], row.get("facts", {}))
