"""Runs variants over prompts and seeds: what is there already is kept, what is missing is made, batch by batch."""

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
from refcore.config import presets
from refcore.errors import RefcoreError
from refcore_bench import contact_sheets, making
from refcore_bench.results import Results
from refcore_bench.task import Asked, Tell, World
from refcore_bench.tasks.playground import PLAYGROUND
from refcore_bench.variants import Variant


@dataclass(frozen=True)
class Batch:
    """Images that are made side by side: some prompts of one variant with one seed."""

    variant: Variant
    asked: tuple[Asked, ...]
    seed: int


def run(
    out: str | Path,
    variants: Sequence[Variant],
    asked: Sequence[Asked],
    source: int | str,
    seeds: Sequence[int] = (0,),
    batch: int = 20,
    workers: int = 1,
    plugin_folders: Sequence[Path] = (),
    tell: Tell = lambda line: None,
    world: World = PLAYGROUND,
) -> Results:
    """Makes every image that `out` lacks, and gathers `results.parquet` and a contact sheet a variant.

    The variants take turns: what is there after a kill is there of all of them, but for the last batches.

    Args:
        out: a folder; of an earlier run of the same variants and prompts, more or fewer of them, it is gone on with.
        variants: of different names.
        asked: the prompts.
        source: what they are from: the seed that drew them, or the name of a list.
        seeds: one image a prompt and seed.
        batch: images made side by side; a kill loses the batches that were under way.
        workers: processes of one torch thread each; 1 is this process, with torch's own number of threads.
        plugin_folders: of plugin files that workers read, as this process has.
        tell: is told of every batch, in a line.
        world: whose prompts these are, and who gives the verdict.

    Raises:
        RefcoreError: the folder belongs to other variants or prompts; a run failed (the rest is kept); a worker died.
    """
    names = [variant.name for variant in variants]
    if twice := {name for name in names if names.count(name) > 1}:
        raise RefcoreError(f'two variants are called "{min(twice)}"; give each a name of its own: NAME={min(twice)}')
    results = Results(out)
    results.claim(variants, source, asked, world)
    _calibrate(results, variants, tell)
    _count_budgets(results, variants, tell)
    batches = _missing(results, variants, asked, seeds, batch)
    total = {v.name: len(asked) * len(seeds) for v in variants}
    have = {v.name: total[v.name] - sum(len(b.asked) for b in batches if b.variant.name == v.name) for v in variants}
    for done, seconds in _make_all(results, batches, workers, plugin_folders):
        name = done.variant.name
        have[name] += len(done.asked)
        tell(f"{name}: {have[name]} of {total[name]} images, {seconds:.1f} s an image")
    results.gather()
    contact_sheets.write_sheets(results)
    return results


def _missing(
    results: Results, variants: Sequence[Variant], asked: Sequence[Asked], seeds: Sequence[int], size: int
) -> list[Batch]:
    """What is to be made, in the order of seeds and prompts, and for each of these in turn of the variants."""
    batches: list[tuple[int, int, Batch]] = []
    for variant in variants:
        done = results.done(variant)
        for turn, seed in enumerate(seeds):
            missing = [(i, one) for i, one in enumerate(asked) if (one.split, one.prompt, seed) not in done]
            for first in range(0, len(missing), size):
                part = missing[first : first + size]
                batches.append((turn, part[0][0], Batch(variant, tuple(one for _, one in part), seed)))
    return [batch for *_, batch in sorted(batches, key=lambda each: each[:2])]


def _make_all(
    results: Results, batches: Sequence[Batch], workers: int, plugin_folders: Sequence[Path]
) -> Iterator[tuple[Batch, float]]:
    """(batch, seconds an image) as each is finished."""
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
            f"a worker process was ended from outside, for lack of memory perhaps; what was made is kept in "
            f'"{results.path}", and the same command goes on: try fewer --workers or a smaller --batch'
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _make(path: Path, batch: Batch, budget: float | None) -> float:
    try:
        made = making.make(batch.variant, [one.prompt for one in batch.asked], batch.seed, budget)
    except RefcoreError as error:
        raise RefcoreError(f'variant "{batch.variant.name}": {error}') from error
    Results(path).add(batch.variant, batch.asked, batch.seed, made, torch.get_num_threads())
    return made.seconds


def _start_worker(plugin_folders: Sequence[Path]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    for folder in plugin_folders:
        registry.add_folder(folder)


def _end_with_parent() -> None:
    """A worker whose benchmark was killed would go on to the end of its batch, and nobody would take the result."""
    parent = parent_process()
    assert parent is not None, "a worker is started by the benchmark"
    parent.join()
    os._exit(1)


def _calibrate(results: Results, variants: Sequence[Variant], tell: Tell) -> None:
    known = results.calibration()
    scorers = {
        s.identity: s for v in variants for s in v.scorers if (s.optimised or s.panel) and s.identity not in known
    }
    if scorers and (found := results.world.calibrate(scorers.values(), tell)):
        results.add_calibration(found)


def _count_budgets(results: Results, variants: Sequence[Variant], tell: Tell) -> None:
    for variant in variants:
        if (
            variant.settings.get("budget")
            and variant.settings["count"] is None
            and variant.hash not in results.budgets()
        ):
            tell(f"{variant.name}: counting the model evaluations of one image of {presets.DEFAULT}")
            results.add_budget(variant, making.cost(variant.settings["budget"]))
