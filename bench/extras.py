"""The libraries of the extra `bench`, imported on use; the error for a missing one names the extra."""

from __future__ import annotations

import importlib
from typing import Any

from refcore.errors import RefcoreError


def need(name: str) -> Any:
    """The module called `name`.

    Raises:
        RefcoreError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise RefcoreError(
            f'the benchmark needs {name.partition(".")[0]}, which is not installed: pip install "refcore[bench]"'
        ) from error
