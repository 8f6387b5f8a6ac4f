"""Named points between two writes of a run. Tests stop a run at each of them; a run itself passes by."""

from __future__ import annotations

from collections.abc import Callable


def _pass(point: str) -> None:
    """What happens at a point outside tests: nothing."""


reached: Callable[[str], None] = _pass
"""Told a point as the run gets there: a file's name, and what has just been done to it."""
