"""The page of faults names every fault and, for each, tests that are there."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
COUNTS = {"1": 14, "2": 4, "3": 6, "4": 14, "5": 11}
"""Faults of each kind: 1.1 to 1.14, and so on."""


@pytest.fixture(scope="module")
def faults() -> ModuleType:
    spec = importlib.util.spec_from_file_location("faults", Path(__file__).with_name("faults.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_fault_from_1_1_to_5_11_stands_on_the_page_in_order(faults: ModuleType) -> None:
    numbers = [f"{kind}.{n}" for kind, count in COUNTS.items() for n in range(1, count + 1)]
    assert list(faults.FAULTS) == numbers
    assert re.findall(r"^### (\d\.\d+)$", faults.PAGE.read_text("utf-8"), re.MULTILINE) == numbers


def test_every_fault_has_a_test_and_every_mark_a_fault(faults: ModuleType) -> None:
    marked = faults.marked()
    assert sorted(set(faults.FAULTS) - set(marked) - faults.OPEN) == []
    assert sorted(set(marked) - set(faults.FAULTS)) == []


def test_the_page_is_the_one_that_the_marks_make(faults: ModuleType) -> None:
    """So every test on it exists; if this fails, run `python tests/docs/faults.py`."""
    assert faults.PAGE.read_text("utf-8") == faults.page()


def test_marks_of_a_module_and_of_a_function_are_those_that_pytest_collects(faults: ModuleType) -> None:
    """By `pytest -m fault`, on files with either."""
    for folder in ("tests/engine/test_models.py", "tests/config/test_start.py", "tests/test_prompts.py"):
        run = subprocess.run(
            [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "fault", folder],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        collected = set(re.findall(rf"{folder}::(test_\w+)", run.stdout))
        assert collected == {name for files in faults.marked().values() for name in files.get(folder, [])}
