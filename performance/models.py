"""Run configs to be timed: on the embedded models, and on medium ones with random weights in their native formats."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file

from refcore.config.run import RunConfig
from refcore_playground.training.tokens import clip_tokenizer, save_clip_tokenizer

PROMPT = "a red circle left of a blue square"
VIEWS = 10
"""Views per step, as in the paper."""
ENDLESS = 10**6
"""Steps of a run that is timed until enough pairs are measured."""
VIT_B_32 = "ViT-B-32"
WEIGHTS = "open_clip_model.safetensors"

Settings = dict[str, Any]


def embedded(**fields: Any) -> RunConfig:
    """CLIP, BLIP-2 (matching and captioning) and SDS at 64 px, balanced by norm: a step with every kind of term."""
    return _run(
        {
            "canvas": {"name": "latent"},
            "referees": [{"name": "clip"}, {"name": "blip2", "config": {"label_smoothing": 0.0}}],
            "priors": [{"name": "sds", "config": {"guidance": 7.5}}],
            "combine": {"name": "norm_balance", "factor": 1.0},
            **fields,
        }
    )


def paper(**fields: Any) -> RunConfig:
    """The paper's objective on the embedded models: BLIP-2 alone against SDS."""
    return embedded(referees=[{"name": "blip2"}], **fields)


def medium(folder: Path, **fields: Any) -> RunConfig:
    """A CLIP ViT-B/32 with random weights, on pixels at 224 px: a step dominated by the referee."""
    referee = {"name": "clip", "config": {"model": f"local-dir:{clip_vit_b_32(folder)}"}}
    return _run({"canvas": {"name": "pixel"}, "size": 224, "referees": [referee], **fields})


def clip_vit_b_32(folder: Path) -> Path:
    """Writes an open_clip checkpoint the size of ViT-B/32, 0.6 GB, unless it exists; random weights cost the same."""
    if not (folder / WEIGHTS).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        random_clip(VIT_B_32, folder, lambda make: make())
    return folder


def random_clip(name: str, folder: Path, weights: Callable[[Callable[[], Any]], Any]) -> None:
    """Writes an open_clip checkpoint of a known architecture, with random weights made by `weights`."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = weights(
            lambda: open_clip.create_model(name, device=str(torch.get_default_device()), load_weights=False)
        )
    save_clip_tokenizer(clip_tokenizer(), folder)
    config = open_clip.get_model_config(name)
    assert config is not None
    # The text tower keeps its size; its vocabulary is the playground's, since the real one would need a download.
    config["text_cfg"] |= {"hf_tokenizer_name": "local", "context_length": 77}
    preprocess = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / WEIGHTS)


def _run(settings: Settings) -> RunConfig:
    augment = [
        {"name": "affine", "config": {"degrees": 10.0, "translate": 0.05}},
        {"name": "gaussian_noise", "config": {"std": 0.05}},
    ]
    common: Settings = {
        "prompts": [PROMPT],
        "views": {"main": {"count": VIEWS, "augment": augment, "padding": "border"}},
        "optimizer": {"name": "sgd", "lr": 0.05},
        "ema": {"decay": 0.9},
        "steps": ENDLESS,
        "device": "cpu",
    }
    return RunConfig.from_settings({**common, **settings})
