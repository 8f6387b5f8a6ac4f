"""Dtypes by their names in a config, and autocast."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, overload

import torch


@overload
def dtype_of(name: str) -> torch.dtype: ...
@overload
def dtype_of(name: None) -> None: ...
def dtype_of(name: str | None) -> torch.dtype | None:
    """The torch dtype of a config's name for it; None and "off" are None."""
    return None if name in (None, "off") else getattr(torch, name)


def autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[Any]:
    """torch.autocast in `dtype`; no context with None."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)
