"""No module of the four packages imports itself by way of others, not even inside a function.

import-linter holds the walls between packages (pyproject.toml). It does not see a package's `__init__` and a module
inside the package that import each other, so circles of modules are looked for here.
"""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

PACKAGES = ("refcore", "refcore_plugins", "refcore_playground", "refcore_bench")


def circle(*packages: str) -> list[str]:
    """Modules of a circle of imports, the first one again at its end; [] where there is none.

    Imports for type checkers alone do not count: they never run.
    """
    graph = grimp.build_graph(*packages, exclude_type_checking_imports=True, cache_dir=None)
    try:
        TopologicalSorter({name: graph.find_modules_directly_imported_by(name) for name in graph.modules}).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def plant(folder: Path, **modules: str) -> None:
    """Writes a package of these modules."""
    folder.mkdir()
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text + "\n")


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert circle(*PACKAGES) == []


def test_planted_circles_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    late = "def late():\n    from planted_late import a"
    plant(tmp_path / "planted", __init__="", a="from planted import b", b="from planted import a")
    plant(tmp_path / "planted_late", __init__="", a="from planted_late import b", b=late)
    plant(tmp_path / "planted_package", __init__="from planted_package.a import x", a="import planted_package")
    monkeypatch.syspath_prepend(tmp_path)
    assert set(circle("planted")) == {"planted.a", "planted.b"}
    assert set(circle("planted_late")) == {"planted_late.a", "planted_late.b"}
    assert set(circle("planted_package")) == {"planted_package", "planted_package.a"}


def test_a_circle_for_type_checkers_alone_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    types = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from planted_types import a"
    plant(tmp_path / "planted_types", __init__="", a="from planted_types import b", b=types)
    monkeypatch.syspath_prepend(tmp_path)
    assert circle("planted_types") == []
