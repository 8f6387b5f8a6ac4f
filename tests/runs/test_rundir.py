"""A run directory belongs to one run, and each of its files is whole or absent."""

from __future__ import annotations

import json
import subprocess
import sys
from textwrap import dedent

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from refcore import images
from refcore.errors import RefcoreError
from refcore.runs import rundir
from refcore.runs.rundir import RunDir, slug


def test_a_folder_that_holds_a_run_is_refused_and_left_as_it_was(tmp_path):
    RunDir.claim(tmp_path).write_image(0, torch.zeros(3, 4, 4))
    before = (tmp_path / "image_0.png").read_bytes()
    with pytest.raises(RefcoreError, match=r"holds another run \(image_0\.png\), which is never overwritten"):
        RunDir.claim(tmp_path)
    assert (tmp_path / "image_0.png").read_bytes() == before


def test_a_folder_with_other_files_is_accepted_and_a_file_is_not(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    RunDir.claim(tmp_path)
    with pytest.raises(RefcoreError, match="is a file"):
        RunDir.claim(tmp_path / "notes.txt")


def test_default_folders_are_numbered_and_never_shared(tmp_path):
    paths = [RunDir.claim_next(tmp_path, "A red circle!").path.name for _ in range(3)]
    assert paths == ["a-red-circle-0", "a-red-circle-1", "a-red-circle-2"]


def test_a_full_disk_is_one_clear_error_and_leaves_no_half_file(tmp_path):
    """A process that may write no file beyond 1 KiB meets the limit in the middle of an image, as on a full disk."""
    code = f"""
        import resource, signal
        import torch
        from refcore.errors import RefcoreError
        from refcore.config.run import RunConfig
        from refcore.runs.rundir import RunDir
        run = RunDir.claim({str(tmp_path)!r})
        run.write_config(RunConfig.from_settings({{"canvas": {{"name": "pixel"}}, "priors": [{{"name": "tv"}}]}}))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))
        try:
            run.write_image(0, torch.rand(3, 64, 64))
        except RefcoreError as error:
            print(error)
    """
    told = subprocess.check_output([sys.executable, "-c", dedent(code)], text=True)
    assert told.startswith(f'cannot write "{tmp_path}/image_0.png": File too large')
    assert [file.name for file in tmp_path.iterdir()] == ["config.yaml"]


def test_a_failing_replacement_keeps_the_old_file(tmp_path, monkeypatch):
    rundir.write_text(tmp_path / "result.json", "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rundir.os, "replace", full)
    with pytest.raises(RefcoreError, match="No space left on device"):
        rundir.write_text(tmp_path / "result.json", "new")
    assert (tmp_path / "result.json").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_history_lines_are_whole_and_strict_json(tmp_path):
    run = RunDir.claim(tmp_path)
    run.append_history({"step": 0, "loss": [float("nan"), 1.5]})
    run.append_history({"step": 1, "loss": [float("inf"), 0.5]})
    run.flush_history()
    lines = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert lines == [{"step": 0, "loss": [None, 1.5]}, {"step": 1, "loss": [None, 0.5]}]


def test_an_image_survives_its_file_to_half_a_level(tmp_path):
    pixels = torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(0))
    (tmp_path / "image.png").write_bytes(images.png(images.levels(pixels)))
    assert (images.read(tmp_path / "image.png") - pixels).abs().max() <= 0.5 / 255 + 1e-6


def test_pixels_out_of_range_or_not_finite_do_not_wrap_around():
    pixels = torch.tensor([-0.5, 0.0, 1.0, 7.0, float("nan"), float("inf")]).expand(3, 1, 6)
    assert images.levels(pixels)[0, :, 0].tolist() == [0, 0, 255, 255, 0, 0]


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("text.png", lambda path: path.write_text("no image")),
        ("cut.png", lambda path: path.write_bytes(images.png(np.zeros((64, 64, 3), np.uint8))[:60])),
        ("folder.png", lambda path: path.mkdir()),
        ("missing.png", lambda path: None),
    ],
)
def test_an_unreadable_image_is_named_with_the_reason(tmp_path, name, write):
    write(tmp_path / name)
    with pytest.raises(RefcoreError, match=f'cannot read the image ".*{name}": .'):
        images.read(tmp_path / name)


def test_transparency_is_laid_on_white_and_grey_becomes_rgb(tmp_path):
    Image.new("RGBA", (2, 2), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("L", (2, 2), 51).save(tmp_path / "grey.png")
    assert (images.read(tmp_path / "clear.png") == 1).all()
    assert torch.allclose(images.read(tmp_path / "grey.png"), torch.full((3, 2, 2), 0.2))


@settings(max_examples=50, deadline=None)
@given(st.text())
def test_every_prompt_gives_a_safe_folder_name(prompt):
    name = slug(prompt)
    assert 0 < len(name) <= 48
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_versions_name_the_libraries_that_decide_the_numbers():
    found = rundir.versions()
    assert found["torch"] == torch.__version__.split("+")[0] or found["torch"] == torch.__version__
    assert "refcore" in found
