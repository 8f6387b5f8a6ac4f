"""Checkpoints come when they are due, two are kept, and what cannot be saved is said while the run goes on."""

from __future__ import annotations

import itertools
import logging
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import torch
from toys import toy_config

import refcore
from refcore.engine.inversion import StepResult
from refcore.errors import RefcoreError
from refcore.runs import checkpoints, rundir
from refcore.runs.checkpoints import Every, checkpoints_of, read_every
from refcore.runs.state import load_state, save_state


@pytest.mark.parametrize(
    ("given", "every"),
    [
        ("30s", Every(seconds=30.0)),
        ("1.5m", Every(seconds=90.0)),
        ("2h", Every(seconds=7200.0)),
        ("50", Every(steps=50)),
        (50, Every(steps=50)),
        ("off", None),
        (None, None),
    ],
)
def test_how_often_is_given_in_seconds_or_steps(given: Any, every: Every | None) -> None:
    assert read_every(given) == every


@pytest.mark.parametrize("given", ["", "0", "0s", "-1", "often", "30 parsecs", 2.5, "nan"])
def test_anything_else_is_refused_before_a_model_is_loaded(given: Any) -> None:
    with pytest.raises(RefcoreError, match=r'checkpoint is ".*"; expected seconds such as 30s'):
        refcore.invert("a", config=toy_config(), checkpoint=given)


def kept_at_each_step(tmp_path: Path, checkpoint: Any, steps: int = 6) -> list[list[int]]:
    """The steps of the checkpoints that are there before each step's own."""
    seen: list[list[int]] = []
    refcore.invert(
        "a",
        config=toy_config(steps=steps),
        out=tmp_path / "run",
        checkpoint=checkpoint,
        on_step=lambda step: seen.append([kept.step for kept in checkpoints_of(tmp_path / "run")]),
    )
    return seen


def test_by_steps_a_checkpoint_comes_whenever_so_many_are_done_and_two_are_kept(tmp_path: Path) -> None:
    assert kept_at_each_step(tmp_path, 2, steps=8) == [[], [], [2], [2], [4, 2], [4, 2], [6, 4], [6, 4]]
    assert [kept.step for kept in checkpoints_of(tmp_path / "run")] == [8]


def test_by_time_a_checkpoint_comes_when_the_seconds_have_passed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock:
        now = 0.0

        @classmethod
        def monotonic(cls) -> float:
            return cls.now

    monkeypatch.setattr(checkpoints, "time", Clock)

    def tick(step: StepResult) -> None:
        Clock.now += 1.0

    seen: list[list[int]] = []
    refcore.invert(
        "a",
        config=toy_config(steps=8),
        out=tmp_path / "run",
        checkpoint="3s",
        on_step=lambda step: (tick(step), seen.append([kept.step for kept in checkpoints_of(tmp_path / "run")]))[0],
    )
    assert seen == [[], [], [], [3], [3], [3], [6, 3], [6, 3]]


def test_by_time_slow_checkpoints_come_further_apart_so_that_they_take_a_hundredth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock:
        now = 0.0

        @classmethod
        def monotonic(cls) -> float:
            return cls.now

    saved: list[float] = []

    def slow(state: Any, path: Any) -> Path:
        saved.append(Clock.now)
        Clock.now += 5.0
        return save_state(state, path)

    monkeypatch.setattr(checkpoints, "time", Clock)
    monkeypatch.setattr("refcore.runs.state.save_state", slow)

    def tick(step: StepResult) -> None:
        Clock.now += 10.0

    refcore.invert("a", config=toy_config(steps=100), out=tmp_path / "run", checkpoint="30s", on_step=tick)
    assert saved[0] == 30.0
    saved.pop()  # that of the end
    assert [later - before for before, later in itertools.pairwise(saved)] == [505.0]


def test_a_checkpoint_keeps_the_order_of_its_tensors_in_memory(tmp_path: Path) -> None:
    """In which order a kernel sums may follow from it."""
    turned = torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)
    plain = torch.arange(6).view(2, 3)
    save_state({"tensors": {"turned": turned, "plain": plain}, "meta": {}}, tmp_path / "state")
    loaded = load_state(tmp_path / "state")["tensors"]
    assert loaded["turned"].stride() == turned.stride()
    assert torch.equal(loaded["turned"], turned)
    assert torch.equal(loaded["plain"], plain)


def test_every_flipped_bit_of_a_state_is_seen(tmp_path: Path) -> None:
    path = save_state({"tensors": {"a": torch.rand(3)}, "meta": {"b": 1}}, tmp_path / "state")
    data, seen = path.read_bytes(), 0
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        try:
            load_state(path)
        except RefcoreError:
            seen += 1
    assert seen == len(data)


FULL = """
    import json, logging, resource, signal, sys
    sys.path.insert(0, {tests!r})
    from pathlib import Path
    import toys, refcore
    from refcore import registry
    from refcore.runs.checkpoints import checkpoints_of
    for kind, classes in toys.PLUGINS.items():
        for name, cls in classes.items():
            registry.register(kind, name, cls, "of the tests")
    logging.basicConfig(level=logging.WARNING, stream=sys.stdout, format="%(message)s")
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    out = Path({out!r})

    def step(result):
        if result.step == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (512, hard))
        if result.step == {until}:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    try:
        refcore.invert("a", config=toys.toy_config(), out=out, checkpoint=1, on_step=step)
    except refcore.RefcoreError as error:
        print("ended:", error)
"""


def full(out: Path, until: int) -> str:
    """What is told by a run that from its third step on may write no file beyond 512 bytes, until another step."""
    code = dedent(FULL).format(tests=str(Path(__file__).parents[1]), out=str(out), until=until)
    return subprocess.check_output([sys.executable, "-c", code], text=True, timeout=300)


def test_a_disk_that_is_full_for_a_while_is_said_and_the_run_goes_on(tmp_path: Path) -> None:
    told = full(tmp_path / "run", until=4)
    assert told.count("no checkpoint is saved (cannot write ") == 2
    assert "File too large" in told
    assert "the run goes on, and tries again" in told
    assert "ended:" not in told
    left_alone = refcore.invert("a", config=toy_config(), out=tmp_path / "alone")
    assert (tmp_path / "run" / "image_0.png").read_bytes() == (tmp_path / "alone" / "image_0.png").read_bytes()
    assert len((tmp_path / "run" / rundir.HISTORY).read_text().splitlines()) == left_alone.steps
    assert not list((tmp_path / "run").rglob(".refcore-*"))


def test_a_disk_that_stays_full_ends_the_run_in_one_line_and_the_last_good_checkpoint_survives(tmp_path: Path) -> None:
    told = full(tmp_path / "run", until=-1)
    assert told.splitlines()[-1].startswith("ended: cannot write ")
    assert [kept.step for kept in checkpoints_of(tmp_path / "run")] == [2, 1]
    assert not (tmp_path / "run" / rundir.RESULT).exists()
    result = refcore.resume(tmp_path / "run")
    assert result.resumed[0].step == 2
    refcore.invert("a", config=toy_config(), out=tmp_path / "alone")
    assert (tmp_path / "run" / "image_0.png").read_bytes() == (tmp_path / "alone" / "image_0.png").read_bytes()


def test_a_folder_that_turns_read_only_is_said_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    replace = rundir.os.replace

    def refuse(source: Any, target: Any) -> None:
        if refused:
            raise OSError(30, "Read-only file system")
        replace(source, target)

    monkeypatch.setattr(rundir.os, "replace", refuse)
    refused: list[int] = []

    def turn(step: StepResult) -> None:
        if step.step == 2:
            refused.append(1)
        if step.step == 4:
            refused.clear()

    with caplog.at_level(logging.WARNING, logger="refcore"):
        refcore.invert("a", config=toy_config(), out=tmp_path / "run", checkpoint=1, on_step=turn)
    assert "Read-only file system" in caplog.text
    assert [kept.step for kept in checkpoints_of(tmp_path / "run")] == [6]
