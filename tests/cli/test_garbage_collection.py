"""Loading without garbage collection: it is restored after a failure, and a run starts without torch and rich."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from refcore.cli.garbage_collection import without_garbage_collection


@pytest.fixture(autouse=True)
def _thawed():
    yield
    gc.unfreeze()


def test_no_garbage_is_collected_while_loading_and_what_was_made_is_not_looked_through_again():
    before = gc.get_freeze_count()
    with without_garbage_collection():
        assert not gc.isenabled()
        kept = [[] for _ in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= before + len(kept)


def test_the_collector_is_back_after_a_failure_and_stays_off_where_it_was_off():
    with pytest.raises(ValueError, match="no checkpoint"), without_garbage_collection():
        raise ValueError("no checkpoint")
    assert gc.isenabled()
    gc.disable()
    try:
        with without_garbage_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_run_starts_without_torch_and_without_rich():
    program = "import refcore.cli.app, refcore.cli.invert, sys; print({'torch', 'rich'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert printed == "set()\n"
