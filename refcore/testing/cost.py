"""The cost of one view: seconds forward and backward, and memory held in between."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

MEGABYTE = 2**20


@dataclass(frozen=True)
class Cost:
    """Cost per view (or sample), from the fastest of several runs."""

    forward: float
    """Seconds."""
    backward: float
    """Seconds."""
    megabytes: float
    """Memory for the backward pass: tensors saved by autograd, without weights; on CUDA, the peak above the start."""

    @property
    def seconds(self) -> float:
        return self.forward + self.backward

    def to_dict(self) -> dict[str, float]:
        """Ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{1000 * self.forward:.2f} ms forward, {1000 * self.backward:.2f} ms backward, {self.megabytes:.2f} MB"


def measure(
    forward: Callable[[], Tensor], inputs: list[Tensor], n: int, weights: Iterable[Tensor] = (), repeats: int = 3
) -> Cost:
    """The cost of a differentiable call.

    Args:
        forward: returns losses that depend on `inputs`.
        inputs: leaf tensors that require gradients.
        n: views per call, by which the cost is divided.
        weights: tensors that do not count as held.
        repeats: number of timed runs, after one to warm up.
    """
    device = inputs[0].device
    known = {t.untyped_storage().data_ptr() for t in (*inputs, *weights)}
    best = [float("inf"), float("inf")]
    held = 0.0
    for repeat in range(repeats + 1):
        saved = _Saved(known)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
        began = _now(device)
        if repeat:
            loss = forward()
        else:
            with torch.autograd.graph.saved_tensors_hooks(saved.pack, saved.unpack):
                loss = forward()
        middle = _now(device)
        torch.autograd.grad(loss.sum(), inputs, allow_unused=True)
        ended = _now(device)
        if device.type == "cuda":
            held = max(held, torch.cuda.max_memory_allocated(device) - before)
        elif not repeat:
            held = float(sum(saved.sizes.values()))
        if repeat:
            best = [min(best[0], middle - began), min(best[1], ended - middle)]
        del loss
    return Cost(best[0] / n, best[1] / n, held / n / MEGABYTE)


class _Saved:
    """Sizes of the storages that autograd saves, without repeats and without known ones."""

    def __init__(self, known: set[int]) -> None:
        self.known = known
        self.sizes: dict[int, int] = {}

    def pack(self, tensor: Tensor) -> Any:
        pointer = tensor.untyped_storage().data_ptr()
        if pointer not in self.known:
            self.sizes[pointer] = tensor.untyped_storage().nbytes()
        return tensor

    @staticmethod
    def unpack(packed: Any) -> Any:
        return packed


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
