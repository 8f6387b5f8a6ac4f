"""The notebooks of docs/ are executed, small, and print again what they have printed; their pages need no script."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("nbclient", reason="nbclient is not installed")
pytest.importorskip("ipykernel", reason="ipykernel is not installed")

ROOT = Path(__file__).parents[2]
MOST_BYTES = 400_000


def module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


notebooks = module(ROOT / "tests" / "docs" / "notebooks.py")
hook = module(ROOT / "docs" / "hooks" / "notebooks.py")
FOUND: list[Path] = notebooks.NOTEBOOKS


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def printed(cell: Any) -> str:
    return "".join("".join(output["text"]) for output in cell["outputs"] if output["output_type"] == "stream")


def kinds(cell: Any) -> list[list[str]]:
    """What else a cell shows: the kinds of each output."""
    return [sorted(output["data"]) for output in cell["outputs"] if output["output_type"] != "stream"]


def test_there_is_a_notebook() -> None:
    assert [path.name for path in FOUND] == ["first-inversion.ipynb"]


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.stem)
def test_a_notebook_is_small_executed_in_order_and_shows_no_error(path: Path) -> None:
    assert path.stat().st_size < MOST_BYTES
    cells = code(json.loads(path.read_text("utf-8")))
    assert [cell["execution_count"] for cell in cells] == [*range(1, len(cells) + 1)]
    assert all(output["output_type"] != "error" for cell in cells for output in cell["outputs"])


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.stem)
def test_no_output_needs_a_widget_and_every_picture_has_a_text(path: Path) -> None:
    text = path.read_text("utf-8")
    assert "application/vnd.jupyter" not in text
    for cell in code(json.loads(text)):
        for output in cell["outputs"]:
            data = output.get("data", {})
            html = "".join(data.get("text/html", ""))
            assert html.count("<img") == html.count('alt="a red circle')
            assert "image/png" not in data or "text/html" in data or cell["metadata"]["alt"]


@pytest.mark.slow
@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.stem)
def test_every_cell_runs_and_prints_and_shows_what_is_committed(path: Path) -> None:
    committed, again = code(json.loads(path.read_text("utf-8"))), code(notebooks.executed(path))
    assert [printed(cell) for cell in again] == [printed(cell) for cell in committed]
    assert [kinds(cell) for cell in again] == [kinds(cell) for cell in committed]
    assert any(printed(cell) for cell in committed)


def test_a_page_has_the_cells_and_outputs_in_order_and_a_link_to_the_file(tmp_path: Path) -> None:
    outputs = [
        {"output_type": "stream", "name": "stdout", "text": ["one\n", "two\n"]},
        {"output_type": "display_data", "metadata": {}, "data": {"text/html": ["<p>\n", "h</p>"], "text/plain": "p"}},
        {"output_type": "display_data", "metadata": {}, "data": {"image/png": "AAAA\n", "text/plain": "p"}},
        {"output_type": "execute_result", "metadata": {}, "data": {"text/plain": ["3"]}},
    ]
    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": ["# Title\n", "\n", "Text."]},
        {"cell_type": "code", "metadata": {"alt": 'a "b"'}, "source": "1 + 2", "outputs": outputs},
    ]
    (tmp_path / "n.ipynb").write_text(json.dumps({"cells": cells}))
    assert hook.page("n.ipynb", tmp_path / "n.ipynb").split("\n\n") == [
        "# Title",
        "*This page is a notebook with its outputs: [download it](n.ipynb).*",
        "Text.",
        "```python\n1 + 2\n```",
        "```text\none\ntwo\n```",
        '<div class="output"><p> h</p></div>',
        '<div class="output"><img alt="a &quot;b&quot;" src="data:image/png;base64,AAAA"></div>',
        "```text\n3\n```\n",
    ]
