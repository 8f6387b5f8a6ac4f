"""The small checkpoints of `--quick` are whole or not there, wherever the results are."""

from __future__ import annotations

import pytest

from refcore import checkpoints
from refcore_bench.published import small_checkpoints
from refcore_bench.published.small_checkpoints import MAKERS, overrides
from refcore_bench.tasks import get


@pytest.fixture(autouse=True)
def makers(monkeypatch):
    """Checkpoints of two files, in place of those that take seconds."""
    monkeypatch.setattr(small_checkpoints, "MAKERS", dict.fromkeys(MAKERS, made))


def made(folder):
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_text("whole")


def test_a_checkpoint_that_a_kill_left_half_made_is_made_again(tmp_path, monkeypatch):
    def killed(folder):
        folder.mkdir()
        (folder / "config.json").write_text("whole")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(small_checkpoints, "MAKERS", dict.fromkeys(MAKERS, killed))
        with pytest.raises(KeyboardInterrupt):
            overrides(get("geneval"), tmp_path)
    overrides(get("geneval"), tmp_path)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == sorted(MAKERS)
    assert (tmp_path / "checkpoints" / "clip" / "model.safetensors").is_file()


def test_two_processes_that_make_one_checkpoint_share_it(tmp_path, monkeypatch):
    def overtaken(folder):
        made(folder)
        (tmp_path / "checkpoints" / folder.name).mkdir()
        made(tmp_path / "checkpoints" / folder.name / "other")

    monkeypatch.setattr(small_checkpoints, "MAKERS", dict.fromkeys(MAKERS, overtaken))
    found = overrides(get("geneval"), tmp_path)
    assert (tmp_path / "checkpoints" / "clip" / "other").is_dir()
    assert found["geneval"]["clip"] == str(tmp_path / "checkpoints" / "clip")


def test_of_results_at_a_url_they_are_in_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "cache", lambda: tmp_path / "cache")
    found = overrides(get("geneval"), "memory://tests/quick")
    assert found["geneval"]["clip"] == str(tmp_path / "cache" / "small" / "clip")
