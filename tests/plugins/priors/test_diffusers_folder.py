"""Diffusers folders by hub id, without a network: what is cached is used, what is not is one readable error."""

import json
import shlex

import diffusers
import huggingface_hub.constants
import pytest
import torch

from refcore import registry
from refcore.errors import CheckpointError
from refcore_plugins.models.checkpoint_conversion import convert_weights
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


@pytest.mark.fault("3.6")
def test_a_single_file_is_refused_with_the_command_that_makes_a_folder_of_it(tmp_path):
    path = tmp_path / "my model.safetensors"
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="is a single file, without settings and tokenizer") as told:
        DiffusersFolder(str(path))
    words = shlex.split(str(told.value).partition("the hub: ")[2].partition(" (for")[0])
    assert words[:2] == ["python", "-c"]
    assert words[3:] == [str(path), "FOLDER"]
    compile(words[2], "command", "exec")
    assert callable(diffusers.StableDiffusionPipeline.from_single_file)
    assert callable(diffusers.AutoencoderKL.from_single_file)


@pytest.mark.fault("3.6")
def test_a_pickle_is_refused_and_its_conversion_leads_to_the_command(tmp_path):
    pickled, plain = tmp_path / "model.ckpt", tmp_path / "model.safetensors"
    torch.save({"state_dict": {"model.diffusion_model.out.0.weight": torch.ones(2)}, "global_step": 3}, pickled)
    with pytest.raises(CheckpointError, match=f"is a pickle.*refcore convert clip-weights {pickled} WEIGHTS"):
        DiffusersFolder(str(pickled))
    convert_weights(pickled, plain)
    with pytest.raises(CheckpointError, match="is a single file"):
        DiffusersFolder(str(plain))


@pytest.mark.fault("3.6")
@pytest.mark.parametrize("name", ["blip2", "hf-clip", "siglip", "owlv2", "vqa", "clip", "classifier"])
def test_referees_name_what_they_need_in_place_of_a_file(tmp_path, name):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"")
    referee = registry.create("referees", name, {"model": str(path)})
    with pytest.raises(CheckpointError, match=f'{name}: model "{path}" is a file.*; ?set') as told:
        referee.load(torch.device("cpu"), torch.float32)
    assert "does not exist" not in str(told.value)


def test_any_other_file_is_refused(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(CheckpointError, match="is a file; expected a diffusers folder"):
        DiffusersFolder(str(tmp_path / "model.onnx"))
