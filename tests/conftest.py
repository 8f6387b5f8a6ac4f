"""Fixtures of all tests: the registry is restored after each, and the toys of `toys.py` are registered on request."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from refcore import registry


@pytest.fixture(autouse=True)
def _registry_as_it_was() -> Iterator[None]:
    """Unregisters the plugins that a test has registered."""
    before = {kind: set(registry.names(kind)) for kind in registry.KINDS}
    yield
    for kind, names in before.items():
        for name in set(registry.names(kind)) - names:
            registry.unregister(kind, name)


@pytest.fixture
def toys() -> None:
    """Registers the toys."""
    from toys import PLUGINS

    for kind, classes in PLUGINS.items():
        for name, cls in classes.items():
            if name not in registry.names(kind):
                registry.register(kind, name, cls, "of the tests")
