"""The progress bar shows each term's loss where stderr is a terminal, and is silent elsewhere."""

from __future__ import annotations

import sys

import pytest
from toys import toy_config

import refcore
from refcore.runs import observers
from refcore.runs.observers import Progress, mean_losses


def test_a_terminal_is_shown_every_loss(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(observers, "REFRESH_SECONDS", 0.0)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")
    bar = Progress()
    refcore.invert("a", config=toy_config(), observers=[bar])
    printed = capsys.readouterr()
    assert "6/6" in printed.err
    assert "toy-2" in printed.err
    assert printed.out == ""
    assert bar._bar.finished


def test_a_pipe_is_shown_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    refcore.invert("a", config=toy_config(), observers=[Progress()])
    assert capsys.readouterr() == ("", "")


def test_a_loss_is_the_mean_over_the_tracks_that_move() -> None:
    record = {"losses": {"a": [1.0, 2.0, 6.0], "b": [9.0, 0.5, 1.5]}, "active": [False, True, True]}
    assert mean_losses(record) == "a 4.000  b 1.000"
    assert mean_losses({"losses": {"a": [1.0]}, "active": [False]}) == ""
