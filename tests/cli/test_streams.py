"""Closed streams, readers that leave and a second Ctrl-C end in one line, and never in a file of the run."""

from __future__ import annotations

import subprocess
import sys

import pytest


def shell(command: str) -> subprocess.CompletedProcess[str]:
    line = command.replace("refcore", f'{sys.executable} -c "from refcore.cli import main; main()"', 1)
    return subprocess.run(["bash", "-o", "pipefail", "-c", line], capture_output=True, text=True, timeout=120)


@pytest.mark.fault("5.8")
def test_a_reader_that_leaves_ends_the_command_without_a_word():
    for command in ("config schema --plugins", "presets --json"):
        told = shell(f"refcore {command} | true")
        assert (told.returncode, told.stderr) == (1, "")


@pytest.mark.fault("5.8")
def test_output_that_cannot_be_written_is_one_line():
    told = shell("refcore presets --json > /dev/full")
    assert (told.returncode, told.stderr) == (1, "error: No space left on device\n")


@pytest.mark.fault("5.8")
@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-"])
def test_closed_streams_are_no_failure_and_take_nothing_from_another(closed):
    told = shell(f"refcore config show --json {closed}")
    assert told.returncode == 0
    assert told.stderr == ""
    assert told.stdout.startswith("{") == (">&-" not in closed.split())


@pytest.mark.fault("5.8")
def test_an_error_with_a_closed_stderr_is_not_printed_as_the_result():
    told = shell("refcore config show --preset nosuch 2>&-")
    assert (told.returncode, told.stdout) == (1, "")


@pytest.mark.fault("5.8")
def test_an_empty_out_is_not_the_working_directory(refcore):
    assert refcore("invert", "red", "--out", "").error.startswith('the output folder is ""')
