"""The state of a run is read from its folder, and only what a run has written is ever removed."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from toys import toy_config

import refcore
from refcore.engine.inversion import StepResult
from refcore.errors import RefcoreError
from refcore.runs import rundir
from refcore.runs.folders import RunFolder, read_folder, remove_run, runs_under
from refcore.runs.lock import LOCK


def made(path: Path, ends: BaseException | None = None, **options: Any) -> RunFolder:
    """A run of six steps, perhaps ended after the third."""

    def end(step: StepResult) -> None:
        if step.step == 2 and ends is not None:
            raise ends

    with contextlib.suppress(ZeroDivisionError, KeyboardInterrupt):
        refcore.invert(["a cat", "a dog"], config=toy_config(), out=path, on_step=end, **options)
    found = read_folder(path)
    assert found is not None
    return found


def killed(path: Path) -> RunFolder:
    """As a killed process leaves a run that has no result yet."""
    made(path, ZeroDivisionError())
    (path / rundir.RESULT).unlink()
    (path / LOCK).write_text("process 1 on another")
    found = read_folder(path)
    assert found is not None
    return found


def test_a_finished_run_is_read_with_all_that_a_list_shows(tmp_path: Path) -> None:
    run = made(tmp_path / "run", preset=None)
    assert (run.state, run.steps, run.planned, run.checkpoint, run.stopped) == ("finished", 6, 6, 6, None)
    assert (run.prompts, run.seeds, run.preset) == (("a cat", "a dog"), (3,), None)
    samples = json.loads((tmp_path / "run" / rundir.RESULT).read_text())["samples"]
    assert run.scores["toy"] == pytest.approx(sum(sample["scores"]["toy"] for sample in samples) / 2)
    assert run.size == sum(file.stat().st_size for file in (tmp_path / "run").rglob("*") if file.is_file())
    assert 0 <= run.age < 600
    assert run.began is not None
    assert json.loads(json.dumps(run.to_dict()))["path"] == str(tmp_path / "run")


@pytest.mark.parametrize(
    ("ends", "state", "stopped"),
    [
        (KeyboardInterrupt(), "interrupted", "interrupted"),
        (refcore.Terminated(), "interrupted", "interrupted"),
        (ZeroDivisionError("by hand"), "failed", "by hand"),
    ],
)
def test_an_early_end_is_told_by_its_reason(ends: BaseException, state: str, stopped: str, tmp_path: Path) -> None:
    run = made(tmp_path / "run", ends)
    assert (run.state, run.stopped, run.steps, run.checkpoint) == (state, stopped, 3, 3)


def test_a_killed_run_has_no_result_and_a_running_one_its_lock(tmp_path: Path) -> None:
    run = killed(tmp_path / "run")
    assert (run.state, run.steps, run.checkpoint, run.scores) == ("killed", 3, 3, {})
    taken = rundir.RunDir.reopen(tmp_path / "run")
    running = read_folder(tmp_path / "run")
    assert running is not None
    assert running.state == "running"
    taken.release()


def test_a_run_that_was_killed_when_it_was_gone_on_with_is_killed_whatever_its_old_result_says(tmp_path: Path) -> None:
    made(tmp_path / "run")
    facts = json.loads((tmp_path / "run" / rundir.FACTS).read_text())
    facts["resumed"] = [{"at": "2026-01-01T00:00:00+00:00", "step": 6, "steps": 9}]
    (tmp_path / "run" / rundir.FACTS).write_text(json.dumps(facts))
    run = read_folder(tmp_path / "run")
    assert run is not None
    assert (run.state, run.planned) == ("killed", 9)
    assert refcore.resume(tmp_path / "run").steps == 9


def test_a_result_that_was_saved_by_itself_is_a_finished_run(tmp_path: Path) -> None:
    refcore.invert("a", config=toy_config()).save(tmp_path / "saved")
    saved = read_folder(tmp_path / "saved")
    assert saved is not None
    assert (saved.state, saved.preset, saved.checkpoint) == ("finished", None, None)


@pytest.mark.parametrize("name", [rundir.CONFIG, rundir.RESULT, rundir.FACTS, rundir.HISTORY])
@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[]", b"3"])
def test_a_folder_with_files_that_cannot_be_read_is_still_listed(name: str, content: bytes, tmp_path: Path) -> None:
    made(tmp_path / "run")
    (tmp_path / "run" / name).write_bytes(content)
    run = read_folder(tmp_path / "run")
    assert run is not None
    assert (run.problem is None) == (name != rundir.CONFIG)


def test_runs_are_found_at_any_depth_and_links_are_not_followed(tmp_path: Path) -> None:
    made(tmp_path / "runs" / "deep" / "one")
    made(tmp_path / "elsewhere")
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "runs" / "deep" / "up").symlink_to(tmp_path)
    (tmp_path / "runs" / "no run").mkdir()
    (tmp_path / "runs" / "no run" / "notes.txt").write_text("mine")
    assert [run.path for run in runs_under(tmp_path / "runs")] == [tmp_path / "runs" / "deep" / "one"]
    with pytest.raises(RefcoreError, match=r'there is no folder ".*none"'):
        runs_under(tmp_path / "none")


def test_the_age_of_a_run_from_the_future_is_0(tmp_path: Path) -> None:
    made(tmp_path / "run")
    os.utime(tmp_path / "run" / rundir.RESULT, (4e9, 4e9))
    run = read_folder(tmp_path / "run")
    assert run is not None
    assert run.age == 0


def test_a_run_is_removed_with_its_folder(tmp_path: Path) -> None:
    assert remove_run(killed(tmp_path / "runs" / "run")) == []
    assert list((tmp_path / "runs").iterdir()) == []


def test_what_a_run_has_not_written_stays_and_is_named(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    (tmp_path / "run" / "notes.txt").write_text("mine")
    (tmp_path / "run" / rundir.CHECKPOINTS / "mine.safetensors").write_text("mine")
    (tmp_path / "run" / "image_9.png").mkdir()
    assert remove_run(run) == [rundir.CHECKPOINTS, "image_9.png", "notes.txt"]
    assert sorted(path.name for path in (tmp_path / "run").rglob("*")) == [
        "checkpoints",
        "image_9.png",
        "mine.safetensors",
        "notes.txt",
    ]


def test_links_in_a_run_are_removed_and_what_they_lead_to_stays(tmp_path: Path) -> None:
    run, other = made(tmp_path / "run"), made(tmp_path / "other")
    before = sorted(other.path.rglob("*"))
    for path in (run.path / rundir.CHECKPOINTS).iterdir():
        path.unlink()
    (run.path / rundir.CHECKPOINTS).rmdir()
    (run.path / rundir.CHECKPOINTS).symlink_to(other.path / rundir.CHECKPOINTS)
    (run.path / "image_7.png").symlink_to(other.path / "image_0.png")
    assert remove_run(run) == []
    assert not run.path.exists()
    assert sorted(other.path.rglob("*")) == before


def test_a_run_that_runs_or_is_none_any_more_is_left_as_it_is(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    taken = rundir.RunDir.reopen(run.path)
    with pytest.raises(RefcoreError, match=r"another run is writing .*; it is left as it is"):
        remove_run(run)
    taken.release()
    (run.path / rundir.CONFIG).rename(run.path / "mine.yaml")
    with pytest.raises(RefcoreError, match="holds no run; it is left as it is"):
        remove_run(run)
    assert (run.path / "image_0.png").exists()


def test_looking_at_runs_imports_no_torch() -> None:
    code = """
        import sys
        import refcore.runs.folders, refcore.cli.runs
        assert "torch" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", dedent(code)], check=True, timeout=120)


def test_what_a_killed_process_was_writing_is_removed_wherever_a_run_writes(tmp_path: Path) -> None:
    run = made(tmp_path / "run", ZeroDivisionError())
    places = [run.path, *(run.path / inner for inner in rundir.OWN_INSIDE)]
    for place in places:
        place.mkdir(exist_ok=True)
        rundir.partial(place / "any").write_text("half")
    (run.path / ".mine.partial").write_text("mine")
    rundir.RunDir.reopen(run.path).release()
    assert [path.name for path in run.path.rglob(".*")] == [".mine.partial"]
