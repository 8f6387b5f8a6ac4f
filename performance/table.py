"""The rows of `make bench`: paired ratios of a step to hand-written loops, single runs and bare models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from performance import models
from performance.loops import Reference, Tight, keyed_draws, keyed_sds
from performance.measure import Interval, flops, machine_rate, median, paired, peak_bytes
from refcore.config.run import RunConfig
from refcore.engine.build import build
from refcore.engine.inversion import Inversion
from refcore.engine.start import start
from refcore.moment import Moment
from refcore.runs.checkpoints import DEFAULT, SHARE, Checkpoints, Every, checkpoints_of, read_every
from refcore.runs.rundir import RunDir

BATCH = 16
FEW_VIEWS, MANY_VIEWS = 4, 64
FLAT = 1.1
STEPS_COMPARED = 3
EXACT = 1e-6
"""Maximum relative difference of the parameters over STEPS_COMPARED steps in float32."""


@dataclass(frozen=True)
class Row:
    """A measured claim."""

    name: str
    models: str
    measured: Interval
    target: str
    """Expected value; "" if the figure is for information only."""
    holds: bool | None
    """Whether the target is met, by the bound of the interval it names; None without a target."""
    note: str = ""


def rows(pairs: int, scratch: Path) -> Iterator[Row]:
    """Measures and yields every row; the medium model is written to `scratch`, 0.6 GB."""
    small = Inversion(models.embedded())
    yield against_tight("embedded", small, pairs)
    middle = Inversion(models.medium(scratch / models.VIT_B_32))
    yield against_tight("ViT-B/32", middle, pairs)
    yield against_reference(pairs)
    yield batched("embedded", models.embedded(), pairs)
    yield from bare("embedded", Inversion(models.embedded(priors=[], combine={"name": "sum"}, **ON_PIXELS)), pairs)
    yield from bare("ViT-B/32", middle, pairs)
    yield flat_in_views("embedded")
    yield saving("embedded", Inversion(models.embedded()), pairs, scratch)
    yield saving("512 x 512 pixels, Adam and EMA", Inversion(models.embedded(**LARGE)), pairs, scratch)
    yield start_up(max(3, pairs // 5))


LARGE: dict[str, Any] = {"canvas": {"name": "pixel"}, "size": 512, "priors": [], "combine": {"name": "sum"}, "ema": {}}
ON_PIXELS: dict[str, Any] = {"canvas": {"name": "pixel"}, "size": 64, "referees": [{"name": "clip"}]}


def differences(config: RunConfig) -> float:
    """Maximum relative difference of parameters between refcore and the tight loop over a few steps."""
    engine = build(config)
    sds = keyed_sds(engine) if engine.priors else None
    tight, inversion = Tight(engine, keyed_draws(engine), sds), Inversion(config, engine)
    found = 0.0
    for _ in range(STEPS_COMPARED):
        tight()
        next(inversion)
        ours: Tensor = inversion.params[tight.name].detach()
        found = max(found, float((ours - tight.x).norm() / tight.x.norm()))
    return found


def against_tight(name: str, ours: Inversion, pairs: int) -> Row:
    ratio = paired(lambda: next(ours), Tight(ours.engine), pairs).ratio
    return Row("step / tightest hand-written loop", name, ratio, "upper bound <= 1.05", ratio.high <= 1.05)


def against_reference(pairs: int) -> Row:
    config = models.paper()
    ours = Inversion(config, build(config))  # keeps its text tower, which the reference needs in every step
    reference = Reference(ours.engine)
    predicted = flops(reference) / flops(lambda: next(ours))
    ratio = paired(reference, lambda: next(ours), pairs).ratio
    share = ratio * (1 / predicted)
    note = f"speed-up {ratio}; predicted from operation counts: {predicted:.2f}"
    return Row(
        "speed-up over the reference's structure / predicted", "embedded", share, ">= 0.95", share.value >= 0.95, note
    )


def batched(name: str, config: RunConfig, pairs: int) -> Row:
    """Ratio of seconds per image: BATCH single runs over one batch of BATCH."""
    seeds = list(range(BATCH))
    together = Inversion(config.from_settings({**config.settings(), "seeds": seeds}))
    single = Inversion(config)

    def singles() -> None:
        for _ in seeds:
            next(single)

    ratio = paired(singles, lambda: next(together), max(3, pairs // 4), warm_up=1).ratio
    return Row(f"{BATCH} single runs / one batch of {BATCH}", name, ratio, "", None, "above 1, the batch is faster")


def bare(name: str, ours: Inversion, pairs: int) -> Iterator[Row]:
    """Ratio of a step with one referee alone to the referee's forward and backward on existing views."""
    (use,) = ours.engine.panel.referees
    group = ours.engine.panel.groups["main"]
    first = Moment(0, ours.config.steps)
    opened = group.open(ours.engine.decode(start(ours.engine), first), use.referee.input_size, ours.engine.keys, first)
    n = len(opened.sample)
    ready = opened.make(range(n)).detach()
    rows = torch.zeros(n, dtype=torch.int64)

    def forward_backward() -> None:
        views = ready.requires_grad_()
        torch.autograd.grad(use.referee.judge(views, use.conditioning, rows).sum(), views)

    timed = paired(lambda: next(ours), forward_backward, pairs)
    rate, cost = median(n / timed.first), flops(forward_backward)
    limit = machine_rate() * torch.get_num_threads()
    reached = cost / float(median(timed.second).value) / limit
    note = (
        f"{rate.value:.1f} views/s; the bare referee needs {cost / n / 1e9:.2f} GFLOP per view, at {reached:.0%} of "
        f"the machine's {limit / 1e9:.0f} GFLOP/s"
    )
    yield Row("step / bare forward-backward of the referee", name, timed.ratio, "", None, note)


def flat_in_views(name: str) -> Row:
    """Ratio of a step's peak memory above its weights: many views to few, with chunks of the same size."""
    peaks = []
    for count in (MANY_VIEWS, FEW_VIEWS):
        settings = models.embedded().settings()
        settings["views"]["main"]["count"] = count
        engine = build(RunConfig.from_settings({**settings, "chunk": FEW_VIEWS}))
        params = start(engine)
        peaks.append(peak_bytes(lambda engine=engine, params=params: engine.gradients(params, [0], 0)))  # type: ignore[misc]
    ratio = peaks[0] / peaks[1]
    note = f"{peaks[0] / 1e6:.1f} and {peaks[1] / 1e6:.1f} MB above the weights, counted by the allocator"
    what = f"peak memory, {MANY_VIEWS} views / {FEW_VIEWS} views in chunks of {FEW_VIEWS}"
    return Row(what, name, Interval(ratio, ratio, ratio), "<= 1.1", ratio <= FLAT, note)


def saving(name: str, ours: Inversion, pairs: int, scratch: Path) -> Row:
    """Seconds of a checkpoint over those between two, in turn with steps. Wall-clock time: most of it is the disk's.

    By default there are 30 s between two, or a hundred times as long as the last one took.
    """
    every = read_every(DEFAULT)
    assert every is not None
    assert every.seconds is not None
    scratch.mkdir(parents=True, exist_ok=True)
    took: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory(dir=scratch) as place:
        folder = RunDir.claim(Path(place) / "run")
        kept = Checkpoints(folder, Every(steps=1), dict)
        for _ in range(pairs + 1):
            began = time.perf_counter()
            folder.append_history(next(ours).record())
            stepped = time.perf_counter()
            kept.offer_step(ours)
            took.append((time.perf_counter() - stepped, stepped - began))
        size = checkpoints_of(folder.path)[0].path.stat().st_size
        folder.release()
    saved, steps = (median([pair[i] for pair in took[1:]]) for i in (0, 1))
    share = saved * (1 / max(every.seconds, saved.value / SHARE))
    note = f"{1000 * saved.value:.1f} ms for {size / 1e6:.2f} MB, {saved.value / steps.value:.2f} of a step"
    return Row("a checkpoint / the time between two", name, share, "<= 0.01", share.value <= SHARE, note)


def start_up(tries: int) -> Row:
    """Seconds from `refcore invert` to its first step, without importing and loading of the model libraries."""
    took = [_started() for _ in range(tries)]
    found = median([own for own, _ in took])
    note = f"of {median([whole for _, whole in took]).value:.1f} s in total; processor time"
    return Row("start-up beyond the model libraries, seconds", "embedded", found, "< 0.3", found.value < 0.3, note)


def _started() -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "performance.startup", folder]
        # One thread: with more, processor time would include threads waiting for each other.
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        printed = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    found = json.loads(printed.splitlines()[-1])
    return found["own"], found["all"]


def as_json(row: Row) -> dict[str, Any]:
    return asdict(row)


def exactness(report: Callable[[str, float], None]) -> bool:
    """Whether refcore and the tight loop compute the same parameters; each difference goes to `report`."""
    fine = True
    for name, config in (("embedded", models.embedded()), ("the paper's terms", models.paper())):
        found = differences(config)
        report(name, found)
        fine &= found < EXACT
    return fine
