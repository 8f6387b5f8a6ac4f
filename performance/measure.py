"""Measurements that are reliable on a shared machine: paired ratios, the allocator's own peaks, counted operations."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.autograd.profiler import profile
from torch.utils.flop_counter import FlopCounterMode

CONFIDENCE = 0.95
RESAMPLES = 2000
SEED = 0
"""Random seed of the bootstrap."""

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Interval:
    """A median with its bootstrap confidence interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        digits = 3 if self.value >= 0.1 or not self.value else 5
        return f"{self.value:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"

    def __mul__(self, factor: float) -> Interval:
        return Interval(self.value * factor, self.low * factor, self.high * factor)


def median(values: Sequence[float] | Array) -> Interval:
    """The median with its percentile bootstrap interval (Efron 1979), resampled with a fixed seed.

    >>> median([1.0, 1.0, 1.0])
    Interval(value=1.0, low=1.0, high=1.0)
    """
    x = np.asarray(values, float)
    drawn = np.random.default_rng(SEED).integers(0, len(x), (RESAMPLES, len(x)))
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(np.median(x[drawn], axis=1), [tail, 100 - tail])
    return Interval(float(np.median(x)), float(low), float(high))


def seconds(work: Callable[[], Any]) -> float:
    """Processor time of `work`, over all threads of this process, per thread; wall-clock time on a CUDA device.

    On a shared machine, wall-clock time would include the work of other processes.
    """
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        began = time.perf_counter()
        work()
        torch.cuda.synchronize()
        return time.perf_counter() - began
    began = time.process_time()
    work()
    return (time.process_time() - began) / torch.get_num_threads()


@dataclass(frozen=True)
class Paired:
    """Alternating timings of two functions, pair by pair."""

    first: Array
    """Seconds, one per pair."""
    second: Array

    @property
    def ratio(self) -> Interval:
        """first / second, the median over the pairs."""
        return median(self.first / self.second)


def paired(first: Callable[[], Any], second: Callable[[], Any], pairs: int, warm_up: int = 2) -> Paired:
    """Times two functions in alternating order, so that other load on the machine affects both equally."""
    for _ in range(warm_up):
        first()
        second()
    taken: list[tuple[float, float]] = []
    for i in range(pairs):
        if i % 2:
            b = seconds(second)
            taken.append((seconds(first), b))
        else:
            a = seconds(first)
            taken.append((a, seconds(second)))
    times = np.array(taken)
    return Paired(times[:, 0], times[:, 1])


def peak_bytes(work: Callable[[], Any]) -> int:
    """Peak bytes allocated by torch during `work`, above those allocated before.

    Counted from the allocator's own events, so temporary buffers of operations are included.
    """
    with profile(profile_memory=True) as profiler:
        work()
    events = [e for e in profiler.kineto_results.events() if e.name() == "[memory]"]
    held = np.cumsum([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())])
    return int(max(0, held.max(initial=0)))


def flops(work: Callable[[], Any]) -> int:
    """Floating-point operations of the matrix products and convolutions in `work`; a multiply-add counts as two."""
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def machine_rate(side: int = 1024, tries: int = 7) -> float:
    """Peak floating-point operations per second of this machine in a float32 matrix product."""
    a, b = torch.rand(side, side), torch.rand(side, side)
    a @ b
    return 2.0 * side**3 / min(seconds(lambda: a @ b) for _ in range(tries))
