"""Lengths of time, as people write and read them: 30s, 5m, 2h, 7d."""

from __future__ import annotations

import math
import re

UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def seconds_of(text: str) -> float | None:
    """A number with its unit in seconds; None for anything else.

    >>> seconds_of("30s"), seconds_of("1.5h"), seconds_of("7d"), seconds_of("50")
    (30.0, 5400.0, 604800.0, None)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhdw])\s*", text)
    if found is None:
        return None
    seconds = float(found[1]) * UNITS[found[2]]
    return seconds if math.isfinite(seconds) else None


def in_words(seconds: float) -> str:
    """Seconds in the unit that a reader would take.

    >>> in_words(8.2), in_words(300), in_words(9000), in_words(400_000)
    ('8 s', '5 min', '2.5 h', '4.6 d')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6_000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3_600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} d"
