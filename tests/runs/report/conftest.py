"""The toys of `toys.py` are registered for every test of this folder."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _toys(toys: None) -> None:
    pass
