"""What a worker takes of a machine: as many runs share a GPU as its memory holds, by refcore's own count."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from refcore.config.run import RunConfig
from refcore.diagnostics import footprint
from refcore.errors import RefcoreError

HEADROOM = 1.5
"""Memory that a run is given, in units of the least that it needs: more views judged at a time, and kernels."""
CONTEXT = 600 * 10**6
"""Bytes that CUDA takes for each process, about."""
USABLE = 0.95
"""Share of a GPU's memory that is handed out."""
MOST_SHARING = 16
"""Processes on one GPU at most; more wait for each other."""
STEPS = 10_000
"""Parts of a GPU that Ray tells apart."""


@dataclass(frozen=True)
class Resources:
    """Of one worker."""

    cpus: int = 1
    gpus: float = 0.0

    def __str__(self) -> str:
        gpu = "" if not self.gpus else ", one GPU" if self.gpus == 1 else f", {self.gpus:g} of a GPU"
        return f"{self.cpus} CPU{'s' if self.cpus > 1 else ''}{gpu}"

    def fitting(self, node: Mapping[str, float]) -> int:
        """Number of workers that a machine with these resources, as Ray names them, has room for."""
        by_cpu = int(node.get("CPU", 0) // self.cpus)
        return min(by_cpu, int((node.get("GPU", 0) + 1 / STEPS) // self.gpus)) if self.gpus else by_cpu


def least_bytes(settings: Sequence[Mapping[str, Any] | None], images: int) -> int | None:
    """Bytes of the largest of some runs, with one view judged at a time, as `refcore doctor` counts them.

    Args:
        settings: of each run, without prompts; None for what is no run, and cannot be counted.
        images: made side by side.

    Returns:
        None where the size of some weights or activations is unknown.
    """
    most = 0
    for own in settings:
        if own is None:
            return None
        prompts = [f"picture {i}" for i in range(images)]
        config = RunConfig.from_settings({**own, "prompts": prompts, "seeds": [0]})
        need = footprint.need(footprint.parts(config), config.offload == "cpu")
        if need.unknown:
            return None
        most = max(most, need.most)
    return most


def share_of_gpu(least: int | None, gpu: int | None) -> float:
    """Fraction of a GPU that a run is given: as many as fit share it; a run of unknown size has it for itself.

    Args:
        least: bytes that the run needs at least.
        gpu: bytes of the GPU.

    >>> share_of_gpu(least=4 * 10**9, gpu=24 * 10**9)
    0.3333
    >>> share_of_gpu(least=None, gpu=24 * 10**9)
    1.0
    """
    if least is None or gpu is None:
        return 1.0
    fitting = min(MOST_SHARING, int(USABLE * gpu // (HEADROOM * least + CONTEXT)))
    return math.floor(STEPS / fitting) / STEPS if fitting > 1 else 1.0


def refuse_other_gpus(settings: Iterable[Mapping[str, Any] | None]) -> None:
    """Refuses runs that name a GPU beyond the first, since Ray shows a worker only its own.

    Raises:
        RefcoreError: naming the device.
    """
    for own in settings:
        for device in _devices(own):
            kind, _, number = device.partition(":")
            if kind == "cuda" and number.strip("0"):
                raise RefcoreError(
                    f'device is "{device}", but with --ray each worker sees one GPU, "cuda:0"; expected auto, cuda '
                    "or cpu"
                )


def _devices(value: Any) -> Iterator[str]:
    """Every `device` in settings."""
    if isinstance(value, Mapping):
        if isinstance(value.get("device"), str):
            yield value["device"]
        for each in value.values():
            yield from _devices(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _devices(each)


def wants_gpu(settings: Iterable[Mapping[str, Any] | None]) -> bool:
    """Whether one of some runs would use a GPU where there is one."""
    return any(own is None or str(own.get("device", "auto")).partition(":")[0] in ("auto", "cuda") for own in settings)
