"""The packages under examples/ are what they say: plugins that register by entry point, and whose own tests pass."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from setuptools import find_packages

from refcore.registry import Registry

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted(path.parent for path in (ROOT / "examples").glob("*/pyproject.toml"))


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_an_example_registers_by_its_entry_point(folder, monkeypatch):
    monkeypatch.syspath_prepend(str(folder))
    points = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["entry-points"]["refcore"]
    registry = Registry([EntryPoint(name, value, "refcore") for name, value in points.items()])
    rows = registry.rows(check=True)
    assert rows
    assert [row.error for row in rows] == [None] * len(rows)


def test_no_example_is_in_the_wheel():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    packages = find_packages(str(ROOT), include=settings["find"]["include"])
    assert "refcore_plugins.referees" in packages
    for folder in EXAMPLES:
        own = tomllib.loads((folder / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
        assert not set(own) & set(packages)


@pytest.mark.slow
@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_an_examples_own_tests_pass_on_what_is_installed(folder, tmp_path):
    """Installed into a folder of its own, so that the entry point is the package's, not this checkout's."""
    install = ["pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(tmp_path / "site")]
    source = tmp_path / folder.name
    subprocess.run(["cp", "-r", str(folder), str(source)], check=True)
    subprocess.run([sys.executable, "-m", *install, str(source)], check=True)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    command = [sys.executable, "-c", "from refcore.cli import main; main()", "plugins", "--check", "--json"]
    listed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    rows = [row for row in json.loads(listed.stdout) if row["distribution"] == folder.name]
    assert rows
    assert [row["error"] for row in rows] == [None] * len(rows)
    subprocess.run([sys.executable, "-m", "pytest", "-q", str(source / "tests")], env=environment, check=True)
