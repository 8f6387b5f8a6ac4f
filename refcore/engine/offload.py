"""Offload: frozen weights are on their device only while their plugin is evaluated, and otherwise in the CPU's memory.

Weights never change, so only the way to the device is a copy: from pinned memory on CUDA, without a wait. On the way
back the device's copy is let go, and the CPU's, which was never given up, takes its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from refcore.engine.networks import tensors
from refcore.plugin import Plugin

_HOME = "_offloaded_from"
"""Attribute of a plugin whose weights wait on the CPU: the device on which they are needed."""
_INSIDE = "_is_resident"
"""Attribute of such a plugin while its weights are on that device."""


def is_apart(device: torch.device) -> bool:
    """Whether a device has a memory of its own; weights of a run on the CPU are where they would go."""
    return device.type != "cpu"


def to_host(weight: Tensor) -> Tensor:
    """A copy in the CPU's memory; pinned if it comes from CUDA."""
    copy = weight.detach().cpu()
    return copy.pin_memory() if weight.is_cuda else copy


def to_device(weight: Tensor, device: torch.device) -> Tensor:
    """A copy on the device, in the order of its queue."""
    return weight.to(device, non_blocking=True)


def offload(plugin: Plugin, device: torch.device) -> None:
    """Moves the weights of a loaded plugin to the CPU until `resident` wants them; nothing on a CPU."""
    if is_apart(device):
        for weight in tensors(plugin):
            weight.data = to_host(weight)
        vars(plugin)[_HOME] = device


@contextmanager
def resident(plugin: Plugin) -> Iterator[None]:
    """Context in which the weights of a plugin are on its device; a graph with them has to end in it."""
    device = vars(plugin).get(_HOME)
    if device is None or _INSIDE in vars(plugin):
        yield
        return
    waiting: list[tuple[Tensor, Tensor]] = []
    vars(plugin)[_INSIDE] = True
    try:
        for weight in tensors(plugin):
            waiting.append((weight, weight.data))
            weight.data = to_device(weight.data, device)
        yield
    finally:
        for weight, host in waiting:
            weight.data = host
        del vars(plugin)[_INSIDE]
