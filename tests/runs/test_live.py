"""A live run gives the bits of a plain one, obeys its controls, shows its errors, and leaves plain HTML."""

from __future__ import annotations

import inspect
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import refcore
from refcore.config.schedule import Piecewise
from refcore.engine.inversion import Inversion
from refcore.errors import RefcoreError
from refcore.runs import live as module
from refcore.runs import steering

pytest.importorskip("ipywidgets", reason="extra `notebook` is not installed")

SETTINGS: dict[str, Any] = {
    "canvas": {"name": "pixel"},
    "size": 16,
    "referees": [],
    "priors": [{"name": "tv"}, {"name": "l2", "weight": 2.0}],
    "combine": {"name": "sum"},
    "steps": 20,
}
"""A run that needs no model; its steps take about a millisecond."""


BEGUN: list[refcore.Live] = []


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A quick view, and no run that outlives its test."""
    monkeypatch.setattr(module, "REFRESH_SECONDS", 0.02)
    yield
    while BEGUN:
        live = BEGUN.pop()
        live.stop()
        assert live._over.wait(60)


def wait(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


def begun(**fields: Any) -> refcore.Live:
    """A run too long to end by itself, after its first steps."""
    run = refcore.live("a grey wall", config={**SETTINGS, "steps": 500_000, **fields})
    BEGUN.append(run)
    wait(lambda: run.step > 3)
    return run


def test_it_takes_the_arguments_of_invert() -> None:
    plain, live = inspect.signature(refcore.invert), inspect.signature(refcore.live)
    assert plain.parameters == live.parameters


def test_it_returns_at_once_and_gives_the_bits_of_invert(tmp_path: Path) -> None:
    hold, steps = threading.Event(), []

    def on_step(step: refcore.StepResult) -> None:
        hold.wait(60)
        steps.append(step.step)

    arguments: dict[str, Any] = {"config": SETTINGS, "overrides": ["priors.tv.weight=0.5"], "seeds": [3, 4]}
    live = refcore.live("a grey wall", on_step=on_step, out=tmp_path / "live", **arguments)
    assert steps == []
    assert "The run loads its models: 0 of 20 steps." in live._parts["status"].value
    hold.set()
    found = live.result()
    plain = refcore.invert("a grey wall", **arguments)
    assert torch.equal(found.images, plain.images)
    assert found.config == plain.config
    assert [record["losses"] for record in found.history] == [record["losses"] for record in plain.history]
    assert steps == [*range(20)]
    assert (tmp_path / "live" / "report.html").is_file()


@pytest.mark.slow
def test_the_playground_gives_the_same_picture_live() -> None:
    arguments: dict[str, Any] = {"preset": "playground", "seeds": 0, "overrides": ["steps=4"]}
    live = refcore.live("a red circle", **arguments).result()
    plain = refcore.invert("a red circle", **arguments)
    assert torch.equal(live.images, plain.images)
    assert live[0].scores == plain[0].scores
    assert live.config == plain.config


def test_a_slider_moves_a_weight_and_the_config_says_since_when() -> None:
    live = begun()
    assert {label: slider.value for label, slider in live._sliders.items()} == {"tv": 1.0, "l2": 2.0}
    live._sliders["l2"].value = 7.5
    wait(lambda: live._job.seen().weights["l2"] == 7.5)
    live.stop()
    found = live.result()
    weight = found.config.priors[1].weight
    assert isinstance(weight, Piecewise)
    assert [piece.value for piece in weight.pieces] == [2.0, 7.5]
    assert found.config.priors[0].weight == 1.0
    assert {record["weights"]["l2"] for record in found.history} == {2.0, 7.5}


def test_steer_moves_the_slider_and_refuses_what_the_run_would() -> None:
    live = begun()
    live.steer("l2", 3.0)
    wait(lambda: live._job.seen().weights["l2"] == 3.0)
    assert live._sliders["l2"].value == 3.0
    with pytest.raises(RefcoreError, match=r'"l3"; known: l2, tv'):
        live.steer("l3", 1.0)
    with pytest.raises(RefcoreError, match="would be -1"):
        live.steer("l2", -1.0)
    live.stop()
    assert live.result().stopped == "interrupted"


def test_the_buttons_pause_resume_and_stop() -> None:
    live = begun()
    pause, resume, stop = live._box.children[2].children
    pause.click()
    wait(lambda: live.state == "paused")
    there = live.step
    wait(lambda: pause.disabled and not resume.disabled)
    time.sleep(0.1)
    assert live.step == there
    assert "is paused" in live._parts["status"].value
    resume.click()
    wait(lambda: live.step > there)
    stop.click()
    found = live.result()
    assert (found.stopped, found.steps) == ("interrupted", live.step)
    assert live.state == "stopped"


def test_the_widget_shows_picture_time_and_a_curve_of_each_term_while_the_run_goes_on() -> None:
    live = begun()
    wait(lambda: "<polyline" in live._parts["curves"].value)
    assert live._parts["curves"].value.count("<svg") == 2
    assert 'alt="a grey wall, seed 0' in live._parts["pictures"].value
    assert "of 500000 steps" in live._parts["status"].value
    live.stop()
    live.result()


def test_an_error_of_the_run_is_a_sentence_in_what_is_shown_and_is_raised() -> None:
    def fail(step: refcore.StepResult) -> None:
        raise RefcoreError("the <b>disk</b> is full")

    live = refcore.live("a", config=SETTINGS, on_step=fail)
    for _ in range(2):
        with pytest.raises(RefcoreError, match="disk"):
            live.result()
    assert "the &lt;b&gt;disk&lt;/b&gt; is full" in live._repr_html_()
    assert live.state == "failed"


def test_a_wrong_argument_is_raised_by_the_call() -> None:
    with pytest.raises(RefcoreError, match=r'stepz.*did you mean "steps"'):
        refcore.live("a", config=SETTINGS, overrides=["stepz=3"])


def test_an_interrupt_while_result_waits_stops_the_run_and_keeps_what_it_has_made() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background ignores it
    try:
        live = begun()
        threading.Timer(0.1, signal.raise_signal, [signal.SIGINT]).start()
        with pytest.raises(KeyboardInterrupt, match="the run was stopped"):
            live.result()
    finally:
        signal.signal(signal.SIGINT, before)
    assert live.state == "stopped"
    assert live.result().steps == live.step > 3


def test_a_program_that_draws_beside_the_run_does_not_fail_it() -> None:
    """The main thread's draws from a global generator are not taken for those of a plugin."""
    stop = threading.Event()
    drawing = threading.Thread(target=lambda: [torch.rand(1) for _ in iter(stop.is_set, True)])
    drawing.start()
    try:
        assert refcore.live("a", config=SETTINGS).result().stopped is None
    finally:
        stop.set()
        drawing.join()


@pytest.mark.slow
def test_a_program_that_ends_before_its_run_stops_it() -> None:
    """Without an abort by a thread that is in the middle of torch."""
    code = f"""
import time, refcore
live = refcore.live("a", config={ {**SETTINGS, "steps": 500_000}!r})
while live.step < 3: time.sleep(0.01)
import atexit
atexit.register(lambda: print("before", live.state))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "before running\n", "")


def test_without_ipywidgets_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(RefcoreError, match=r"pip install 'refcore\[notebook\]'"):
        refcore.live("a", config=SETTINGS)


def test_many_or_large_pictures_come_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    glimpse = Inversion.glimpse

    def slow(self: Inversion, samples: Any) -> Any:
        taken.append(time.sleep(0.05))
        return glimpse(self, samples)

    monkeypatch.setattr(Inversion, "glimpse", slow)
    monkeypatch.setattr(steering, "PICTURE_SECONDS", 0.0)
    live = begun()
    time.sleep(1.0)
    assert len(taken) == 1
    live.stop()
    live.result()
