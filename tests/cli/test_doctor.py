"""`refcore doctor`: the machine, the checkpoints on it, and those that a config needs."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from refcore.diagnostics import doctor


def test_device_memory_and_versions_are_reported(refcore):
    result = refcore("doctor", "--json")
    assert result.status == 0
    found = json.loads(result.out)
    assert found["device"] == ("cuda" if torch.cuda.is_available() else found["device"])
    assert 0 < found["free_bytes"] <= found["total_bytes"]
    assert found["versions"]["torch"] == torch.__version__.partition("+")[0] or found["versions"]["torch"]
    assert found["needed"] is None
    embedded = {checkpoint["model"]: checkpoint for checkpoint in found["embedded"]}
    assert {"playground:blip2", "playground:clip", "playground:diffusion"} <= set(embedded)
    assert all(checkpoint["bytes"] and checkpoint["state"] == "embedded" for checkpoint in embedded.values())


def test_the_checkpoints_of_a_preset_are_counted_once_in_its_dtype(refcore):
    found = json.loads(refcore("doctor", "--preset", "playground", "--set", "dtype=bfloat16", "--json").out)["needed"]
    models = {checkpoint["model"]: checkpoint for checkpoint in found["checkpoints"]}
    assert {"playground:blip2", "playground:clip", "playground:diffusion"} <= set(models)
    assert models["playground:diffusion"]["used_by"] == ["canvas.config.model", "priors.0.config.model"]
    assert found["weights_bytes"] == 2 * sum(checkpoint["parameters"] for checkpoint in models.values())


def test_what_is_missing_is_named_with_its_remedy(refcore, tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "_cache", dict)
    result = refcore("doctor", "--preset", "vlminv")
    assert result.status == 0
    assert '"Salesforce/blip2-itm-vit-g" is missing' in result.out
    assert "hf download Salesforce/blip2-itm-vit-g" in result.out
    assert "weights of unknown size" in result.out


def test_a_folder_and_the_hubs_cache_are_found(tmp_path, monkeypatch):
    (tmp_path / "unet").mkdir()
    save_file({"a": torch.zeros(10, 3), "b": torch.zeros(5, dtype=torch.float16)}, tmp_path / "unet" / "m.safetensors")
    save_file({"a": torch.zeros(7)}, tmp_path / "unet" / "m.fp16.safetensors")
    here = doctor._found(str(tmp_path), ("canvas.config.model",))
    assert (here.state, here.parameters, here.bytes) == ("here", 35, 130)
    assert here.in_memory(torch.float32) == 140
    monkeypatch.setattr(doctor, "_cache", lambda: {"someone/model": tmp_path})
    assert doctor._found("hf-hub:someone/model", ()).state == "cached"
    assert doctor._found("someone/other", ()).state == "missing"


@pytest.mark.parametrize("argv", [["--preset", "plaground"], ["--set", "canvas.name=nothing"]])
def test_a_wrong_config_is_one_line(refcore, argv):
    assert "did you mean" in refcore("doctor", *argv).error or "known" in refcore("doctor", *argv).error
