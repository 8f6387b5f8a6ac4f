"""Loading without the garbage collector, which would look through a million imported objects again and again."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """No garbage is collected inside, and what was made there is never looked through later.

    The model libraries make a million objects on import, and all of them stay: a quarter of the time to a run's first
    step went into finding that out. For a command that loads once; a process that loads again and again would keep the
    cycles of every time.
    """
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if on:
            gc.enable()
