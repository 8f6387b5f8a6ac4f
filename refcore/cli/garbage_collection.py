"""Loading without garbage collection, which would search a million imported objects again and again."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Disables garbage collection inside, and exempts the objects created there from later collections.

    Importing the model libraries creates a million objects that all stay alive, and searching them took a quarter of
    the time to a run's first step. For commands that load once; a process that loads repeatedly would leak cycles.
    """
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if on:
            gc.enable()
