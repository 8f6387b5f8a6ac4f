"""A sweep over every combination of listed values: a benchmark whose variants are the points of the grid."""

from __future__ import annotations

from typing import cast

from refcore.engine.models import Models
from refcore_bench import running
from refcore_bench.running import Batch
from refcore_bench.storing.results import Results
from refcore_bench.sweep import axes, losses
from refcore_bench.sweep.plan import Sweep, Trial, write_summary


def run(sweep: Sweep) -> list[Trial]:
    """Makes what the folder lacks, and writes the table, the summary and the best config.

    Raises:
        RefcoreError: as `refcore_bench.running.run`; a point that makes no valid config.
    """
    points = axes.grid(cast(list[axes.Values], list(sweep.axes)))
    named = dict(zip(axes.names(points), points, strict=True))
    chosen = {name: sweep.variant(name, point) for name, point in named.items()}
    results = running.run(
        sweep.out,
        list(chosen.values()),
        sweep.prompts,
        sweep.source,
        sweep.seeds,
        sweep.batch,
        progress=sweep.progress,
        task=sweep.task,
        executor=sweep.executor,
        make=make_batch,
    )
    trials = [
        Trial(name, named[name], "complete", sweep.towards.value(results, variant)) for name, variant in chosen.items()
    ]
    write_summary(results, sweep, trials, lambda name, point: chosen[name])
    return trials


def make_batch(models: Models, place: str, task: str, batch: Batch, budget: float | None) -> float:
    """As `refcore_bench.running.make_batch`, with the losses written first: a part that is there has its losses."""
    watching = losses.Losses()

    def write() -> None:
        losses.write(Results(place), batch, watching.of(len(batch.prompts)))

    return running.make_batch(models, place, task, batch, budget, [watching], write)
