"""The state of an inversion as one safetensors file: tensors, and as metadata plain values in JSON and a checksum."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from refcore.errors import RefcoreError
from refcore.runs.rundir import write

META = "refcore"
"""Key of the plain values in the file's metadata."""
CHECKSUM = "sha256"
"""Key of the checksum beside them."""


def save_state(state: Mapping[str, Any], path: str | Path) -> Path:
    """Writes the `state_dict` of an `Inversion`, whole or not at all; an older state at `path` is replaced.

    Args:
        state: `tensors` (name -> tensor) and `meta` (plain values).
        path: of the file.

    Raises:
        RefcoreError: the file cannot be written.

    Example:
        >>> save_state(inversion.state_dict(), "state.safetensors")            # doctest: +SKIP
        >>> Inversion(config, state=load_state("state.safetensors"))           # doctest: +SKIP
    """
    path = Path(path)
    tensors: Mapping[str, Tensor] = state["tensors"]
    here = {name: value.detach().cpu() for name, value in tensors.items()}
    plain = {name: value.clone(memory_format=torch.contiguous_format) for name, value in here.items()}
    # The order in memory decides in which order a kernel sums.
    strides = {name: value.stride() for name, value in here.items() if not value.is_contiguous()}
    text = json.dumps({"meta": state["meta"], "strides": strides})
    write(path, save(plain, {META: text, CHECKSUM: _checksum(plain, text)}))
    return path


def load_state(path: str | Path) -> dict[str, Any]:
    """The state that `save_state` wrote, on the CPU. Reading it runs no code of the file.

    Raises:
        RefcoreError: the file is missing, not a state, or not as it was written.
    """
    if not Path(path).is_file():
        raise RefcoreError(f'there is no saved state at "{path}"; write one with refcore.runs.state.save_state')
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            kept = file.metadata() or {}
        whole = kept[CHECKSUM] == _checksum(tensors, kept[META])
        stored = json.loads(kept[META])
        tensors |= {name: _in_order(tensors[name], stride) for name, stride in stored["strides"].items()}
        state = {"tensors": tensors, "meta": stored["meta"]}
    except (SafetensorError, OSError, KeyError, ValueError, RecursionError) as error:
        raise RefcoreError(
            f'"{path}" is not a saved state ({type(error).__name__}); write it anew with refcore.runs.state.save_state'
        ) from error
    if not whole:
        raise RefcoreError(f'the saved state "{path}" is damaged: its checksum is another')
    return state


def _checksum(tensors: Mapping[str, Tensor], text: str) -> str:
    """SHA-256 of tensors, with their names, dtypes and shapes, and of a text."""
    found = hashlib.sha256(text.encode())
    for name, value in sorted(tensors.items()):
        found.update(f"\0{name} {value.dtype} {list(value.shape)}\0".encode())
        found.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _in_order(value: Tensor, stride: list[int]) -> Tensor:
    """The same tensor in another order in memory."""
    return torch.empty_strided(value.shape, stride, dtype=value.dtype).copy_(value)
