"""Whether the hub can be reached: without a network its client would retry for minutes, file by file."""

from __future__ import annotations

import socket
import time
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import constants

SECONDS: Final = 5.0
"""Longest time that a connection may take."""
AGE: Final = 30.0
"""Seconds for which an answer holds."""
_FORCED: Final = constants.HF_HUB_OFFLINE
"""Whether the environment forbids the network, which nothing here changes."""
_asked: list[float] = []
"""When the hub was last asked."""


def offline_unless_reachable() -> None:
    """Sets the hub's client to its cache alone where no connection to the hub can be made, and back where one can.

    So a cached model loads, and a missing one is an error, at once. Behind a proxy nothing is tried.
    """
    if _FORCED or (_asked and time.monotonic() - _asked[-1] < AGE):
        return
    constants.HF_HUB_OFFLINE = not _reachable()
    _asked[:] = [time.monotonic()]


def try_again() -> None:
    """Lets the hub's client connect, whatever was found before: for a command that is about the hub."""
    constants.HF_HUB_OFFLINE = _FORCED
    _asked.clear()


def _reachable() -> bool:
    place = urlsplit(constants.ENDPOINT)
    if getproxies().keys() & {place.scheme, "all"} or place.hostname is None:
        return True
    try:
        with socket.create_connection(
            (place.hostname, place.port or (80 if place.scheme == "http" else 443)), timeout=SECONDS
        ):
            return True
    except OSError:
        return False
