"""The libraries of the benchmark's extras, imported on use; the error for a missing one names the extra."""

from __future__ import annotations

import importlib
from typing import Any

from refcore.errors import RefcoreError


def need(name: str, extra: str = "bench") -> Any:
    """The module called `name`, which an extra brings.

    Raises:
        RefcoreError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        who = "the benchmark" if extra == "bench" else "this"
        raise RefcoreError(
            f'{who} needs {name.partition(".")[0]}, which is not installed: pip install "refcore[{extra}]"'
        ) from error
