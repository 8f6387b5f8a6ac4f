"""A finished run is read back from its folder, and everything else is refused by name."""

from __future__ import annotations

import json

import pytest

from refcore.errors import RefcoreError
from refcore.runs.stored import read_run

RESULT = {"samples": [{"prompt": "a", "seed": 0, "scores": {"clip": 0.5}}], "finished": True, "steps": 3}


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    (path / "config.yaml").write_text("steps: 3\n")
    (path / "result.json").write_text(json.dumps(RESULT))
    return path


def test_a_finished_run_has_its_config_and_its_result(folder):
    run = read_run(folder)
    assert (run.path, run.settings, run.result, run.samples) == (folder, {"steps": 3}, RESULT, RESULT["samples"])


@pytest.mark.parametrize(
    ("result", "told"),
    [
        (
            None,
            r'the run in ".*run" has no result.json, so it is unfinished: wait for its end, or repeat it with `refcore',
        ),
        ("{", r'the run in ".*run" has a result.json that cannot be read \(it is not JSON: Expecting'),
        ("[]", r"has a result.json that cannot be read"),
        ('{"samples": []}', r"has a result.json without samples; repeat it"),
        (
            json.dumps({**RESULT, "finished": False, "stopped": "interrupted"}),
            r'the run in ".*run" stopped after 3 steps \(interrupted\), so it is unfinished: repeat it with '
            r"`refcore invert --config .*run/config.yaml --out NEW`",
        ),
    ],
)
def test_a_run_without_a_whole_result_is_refused_with_the_command_that_repeats_it(folder, result, told):
    (folder / "result.json").unlink()
    if result is not None:
        (folder / "result.json").write_text(result)
    with pytest.raises(RefcoreError, match=told):
        read_run(folder)


def test_what_is_no_folder_of_a_run_is_refused(folder, tmp_path):
    with pytest.raises(RefcoreError, match='none" does not exist; expected the folder of a run'):
        read_run(tmp_path / "none")
    with pytest.raises(RefcoreError, match="is a file; expected the folder of a run"):
        read_run(folder / "config.yaml")
    with pytest.raises(RefcoreError, match=r"holds no run \(no config.yaml\); expected the folder of a run"):
        read_run(tmp_path)
