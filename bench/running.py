"""Runs variants over prompts and seeds, batch by batch: existing images are kept, missing ones are made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch

from refcore.engine.models import Models
from refcore.errors import RefcoreError
from refcore.runs.observers import Observer
from refcore_bench import making
from refcore_bench.executors.job import Executor, Job
from refcore_bench.executors.local import Local
from refcore_bench.samples import pipeline_samples, pipelines
from refcore_bench.scorers import digest
from refcore_bench.storing import contact_sheets
from refcore_bench.storing.results import Results
from refcore_bench.task import Progress, Task, TaskPrompt
from refcore_bench.tasks.playground import PLAYGROUND
from refcore_bench.variants import Variant


@dataclass(frozen=True)
class Batch:
    """Images made side by side: some prompts, one variant, one seed."""

    variant: Variant
    prompts: tuple[TaskPrompt, ...]
    seed: int

    @property
    def name(self) -> str:
        return f"a batch of {self.variant.name} (seed {self.seed}, {len(self.prompts)} images)"


def run(
    out: str | Path,
    variants: Sequence[Variant],
    prompts: Sequence[TaskPrompt],
    source: int | str,
    seeds: Sequence[int] = (0,),
    batch: int = 20,
    workers: int = 1,
    plugin_folders: Sequence[Path] = (),
    progress: Progress = lambda line: None,
    task: Task = PLAYGROUND,
    executor: Executor | None = None,
    make: Callable[..., float] | None = None,
) -> Results:
    """Makes every image that `out` lacks, then writes `results.parquet` and a contact sheet per variant.

    The variants take turns, so a killed run has the same images of all of them, except for the last batches. Pipelines
    of diffusers follow the others, one after another, so that each is loaded once in every process.

    Args:
        out: results folder, a path or a URL (`s3://bucket/folder`); an earlier run with the same definitions, of more
            or fewer of them, is continued.
        variants: variants with distinct names.
        prompts: prompts of the task.
        source: source of the prompts: the seed that drew them, or the name of a list.
        seeds: random seeds; one image per prompt and seed.
        batch: images made side by side; a kill loses the batches in progress.
        workers: processes of one torch thread each; 1 is this process, with torch's own number of threads.
        plugin_folders: folders of plugin files for the workers; this process has read them already.
        progress: progress callback; receives one line per batch.
        task: the task the prompts belong to.
        executor: where the batches are made, in place of `workers`.
        make: a function of a module's top level in place of `make_batch`, with its arguments.

    Raises:
        RefcoreError: the folder belongs to other variants or prompts; a run failed (the rest is kept); workers died
            again and again of a batch.
    """
    executor = executor or Local(workers, plugin_folders, progress)
    names = [variant.name for variant in variants]
    if twice := {name for name in names if names.count(name) > 1}:
        raise RefcoreError(f'two variants are called "{min(twice)}"; rename one with NAME={min(twice)}')
    results = Results(out)
    if not results.storage.shared and not (isinstance(executor, Local) and executor.workers == 1):
        raise RefcoreError(
            f'"{results.storage}" is the memory of one process, which no worker sees; choose a folder, or leave out '
            "--workers and --ray"
        )
    results.claim(variants, source, prompts, task)
    for variant in variants:
        if variant.method == "pipeline" and (remark := pipelines.remark(variant.settings)) is not None:
            progress(f"{variant.name}: {remark}")
    prepare(results, variants, progress)
    batches = _missing(results, variants, prompts, seeds, batch)
    total = {v.name: len(prompts) * len(seeds) for v in variants}
    have = {v.name: total[v.name] - sum(len(b.prompts) for b in batches if b.variant.name == v.name) for v in variants}
    lost: list[str] = []
    jobs = _jobs(results, batches, make)
    with closing(executor.run(list(jobs), sight_of(results))) as outcomes:
        for job, outcome in outcomes:
            done = jobs[job]
            name = done.variant.name
            if outcome.lost:
                lost.append(str(outcome.error))
                progress(lost[-1])
                continue
            if outcome.error is not None:
                raise outcome.error
            have[name] += len(done.prompts)
            progress(f"{name}: {have[name]} of {total[name]} images, {outcome.value:.1f} s an image")
    if lost:
        raise RefcoreError(
            f'{lost[0]}, perhaps for lack of memory; the finished images are in "{results.storage}", '
            "and the same command continues: try fewer --workers or a smaller --batch"
        )
    results.gather()
    contact_sheets.write_sheets(results)
    return results


def _missing(
    results: Results, variants: Sequence[Variant], prompts: Sequence[TaskPrompt], seeds: Sequence[int], size: int
) -> list[Batch]:
    """The batches still to be made, ordered by pipeline, seed, prompt, then variant."""
    batches: list[tuple[int, int, int, Batch]] = []
    keys = [pipeline_samples.loading_key(v.settings) if v.method == "pipeline" else "" for v in variants]
    loads = ["", *dict.fromkeys(filter(None, keys))]
    everything = results.done()
    for key, variant in zip(keys, variants, strict=True):
        done = everything.get(variant.name, set())
        for turn, seed in enumerate(seeds):
            missing = [
                (i, one) for i, one in enumerate(prompts) if (one.split, one.category, one.prompt, seed) not in done
            ]
            for first in range(0, len(missing), size):
                part = missing[first : first + size]
                made = Batch(variant, tuple(one for _, one in part), seed)
                batches.append((loads.index(key), turn, part[0][0], made))
    return [batch for *_, batch in sorted(batches, key=lambda each: each[:3])]


def prepare(results: Results, variants: Sequence[Variant], progress: Progress) -> None:
    """Measures what the batches of claimed variants need: thresholds of referees, and budgets."""
    _measure_thresholds(results, variants, progress)
    _count_budgets(results, variants, progress)


def _jobs(results: Results, batches: Sequence[Batch], make: Callable[..., float] | None) -> dict[Job, Batch]:
    """A job for each batch, in their order."""
    budgets, task, function = results.budgets(), results.task.name, make or make_batch
    return {
        Job(
            batch.name,
            function,
            (results.place, task, batch, budgets.get(batch.variant.hash)),
            models_of(batch.variant),
        ): batch
        for batch in batches
    }


def models_of(variant: Variant) -> str:
    """Group of a variant's jobs: variants of the same checkpoints have the same one."""
    return digest(variant.checkpoints)


def sight_of(results: Results) -> Job:
    """The check that a worker on another machine sees the folder, and not another one by the same path."""
    return Job("the check of the results folder", _see, (results.place, digest(results.prompts())))


def _see(models: Models, place: str, expected: str) -> None:
    results = Results(place)
    if digest(results.prompts()) != expected:
        raise RefcoreError(
            f'the results folder "{place}" is not there; choose a folder that all machines share, or storage such as '
            "s3://bucket/folder"
        )


def make_batch(
    models: Models,
    place: str,
    task: str,
    batch: Batch,
    budget: float | None,
    observers: Sequence[Observer] = (),
    made_it: Callable[[], None] = lambda: None,
) -> float:
    """Makes a batch and writes it where it is made: what is finished survives the worker and the benchmark.

    Args:
        models: that stay loaded.
        place: the results folder.
        task: name of the folder's task.
        batch: the images to make.
        budget: model evaluations an image, as for `refcore_bench.making.make`.
        observers: what else watches its run.
        made_it: called before the part is written.

    Returns:
        Seconds an image.
    """
    prompts, more = [one.prompt for one in batch.prompts], {"observers": observers} if observers else {}
    try:
        made = making.make(batch.variant, prompts, batch.seed, budget, models, **more)
    except RefcoreError as error:
        raise RefcoreError(f'variant "{batch.variant.name}": {error}') from error
    made_it()
    Results(place).add(batch.variant, batch.prompts, batch.seed, made, torch.get_num_threads(), task)
    return made.seconds


def _measure_thresholds(results: Results, variants: Sequence[Variant], progress: Progress) -> None:
    known = results.thresholds().keys()
    scorers = {
        s.identity: s for v in variants for s in v.scorers if (s.optimised or s.panel) and s.identity not in known
    }
    if scorers and (found := results.task.measure_thresholds(scorers.values(), progress)):
        results.add_thresholds(found)


def _count_budgets(results: Results, variants: Sequence[Variant], progress: Progress) -> None:
    for variant in variants:
        if (
            variant.settings.get("budget")
            and variant.settings["count"] is None
            and variant.hash not in results.budgets()
        ):
            progress(f"{variant.name}: measuring the {variant.settings['equal']} of one image of {results.task.preset}")
            results.add_budget(variant, making.budget(variant))
