"""A watch on a run: a note on stderr, by the logger "refcore", when no step comes for a minute."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from refcore.engine.checks import working

SECONDS = 60.0
"""Time without a step before the first note; the next comes after twice as long."""
log = logging.getLogger("refcore")


class Watch:
    """Notes, from a thread of its own, that a run has stood still, and which plugin it is in."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self.seconds = seconds
        self._thread = threading.get_ident()
        self._last = time.monotonic()
        self._ended = threading.Event()

    def beat(self) -> None:
        """Says that the run has moved on."""
        self._last = time.monotonic()

    def end(self) -> None:
        """Ends the watch."""
        self._ended.set()

    def watch(self) -> None:
        """Waits for the end, with a note whenever nothing has moved for `seconds`, then twice as long, and so on."""
        last, limit = self._last, self.seconds
        while not self._ended.wait(max(0.0, self._last + limit - time.monotonic())):
            if self._last != last:
                last, limit = self._last, self.seconds
            still = time.monotonic() - last
            if still >= limit:
                limit *= 2
                where = working(self._thread)
                log.warning("no step for %.0f s; %s", still, f"in {where}" if where else "between calls of plugins")


@contextmanager
def watched() -> Iterator[Watch]:
    """A watch on this thread, until the context ends."""
    watch = Watch(SECONDS)
    threading.Thread(target=watch.watch, name="refcore-watch", daemon=True).start()
    try:
        yield watch
    finally:
        watch.end()
