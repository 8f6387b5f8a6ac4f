"""Registers the toys of `toys.py` for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from toys import PLUGINS

from refcore import registry


@pytest.fixture(autouse=True, scope="package")
def _toys() -> Iterator[None]:
    for kind, classes in PLUGINS.items():
        for name, cls in classes.items():
            registry.register(kind, name, cls, "of the tests")
    yield
    for kind, classes in PLUGINS.items():
        for name in classes:
            registry.unregister(kind, name)
