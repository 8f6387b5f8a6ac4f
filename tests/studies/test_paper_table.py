"""What the paper's table takes is counted right: small pipelines, run for real, do the operations that are counted."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from pipelines import pixart, sdxl
from torch import nn

from refcore.checkpoints import resolve
from refcore.diagnostics.operations import operations
from refcore_plugins.models.generators import without_weights
from refcore_plugins.models.generators.pixart import PixArt
from refcore_plugins.models.generators.stable_diffusion import StableDiffusionGenerator
from refcore_plugins.models.generators.stable_diffusion_xl import StableDiffusionXL

STUDIES = Path(__file__).parents[2] / "studies"
STEPS = 3


@pytest.fixture
def true_sizes(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(STUDIES)
    import true_sizes

    return true_sizes


def again(network: Any) -> Any:
    """A function that makes a network of the same shapes."""
    if hasattr(network, "from_config"):
        return lambda: type(network).from_config(dict(network.config))
    return lambda: type(network)(network.config)


@pytest.mark.parametrize("name", ["sd", "sdxl", "pixart"])
def test_a_pipeline_does_the_operations_that_are_counted(
    name: str, true_sizes: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "sd":
        folder = resolve("playground:diffusion")
        pipe: Any = StableDiffusionPipeline.from_pretrained(folder, use_safetensors=True, torch_dtype=torch.float32).to(
            torch.float32
        )
        family: Any = StableDiffusionGenerator
        side = 64
    else:
        pipe, family = (sdxl(), StableDiffusionXL) if name == "sdxl" else (pixart(), PixArt)
        side = 16
    pipe.set_progress_bar_config(disable=True)
    parts = {part: again(one) for part, one in pipe.components.items() if isinstance(one, nn.Module)}
    context = pipe.tokenizer.model_max_length
    told: dict[str, Any] = {
        "sd": lambda: {"text": torch.ones(1, context, pipe.unet.config.cross_attention_dim)},
        "sdxl": lambda: {
            "text": torch.ones(1, context, pipe.unet.config.cross_attention_dim),
            "pooled": torch.ones(1, pipe.text_encoder_2.config.projection_dim),
        },
        "pixart": lambda: {
            "text": torch.ones(1, 120, pipe.transformer.config.caption_channels),
            "mask": torch.ones(1, 120),
        },
    }
    monkeypatch.setitem(without_weights.ARCHITECTURES, "small", parts)
    monkeypatch.setitem(without_weights.FAMILIES, "small", family)
    monkeypatch.setattr(without_weights, "features", lambda family, width: told[name]())
    monkeypatch.setattr(true_sizes, "TOKENS", dict.fromkeys(true_sizes.TOKENS, context))
    counted = true_sizes.sampled(true_sizes.Pipeline("small", side, STEPS, 7.5))
    more = {"clean_caption": False, "use_resolution_binning": False} if name == "pixart" else {}

    def run() -> None:
        pipe(
            "a red circle",
            num_inference_steps=STEPS,
            guidance_scale=7.5,
            height=side,
            width=side,
            output_type="pt",
            **more,
        )

    assert counted.operations == operations(run)


@pytest.mark.slow
def test_the_models_have_their_published_numbers_of_parameters(true_sizes: ModuleType) -> None:
    found = {one.model: round(one.parameters / 1e6) for one in true_sizes.questions().values()}
    assert found == {
        "Salesforce/blip-vqa-capfilt-large": 361,
        "openai/clip-vit-base-patch32": 151,
        "google/owlv2-base-patch16-ensemble": 155,
        "Intel/dpt-hybrid-midas": 122,
    }


def test_every_baseline_is_counted_as_it_samples(true_sizes: ModuleType) -> None:
    baselines = pytest.importorskip("refcore_bench.samples.baselines", reason="the named baselines are not there yet")
    for name, one in true_sizes.PIPELINES.items():
        own = baselines.settings_of(name)
        assert (own["model"], own["steps"], own["guidance"]) == (one.model, one.steps, one.guidance), name
        assert (own["height"], own["width"], own.get("dtype", "float32")) == (one.side, one.side, one.dtype), name


def test_hours_are_operations_divided_by_what_is_assumed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(STUDIES)
    for other in STUDIES.glob("*.py"):
        monkeypatch.delitem(sys.modules, other.stem, raising=False)
    import paper_table

    gpu = paper_table.Gpu(memory=10, float32=1.0, tf32=4.0, half=8.0)
    one = {"convolutions": 8e12, "products": 16e12, "half": False, "memory": 9e9}
    assert paper_table.seconds(one, gpu, 0.5) == (8 / 4 + 16 / 1) / 0.5
    assert paper_table.seconds({**one, "half": True}, gpu, 0.5) == (8 + 16) / 8 / 0.5
    assert paper_table.fits(one, gpu)
    assert not paper_table.fits({**one, "memory": 9.1e9}, gpu)
    assert paper_table.images() == 24_000
    assert {sum(own.values()) for own in paper_table.QUESTIONS.values()} == {paper_table.PROMPTS}
