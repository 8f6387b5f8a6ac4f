"""A terminal is shown a bar with each term's loss; a log gets a line now and then."""

from __future__ import annotations

import logging
import sys
import time

import pytest
from toys import toy_config

import refcore
from refcore.runs import observers
from refcore.runs.observers import Lines, Progress, losses_in_words


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
    assert losses_in_words(record) == "a 4.000  b 1.000"
    assert losses_in_words({"losses": {"a": [1.0]}, "active": [False]}) == ""


@pytest.mark.fault("4.8")
def test_a_log_gets_a_line_every_so_often_with_what_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    refcore.invert("a", config=toy_config(), observers=[Lines(every=0, patience=0)])
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = printed.err.splitlines()
    assert lines[0] == "loading toy_latent, toy, toy_sds, smooth"
    assert lines[1].startswith("loaded in ")
    assert [line.partition(",")[0] for line in lines[2:]] == [f"step {n} of 6" for n in range(1, 7)]
    assert "0 s left: toy " in lines[-1]


@pytest.mark.fault("4.8")
def test_a_short_run_is_not_talked_about(capsys: pytest.CaptureFixture[str]) -> None:
    refcore.invert("a", config=toy_config(), observers=[Lines(patience=60)])
    assert capsys.readouterr() == ("", "")


@pytest.mark.fault("4.8")
def test_loading_that_takes_long_is_said_and_a_failure_ends_the_waiting(capsys: pytest.CaptureFixture[str]) -> None:
    slow, failed = Lines(patience=0.01), Lines(patience=0.2)
    slow.before_load(toy_config())
    failed.before_load(toy_config())
    failed.on_exit()
    time.sleep(0.4)
    assert capsys.readouterr().err == "loading toy_latent, toy, toy_sds, smooth\n"


@pytest.mark.fault("4.8")
def test_python_logs_loading_steps_and_the_folder(caplog: pytest.LogCaptureFixture, tmp_path) -> None:
    caplog.set_level(logging.INFO, "refcore")
    refcore.invert("a", config=toy_config(), out=tmp_path)
    assert caplog.messages[0].startswith("loading toy_latent")
    assert caplog.messages[-1] == f"written to {tmp_path}"


@pytest.mark.fault("4.8")
def test_observers_are_left_where_nothing_can_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[str] = []
    observer = Lines(say=left.append)
    monkeypatch.setattr(observer, "on_exit", lambda: left.append("left"))
    monkeypatch.setattr("refcore.runs.run.build", lambda config, models: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        refcore.invert("a", config=toy_config(), observers=[observer])
    assert left == ["left"]
