"""What asks a run to end early: Ctrl-C (SIGINT) and SIGTERM, held back until nothing is cut in half."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from refcore.errors import Terminated


@contextmanager
def held_back() -> Iterator[Callable[[], KeyboardInterrupt | None]]:
    """A function that gives what has asked the run to end, None where nothing has.

    The first Ctrl-C is only noted, and the second one acts at once; SIGTERM, whose senders repeat it, is always only
    noted. Outside the main thread, where Python delivers no signals, nothing is.
    """
    asked: KeyboardInterrupt | None = None
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = KeyboardInterrupt()
        signal.signal(signal.SIGINT, before)

    def on_terminate(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = Terminated()

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        with _terminating(on_terminate):
            yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def raised() -> Iterator[None]:
    """SIGTERM raises Terminated at once, as Ctrl-C raises KeyboardInterrupt, so that what was begun is cleared away."""

    def on_terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated("ended by SIGTERM")

    with _terminating(on_terminate):
        yield


@contextmanager
def _terminating(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """A handler of SIGTERM, unless the program that the run is part of has its own."""
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
