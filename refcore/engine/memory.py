"""Memory: free bytes of a device, bytes held by a graph, and the number of views that fit at a time."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

SHARE = 0.5
"""Share of the free memory that the graph of a chunk may hold; the rest is for backward pass, decoder and priors."""
SIGNS = (
    "DefaultCPUAllocator: ",
    "MPS backend out of memory",
    "CUDA out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "Invalid buffer size",
    "Storage size calculation overflowed",
    "integer multiplication overflow",
    "Overflow when unpacking long",
    "Python int too large to convert",
    "int too big to convert",
    "into an index-sized integer",
    "cannot allocate memory",
)
"""Parts of the messages by which torch and Python say that memory is short, or a size beyond any."""
CGROUP = Path("/sys/fs/cgroup")
"""Folder in which Linux keeps the memory limit of a container."""


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be allocated on a device; None where that is unknown.

    CUDA: what the driver has left and what torch holds without using it. MPS: up to the recommended limit. CPU: what
    the system could hand out without swapping, and no more than the container's limit leaves.
    """
    if device.type == "cuda":
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return min(int(torch.cuda.mem_get_info(device)[0]) + held, _of_own_part(device))
    if device.type == "mps":
        return max(0, int(torch.mps.recommended_max_memory()) - int(torch.mps.current_allocated_memory()))
    if device.type != "cpu":
        return None
    return min((found for found in (_of_system(), _of_container()) if found is not None), default=None)


def total_memory(device: torch.device) -> int | None:
    """Bytes that a device has; None where that is unknown."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory())
    if device.type != "cpu":
        return None
    limit = _number(CGROUP / "memory.max")
    pages = _sysconf("SC_PHYS_PAGES")
    installed = None if pages is None else pages * (_sysconf("SC_PAGE_SIZE") or 4096)
    return min((found for found in (installed, limit) if found is not None), default=None)


def _of_own_part(device: torch.device) -> int:
    """Bytes that a process which shares its GPU with others may still allocate; by default the whole GPU's are its."""
    fraction = getattr(torch.cuda, "get_per_process_memory_fraction", lambda device: 1.0)(device)  # from torch 2.7 on
    whole = torch.cuda.get_device_properties(device).total_memory
    return max(0, int(fraction * whole) - torch.cuda.memory_allocated(device))


def graph_bytes(forward: Callable[[], Any]) -> int:
    """Bytes that the graph of `forward` keeps for its backward pass, weights included, every storage once.

    >>> x = torch.ones(1000, requires_grad=True)
    >>> graph_bytes(lambda: x.exp().sin())          # the output of exp and the input of sin are one tensor
    4000
    """
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.enable_grad(), saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()  # noqa: F841  # as long as it lives, so does what was kept
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def peak_storages(work: Callable[[], Any]) -> int:
    """Peak bytes of live tensors made by `work`, fake tensors included.

    On fake tensors (torch's FakeTensorMode) this takes neither the memory nor the time. Temporary buffers of operations
    are not included.
    """
    storages = _Storages()
    with storages:
        work()
    return storages.peak


def held_storages(work: Callable[[], Any]) -> int:
    """Bytes of live tensors made by `work` while its result lives, graph included; otherwise as `peak_storages`."""
    storages = _Storages()
    with storages:
        result = work()  # noqa: F841  # as long as it lives, so does what it holds
        return storages.held


class _Storages(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.held = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for value in tree_leaves((args, kwargs or {})):  # inputs made elsewhere do not count
            if isinstance(value, Tensor):
                self._meet(value, made=False)
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self._meet(value, made=True)
        return result

    def _meet(self, tensor: Tensor, made: bool) -> None:
        storage = tensor.untyped_storage()
        place, size = storage._cdata, storage.nbytes() if made else 0
        if place in self._known:
            return
        self._known.add(place)
        self.held += size
        self.peak = max(self.peak, self.held)
        weakref.finalize(storage, self._forget, place, size)

    def _forget(self, place: int, size: int) -> None:
        self._known.discard(place)
        self.held -= size


def chunk_that_fits(each: int, free: int | None, most: int) -> int:
    """Number of views of `each` bytes judged at a time, 1 to `most`, with `free` bytes left (None: unknown).

    >>> chunk_that_fits(each=1_000_000_000, free=10_000_000_000, most=8), chunk_that_fits(1, None, 8)
    (5, 8)
    """
    if free is None or not each:
        return most
    return max(1, min(most, int(SHARE * free) // each))


def is_out_of_memory(error: BaseException) -> bool:
    """True for an error that says that a device, or the machine, is out of memory, or that no memory is that large."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    said = str(error)
    return isinstance(error, (RuntimeError, OverflowError, ValueError, TypeError)) and any(
        sign in said for sign in SIGNS
    )


def release(device: torch.device) -> None:
    """Returns memory that torch has reserved but does not use to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def _of_system() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:  # no Linux
        pass
    pages = _sysconf("SC_AVPHYS_PAGES")
    return None if pages is None else pages * (_sysconf("SC_PAGE_SIZE") or 4096)


def _of_container() -> int | None:
    limit, used = _number(CGROUP / "memory.max"), _number(CGROUP / "memory.current")
    return None if limit is None or used is None else max(0, limit - used)


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None  # "max" is no limit


def _sysconf(name: str) -> int | None:
    try:
        return os.sysconf(name)
    except (ValueError, OSError, AttributeError):  # AttributeError: Windows
        return None
