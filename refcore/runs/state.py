"""The state of an inversion as one safetensors file: tensors, and in the file's metadata plain values as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from refcore.errors import RefcoreError
from refcore.runs.rundir import write

META = "refcore"
"""Key of the plain values in the file's metadata."""


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
    plain = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    write(path, save(plain, {META: json.dumps(state["meta"])}))
    return path


def load_state(path: str | Path) -> dict[str, Any]:
    """The state that `save_state` wrote, on the CPU. Reading it runs no code of the file.

    Raises:
        RefcoreError: the file is missing, corrupt, or not a state.
    """
    if not Path(path).is_file():
        raise RefcoreError(f'there is no saved state at "{path}"; write one with refcore.runs.state.save_state')
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            meta = json.loads((file.metadata() or {})[META])
    except (SafetensorError, OSError, KeyError, ValueError, RecursionError) as error:
        raise RefcoreError(
            f'"{path}" is not a saved state ({type(error).__name__}); write it anew with refcore.runs.state.save_state'
        ) from error
    return {"tensors": tensors, "meta": meta}
