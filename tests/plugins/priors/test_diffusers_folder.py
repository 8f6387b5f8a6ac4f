"""Diffusers folders by hub id, without a network: what is cached is used, what is not is one readable error."""

import json

import huggingface_hub.constants
import pytest

from refcore.errors import CheckpointError
from refcore_plugins.models.diffusers_folder import DiffusersFolder


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No network, and an empty cache of the hub."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_a_hub_id_that_was_never_fetched_says_how_to_fetch_it(offline):
    folder = DiffusersFolder("owner/name")
    with pytest.raises(CheckpointError, match=r'"owner/name" is not on this machine.*hf download owner/name'):
        folder.config("unet")


def test_of_a_cached_hub_id_present_files_are_read_and_absent_ones_are_none(offline):
    cache = offline / "models--owner--name"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("abc")
    (cache / "snapshots" / "abc").mkdir(parents=True)
    (cache / "snapshots" / "abc" / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    folder = DiffusersFolder("owner/name")
    assert folder.pipeline == "FluxPipeline"
    assert folder.json("unet/config.json") is None


@pytest.mark.parametrize("model", ["", "name", "a/b/c", "./nowhere", "~/nowhere"])
def test_what_is_neither_a_folder_nor_an_id_is_refused(model):
    with pytest.raises(CheckpointError, match="neither an existing folder nor a hub id"):
        DiffusersFolder(model)


def test_a_file_is_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="is a file; expected a diffusers folder"):
        DiffusersFolder(str(tmp_path / "model.safetensors"))
