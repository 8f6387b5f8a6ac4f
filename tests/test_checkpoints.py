"""Checkpoints are found by name, and missing ones are reported with the remedy."""

from __future__ import annotations

import subprocess
import sys

import pytest

from refcore import checkpoints
from refcore.errors import CheckpointError


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    for name, files in {"clip": ["open_clip_model.safetensors"], "blip2": []}.items():
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).write_bytes(b"weights")
    monkeypatch.setattr(checkpoints, "zoo", lambda: tmp_path)
    return tmp_path


def test_an_embedded_checkpoint_is_a_folder_and_anything_else_stays_as_it_is(zoo):
    assert checkpoints.resolve("playground:clip") == str(zoo / "clip")
    for other in ("ViT-B-32", "hf-hub:org/name", "local-dir:/models/clip", "./folder"):
        assert checkpoints.resolve(other) == other


def test_an_unknown_embedded_checkpoint_names_the_nearest(zoo):
    with pytest.raises(CheckpointError, match='did you mean "playground:clip"'):
        checkpoints.resolve("playground:clop")


def test_an_embedded_checkpoint_without_weights_says_how_to_get_them(zoo):
    with pytest.raises(CheckpointError, match=r"has no weights in .*refcore_playground\.train blip2"):
        checkpoints.resolve("playground:blip2")


def test_finding_the_zoo_does_not_import_the_playground():
    code = "import sys; from refcore.checkpoints import zoo; zoo(); print('refcore_playground' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


def test_what_cannot_be_downloaded_names_model_preset_and_remedy_on_one_line():
    with pytest.raises(CheckpointError) as caught, checkpoints.needed_by("vlminv"):
        raise checkpoints.offline_error("Salesforce/blip2-itm-vit-g", ConnectionError("many\nlines"))
    message = str(caught.value)
    assert 'preset "vlminv"' in message
    assert 'model "Salesforce/blip2-itm-vit-g"' in message
    assert "hf download Salesforce/blip2-itm-vit-g" in message
    assert "\n" not in message
