"""What a test of this folder registers is forgotten after it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from refcore import registry


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    torch.set_num_threads(1)
    before = {kind: set(registry.names(kind)) for kind in registry.KINDS}
    yield
    for kind, names in before.items():
        for name in set(registry.names(kind)) - names:
            registry.unregister(kind, name)
