"""Runs variants over prompts and seeds, batch by batch: existing images are kept, missing ones are made."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import torch

from refcore import registry
from refcore.errors import RefcoreError
from refcore_bench import contact_sheets, making, pipeline_samples, pipelines
from refcore_bench.results import Results
from refcore_bench.task import Progress, Task, TaskPrompt
from refcore_bench.tasks.playground import PLAYGROUND
from refcore_bench.variants import Variant


@dataclass(frozen=True)
class Batch:
    """Images made side by side: some prompts, one variant, one seed."""

    variant: Variant
    prompts: tuple[TaskPrompt, ...]
    seed: int


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
) -> Results:
    """Makes every image that `out` lacks, then writes `results.parquet` and a contact sheet per variant.

    The variants take turns, so a killed run has the same images of all of them, except for the last batches. Pipelines
    of diffusers follow the others, one after another, so that each is loaded once in every process.

    Args:
        out: results folder; an earlier run with the same definitions, of more or fewer of them, is continued.
        variants: variants with distinct names.
        prompts: prompts of the task.
        source: source of the prompts: the seed that drew them, or the name of a list.
        seeds: random seeds; one image per prompt and seed.
        batch: images made side by side; a kill loses the batches in progress.
        workers: processes of one torch thread each; 1 is this process, with torch's own number of threads.
        plugin_folders: folders of plugin files for the workers; this process has read them already.
        progress: progress callback; receives one line per batch.
        task: the task the prompts belong to.

    Raises:
        RefcoreError: the folder belongs to other variants or prompts; a run failed (the rest is kept); a worker died.
    """
    names = [variant.name for variant in variants]
    if twice := {name for name in names if names.count(name) > 1}:
        raise RefcoreError(f'two variants are called "{min(twice)}"; rename one with NAME={min(twice)}')
    results = Results(out)
    results.claim(variants, source, prompts, task)
    for variant in variants:
        if variant.method == "pipeline" and (remark := pipelines.remark(variant.settings)) is not None:
            progress(f"{variant.name}: {remark}")
    _measure_thresholds(results, variants, progress)
    _count_budgets(results, variants, progress)
    batches = _missing(results, variants, prompts, seeds, batch)
    total = {v.name: len(prompts) * len(seeds) for v in variants}
    have = {v.name: total[v.name] - sum(len(b.prompts) for b in batches if b.variant.name == v.name) for v in variants}
    for done, seconds in _make_all(results, batches, workers, plugin_folders):
        name = done.variant.name
        have[name] += len(done.prompts)
        progress(f"{name}: {have[name]} of {total[name]} images, {seconds:.1f} s an image")
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
    for key, variant in zip(keys, variants, strict=True):
        done = results.done(variant)
        for turn, seed in enumerate(seeds):
            missing = [(i, one) for i, one in enumerate(prompts) if (one.split, one.prompt, seed) not in done]
            for first in range(0, len(missing), size):
                part = missing[first : first + size]
                made = Batch(variant, tuple(one for _, one in part), seed)
                batches.append((loads.index(key), turn, part[0][0], made))
    return [batch for *_, batch in sorted(batches, key=lambda each: each[:3])]


def _make_all(
    results: Results, batches: Sequence[Batch], workers: int, plugin_folders: Sequence[Path]
) -> Iterator[tuple[Batch, float]]:
    """(batch, seconds per image) of each batch as it finishes."""
    budgets = results.budgets()
    if workers == 1 or len(batches) < 2:
        for batch in batches:
            yield batch, _make(results.path, batch, budgets.get(batch.variant.hash))
        return
    # Forked processes would inherit torch's thread pools in an unknown state.
    pool = ProcessPoolExecutor(
        min(workers, len(batches)), get_context("spawn"), initializer=_start_worker, initargs=(list(plugin_folders),)
    )
    try:
        waiting: dict[Any, Batch] = {
            pool.submit(_make, results.path, batch, budgets.get(batch.variant.hash)): batch for batch in batches
        }
        for future in as_completed(waiting):
            yield waiting[future], future.result()
    except BrokenProcessPool as error:
        raise RefcoreError(
            f'a worker process was killed, perhaps for lack of memory; the finished images are in "{results.path}", '
            "and the same command continues: try fewer --workers or a smaller --batch"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _make(path: Path, batch: Batch, budget: float | None) -> float:
    try:
        made = making.make(batch.variant, [one.prompt for one in batch.prompts], batch.seed, budget)
    except RefcoreError as error:
        raise RefcoreError(f'variant "{batch.variant.name}": {error}') from error
    Results(path).add(batch.variant, batch.prompts, batch.seed, made, torch.get_num_threads())
    return made.seconds


def _start_worker(plugin_folders: Sequence[Path]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    for folder in plugin_folders:
        registry.add_folder(folder)


def _end_with_parent() -> None:
    """Ends a worker whose benchmark was killed; it would finish its batch with nobody to take the result."""
    parent = parent_process()
    assert parent is not None, "a worker is started by the benchmark"
    parent.join()
    os._exit(1)


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
