"""What can be told of a run before a model is loaded: every problem at once, each in a line, whatever the names are."""

from __future__ import annotations

from pathlib import Path

import pytest
from toys import ToyReferee, toy_config

from refcore.engine.preflight import problems


@pytest.mark.parametrize("name", ["missing.png", f"{'x' * 300}.png", "~nobody-at-all/x.png"])
def test_a_file_of_this_machine_that_is_absent_is_a_problem(name: str) -> None:
    config = toy_config(witnesses=[{"name": "image", "config": {"reference": name}}])
    (problem,) = problems(config)
    assert "reference is" in str(problem)
    assert "no such file" in str(problem)


def test_images_to_start_from_are_looked_at(tmp_path: Path) -> None:
    (problem,) = problems(toy_config(init={"image": str(tmp_path / "none.png")}))
    assert "init.image" in str(problem)


def test_a_check_that_breaks_is_a_problem_that_names_the_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ToyReferee, "check", lambda self, prompts: 1 / 0)
    assert all('referee "toy"' in str(problem) for problem in problems(toy_config()))
    assert list(problems(toy_config()))
