"""`refcore invert --resume`, `refcore runs` and `refcore runs clean`: what each says, and what it leaves."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from refcore.runs import rundir
from refcore.runs.checkpoints import checkpoints_of


@pytest.fixture
def invert(refcore, config_file):
    return lambda *argv: refcore("invert", "--config", config_file, *argv)


@pytest.fixture
def interrupted(invert, tmp_path):
    """A run that Ctrl-C has ended after two of its six steps, whose plugin would do it again in its second call."""
    path = tmp_path / "working" / "runs" / "cut"
    told = invert("red", "--set", "referees.0.config.interrupt_after=2", "--out", path)
    assert told.err == (
        f"warning: stopped after 2 of 6 steps; the images so far are in {path}; "
        f"go on with refcore invert --resume {path}\n"
    )
    return path


def test_an_interrupted_run_goes_on_from_the_command_line(refcore, invert, interrupted, tmp_path):
    invert("red", "--set", "referees.0.config.interrupt_after=9", "--out", tmp_path / "alone")
    told = refcore("invert", "--resume", interrupted)
    assert told.status == 130, "its plugin interrupts its second call again"
    assert f"note: {interrupted} goes on after 2 of 6 steps" in told.out
    while (told := refcore("invert", "--resume", interrupted)).status == 130:
        pass
    assert told.status == 0
    assert (interrupted / "image_0.png").read_bytes() == (tmp_path / "alone" / "image_0.png").read_bytes()
    told = refcore("invert", "--resume", interrupted)
    assert (told.status, told.err) == (0, "")
    assert told.out.startswith(
        f'the run in "{interrupted}" is finished (6 steps); to go on beyond its end, say how far'
    )
    assert told.out.endswith(": --steps +6\n")
    told = refcore("invert", "--resume", interrupted, "--json")
    assert json.loads(told.out) == {"out": str(interrupted), **json.loads((interrupted / "result.json").read_text())}


def test_steps_beyond_the_end_from_the_command_line(refcore, invert, tmp_path):
    invert("red", "--out", tmp_path / "run")
    invert("red", "--set", "steps=8", "--out", tmp_path / "longer")
    told = refcore("invert", "--resume", tmp_path / "run", "--steps", "+2", "--json")
    assert json.loads(told.out)["steps"] == 8
    for name in ("image_0.png", "config.yaml"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "longer" / name).read_bytes()


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--resume", "none"], '"none" does not exist; expected the folder of a run'),
        (["--resume", "."], '"." holds no run (no config.yaml)'),
        (["--resume", "none", "--steps", "100"], '--steps is "100"; expected how many more, such as +100'),
        (["red", "--resume", "none"], "PROMPT was given beside --resume, but a resumed run has its own; leave it out"),
        (["--resume", "none", "--set", "steps=3"], "--set was given beside --resume"),
        (["red", "--steps", "+3"], '--steps is "+3", which goes with --resume; a new run takes --set steps=N'),
        (["red", "--checkpoint", "often"], 'checkpoint is "often"; expected seconds such as 30s'),
        (["--resume", "none", "--checkpoint", "0"], '"none" does not exist'),
    ],
)
def test_what_does_not_go_together_is_one_clear_line(refcore, argv, told):
    assert told in refcore("invert", *argv).error


def test_a_damaged_checkpoint_is_a_warning_on_stderr(refcore, interrupted):
    newest = checkpoints_of(interrupted)[0].path
    newest.write_bytes(newest.read_bytes()[:100])
    told = refcore("invert", "--resume", interrupted)
    assert f'warning: "{newest}" is not a saved state' in told.err
    assert "warning: there is no checkpoint to go on from" in told.err


def test_the_note_of_a_stale_lock_reaches_the_terminal(refcore, interrupted):
    (interrupted / ".lock").write_text("process 1 on another")
    told = refcore("invert", "--resume", interrupted)
    assert "was locked by a run that was killed (process 1 on another); it is taken over" in told.err


def test_without_checkpoints_none_are_kept(invert, tmp_path):
    interrupts = ["--set", "referees.0.config.interrupt_after=2"]
    told = invert("red", "--checkpoint", "off", *interrupts, "--out", tmp_path / "run")
    assert told.err == f"warning: stopped after 2 of 6 steps; the images so far are in {tmp_path / 'run'}\n"
    assert not (tmp_path / "run" / rundir.CHECKPOINTS).exists()


def states(refcore, *argv):
    return {os.path.basename(run["path"]): run["state"] for run in json.loads(refcore("runs", *argv, "--json").out)}


@pytest.fixture
def several(refcore, invert, interrupted):
    """A run in each state that is not running, in ./runs."""
    runs = interrupted.parent
    invert("red", "--out", runs / "done")
    invert("blue", "green", "--set", "referees.0.config.fail_after=3", "--out", runs / "broken")
    shutil.copytree(interrupted, runs / "gone")
    (runs / "gone" / rundir.RESULT).unlink()
    (runs / "gone" / ".lock").write_text("process 1 on another")
    (runs / "notes").mkdir()
    (runs / "notes" / "config.txt").write_text("mine")
    assert states(refcore) == {"done": "finished", "cut": "interrupted", "broken": "failed", "gone": "killed"}
    return runs


def test_the_list_shows_state_prompt_scores_steps_age_and_size(refcore, several, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    told = refcore("runs")
    lines = {line.split()[0]: " ".join(line.split()) for line in told.out.splitlines()}
    assert lines["run"] == "run state prompt preset scores steps age size"
    assert lines["cut"].startswith("cut interrupted red tint ")
    assert " 2/6 " in lines["cut"]
    assert "blue (+1)" in lines["broken"]
    assert lines["done"].endswith("kB")
    assert "go on with one: refcore invert --resume runs/" in told.out
    assert refcore("runs", "--folder", "notes").error.startswith('there is no folder "notes"')
    assert refcore("runs", "--folder", several / "notes").out == f"no runs in {several / 'notes'}\n"
    assert json.loads(refcore("runs", "--folder", "none", "--json").out) == []


def test_clean_removes_what_all_conditions_hold_for(refcore, several):
    for name in ("gone", "done"):
        for path in [*(several / name).rglob("*"), several / name]:
            os.utime(path, (1e9, 1e9))
    told = refcore("runs", "clean", "--state", "killed", "--state", "failed", "--older", "7d", "--yes")
    assert told.out.startswith("removed 1 runs, ")
    assert set(states(refcore)) == {"done", "cut", "broken"}
    refcore("runs", "clean", "cut", "runs/broken", "--yes")
    assert set(states(refcore)) == {"done"}
    assert (several / "notes" / "config.txt").read_text() == "mine"
    assert refcore("runs", "clean", "--state", "failed", "--yes").out == "nothing to remove\n"


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ([], "nothing says which runs to remove; give names, --state or --older"),
        (
            ["--state", "kiled", "--yes"],
            'unknown state "kiled" in --state; known: failed, finished, interrupted',
        ),
        (["--older", "soon", "--yes"], '--older is "soon"; expected a number with a unit (s, m, h, d, w), such as 7d'),
        (["notes", "--yes"], 'unknown run "notes" in runs; known: broken, cut, done, gone'),
        (["../runs/cut", "--yes"], 'unknown run "../runs/cut" in runs'),
        (["cut"], "1 runs would be removed, and nobody is there to be asked; say so with --yes"),
    ],
)
def test_clean_refuses_what_it_does_not_understand_and_removes_nothing(refcore, several, argv, told):
    assert told in refcore("runs", "clean", *argv).error
    assert len(states(refcore)) == 4


@pytest.mark.parametrize(("answer", "left"), [("n\n", 4), ("y\n", 3)])
def test_clean_asks_first(refcore, several, answer, left, monkeypatch):
    import io

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr("sys.stdin", Terminal(answer))
    told = refcore("runs", "clean", "gone")
    assert "Remove 1 runs" in told.err
    assert "killed" in told.out
    assert len(states(refcore)) == left


def test_clean_never_removes_a_run_that_runs(refcore, several):
    taken = rundir.RunDir.reopen(several / "cut")
    assert states(refcore)["cut"] == "running"
    assert '"runs/cut" is running; end it first' in refcore("runs", "clean", "cut", "--yes").error
    refcore("runs", "clean", "--older", "0s", "--yes")
    taken.release()
    assert set(states(refcore)) == {"cut"}
