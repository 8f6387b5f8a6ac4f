"""Tiny random checkpoints in the native formats, and the photographs, that the referees are tested on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import detectors
import numpy as np
import pytest
import torch
from open_clip.model import CLIP
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_sample_images
from tiny import MEAN, SIZE, STD, TOWER, scramble
from torch import Tensor
from transformers import (
    Blip2Config,
    Blip2ForImageTextRetrieval,
    BlipImageProcessor,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
)

from refcore import testing
from refcore.contracts.referee import Referee
from refcore.engine.views import resize
from refcore_playground.training.tokens import bert_tokenizer, clip_tokenizer, save_bert_tokenizer, save_clip_tokenizer

CPU = torch.device("cpu")
CLAIM_PROMPTS = ("a red circle", "two small blue squares", "a striped green star left of a yellow heart")

Difference = Callable[[Callable[[Tensor], Tensor], Tensor], tuple[float, float]]


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def photographs() -> list[Image.Image]:
    """The two photographs of scikit-learn, 640 x 427, centre-cropped to squares.

    Processors either stretch an image to their input or crop its centre; on a square both give the same.
    """
    squares = []
    for levels in load_sample_images().images:
        height, width, _ = levels.shape
        left = (width - height) // 2
        squares.append(Image.fromarray(np.ascontiguousarray(levels[:, left : left + height])))
    return squares


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An open_clip `local-dir:` checkpoint of a few thousand parameters."""
    folder = tmp_path_factory.mktemp("clip")
    tokenizer = clip_tokenizer()
    save_clip_tokenizer(tokenizer, folder)
    vocabulary = len(tokenizer)
    config = {
        "embed_dim": 12,
        "vision_cfg": {"image_size": SIZE, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8},
        "text_cfg": {
            "context_length": 12,
            "vocab_size": vocabulary,
            "hf_tokenizer_name": "local",
            "width": 16,
            "heads": 2,
            "layers": 2,
        },
    }
    model = CLIP(**config)
    scramble(model, 1)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    preprocess = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "squash"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    return folder


@pytest.fixture(scope="session")
def blip2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformers `Blip2ForImageTextRetrieval` folder of a few thousand parameters, with a captioning head."""
    folder = tmp_path_factory.mktemp("blip2")
    tokenizer = bert_tokenizer()
    save_bert_tokenizer(tokenizer, folder)
    width, vocabulary = TOWER["hidden_size"], len(tokenizer)
    config = Blip2Config(
        vision_config={**TOWER, "image_size": SIZE, "patch_size": 8},
        qformer_config={
            **TOWER,
            "vocab_size": vocabulary,
            "max_position_embeddings": 40,
            "cross_attention_frequency": 2,
            "encoder_hidden_size": width,
            "use_qformer_text_input": True,
            "pad_token_id": tokenizer.pad_token_id,
        },
        num_query_tokens=3,
        image_text_hidden_size=12,
    )
    config.image_token_index = None
    model = Blip2ForImageTextRetrieval(config)
    scramble(model, 2)
    model.save_pretrained(folder)
    BlipImageProcessor(
        size={"height": SIZE, "width": SIZE}, image_mean=MEAN, image_std=STD, resample=3
    ).save_pretrained(folder)
    generator = torch.Generator().manual_seed(3)
    shapes = {
        "transform.dense.weight": (width, width),
        "transform.dense.bias": (width,),
        "transform.LayerNorm.weight": (width,),
        "transform.LayerNorm.bias": (width,),
        "decoder.weight": (vocabulary, width),
        "decoder.bias": (vocabulary,),
    }
    head = {f"cls.predictions.{name}": torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    save_file(head, folder / "itg_head.safetensors")
    return folder


@pytest.fixture(scope="session")
def hf_clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformers `CLIPModel` folder of a few thousand parameters, with its tokenizer and processor."""
    return detectors.clip(tmp_path_factory.mktemp("hf_clip"))


@pytest.fixture(scope="session")
def siglip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformers `SiglipModel` folder of a few thousand parameters, with its tokenizer and processor."""
    folder = tmp_path_factory.mktemp("hf_siglip")
    tokenizer = bert_tokenizer()
    tokenizer.save_pretrained(folder)
    config = SiglipConfig(
        text_config={**TOWER, "vocab_size": len(tokenizer), "max_position_embeddings": 12, "projection_size": 16},
        vision_config={**TOWER, "image_size": SIZE, "patch_size": 8},
    )
    model = SiglipModel(config)
    scramble(model, 6)
    torch.nn.init.constant_(model.logit_scale, 1.5)
    torch.nn.init.constant_(model.logit_bias, -0.5)
    model.save_pretrained(folder)
    SiglipImageProcessor(size={"height": SIZE, "width": SIZE}, image_mean=MEAN, image_std=STD).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def owlv2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformers `Owlv2ForObjectDetection` folder of a few thousand parameters, with its processor."""
    return detectors.owlv2(tmp_path_factory.mktemp("owlv2"))


@pytest.fixture
def pixels(photographs: list[Image.Image]) -> Callable[[tuple[int, int]], Tensor]:
    """size -> both photographs as the engine gives them to a referee, [2, 3, H, W] in [0, 1], float32."""

    def at(size: tuple[int, int]) -> Tensor:
        levels = [torch.from_numpy(np.array(photograph)).permute(2, 0, 1) for photograph in photographs]
        return resize(torch.stack(levels).float() / 255, size)

    return at


@pytest.fixture
def holds_the_contract(offline: None) -> Callable[..., None]:
    """(referee, ...) -> runs the conformance suite, and asserts that the prompts matter where they are read."""

    def check_all(
        referee: Referee, prompts: Sequence[str] = CLAIM_PROMPTS, reads_prompts: bool = True, **options: Any
    ) -> None:
        results = testing.check(referee, prompts=tuple(prompts), **options)
        skipped = options.get("skip", {})
        kept = {"gradient_right", "no_dependence_on_batch_mates", "frozen_weights"} - set(skipped)
        assert {results[name] for name in kept} == {"ok"}
        if reads_prompts:
            fresh = type(referee)(referee.config)
            fresh.load(CPU, torch.float32)
            views = torch.rand(3, 3, *fresh.input_size)
            conditioning, prompt_index = fresh.read(prompts), torch.arange(3)
            others = fresh.judge(views, conditioning, prompt_index.roll(1))
            assert (others - fresh.judge(views, conditioning, prompt_index)).abs().min() > 1e-7

    return check_all


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model hub is out of reach, and so is its cache."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.fixture(scope="session")
def slope() -> Difference:
    """(function, x) -> its slope along a random direction, by autograd and by a central difference."""

    def measure(function: Callable[[Tensor], Tensor], x: Tensor, step: float = 1e-5) -> tuple[float, float]:
        direction = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(4))
        x = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(function(x).sum(), x)
        with torch.no_grad():
            rise = function(x + step * direction).sum() - function(x - step * direction).sum()
        return float((gradient * direction).sum()), float(rise / (2 * step))

    return measure
