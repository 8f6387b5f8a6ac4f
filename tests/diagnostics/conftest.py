"""Registers the toys of `toys.py` for every test in this folder."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _toys(toys: None) -> None:
    pass
