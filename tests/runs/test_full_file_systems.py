"""Runs on file systems that are really full: a small one in memory, and one with a quota. They need root."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from toys import toy_config

import refcore
from refcore.engine.inversion import StepResult
from refcore.errors import RefcoreError
from refcore.runs import rundir
from refcore.runs.checkpoints import checkpoints_of

pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root mounts file systems")
SPACE = 4 * 2**20
"""Bytes that the run's folder may have."""


def make(*words: str) -> None:
    """Runs a program of the system; skips the test where it does not work here."""
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is not installed")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{' '.join(words)}: {done.stderr.strip()}")


@pytest.fixture(params=["No space left on device", "Disk quota exceeded"])
def small(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder that holds little, and what the system says once it is full."""
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    if request.param.startswith("No space"):
        make("mount", "-t", "tmpfs", "-o", f"size={SPACE}", "tmpfs", str(mounted))
        folder = mounted
    else:
        disk = tmp_path / "disk"
        with disk.open("wb") as file:
            file.truncate(200 * 2**20)
        make("mkfs.btrfs", "-q", str(disk))
        make("mount", "-o", "loop", str(disk), str(mounted))
        folder = mounted / "own"
    try:
        if folder != mounted:
            make("btrfs", "subvolume", "create", str(folder))
            make("btrfs", "quota", "enable", str(mounted))
            make("btrfs", "qgroup", "limit", str(SPACE), str(folder))
        yield folder, request.param
    finally:
        subprocess.run(["umount", "--lazy", str(mounted)], check=True)


def fill(folder: Path) -> None:
    """Writes until nothing more fits."""
    with contextlib.suppress(OSError), (folder / "ballast").open("wb", buffering=0) as file:
        while file.write(b"\1" * 4096):
            os.fsync(file.fileno())


def left_alone(tmp_path: Path) -> bytes:
    """The image of the same run where there is room."""
    refcore.invert("a", config=toy_config(), out=tmp_path / "alone")
    return (tmp_path / "alone" / "image_0.png").read_bytes()


def test_a_run_goes_on_while_there_is_no_room_for_a_while(
    small: tuple[Path, str], tmp_path: Path, toys: None, caplog: pytest.LogCaptureFixture
) -> None:
    folder, reason = small

    def step(result: StepResult) -> None:
        if result.step == 2:
            fill(folder)
        if result.step == 4:
            (folder / "ballast").unlink()
            os.sync()

    with caplog.at_level(logging.WARNING, logger="refcore"):
        result = refcore.invert("a", config=toy_config(), out=folder / "run", checkpoint=1, on_step=step)
    assert reason in caplog.text
    assert "the run goes on, and tries again" in caplog.text
    assert (folder / "run" / "image_0.png").read_bytes() == left_alone(tmp_path)
    assert len((folder / "run" / rundir.HISTORY).read_text().splitlines()) == result.steps
    assert not list((folder / "run").rglob(".refcore-*"))


def test_a_run_that_ends_without_room_keeps_its_last_checkpoint_and_goes_on_once_there_is_some(
    small: tuple[Path, str], tmp_path: Path, toys: None
) -> None:
    folder, reason = small
    with pytest.raises(RefcoreError, match=f"cannot write .*{reason}"):
        refcore.invert(
            "a",
            config=toy_config(),
            out=folder / "run",
            checkpoint=1,
            on_step=lambda result: fill(folder) if result.step == 2 else None,
        )
    assert [kept.step for kept in checkpoints_of(folder / "run")] == [2, 1]
    (folder / "ballast").unlink()
    os.sync()
    assert refcore.resume(folder / "run").resumed[0].step == 2
    assert (folder / "run" / "image_0.png").read_bytes() == left_alone(tmp_path)
