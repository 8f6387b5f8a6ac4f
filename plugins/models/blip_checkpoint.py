"""BLIP's published checkpoints: names of tensors in transformers, sizes that they tell, and BLIP-VQA as a folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor
from transformers import BlipConfig, BlipForQuestionAnswering

from refcore.errors import CheckpointError
from refcore_plugins.models.checkpoint_conversion import (
    make_folder,
    matched,
    read_pickled,
    refuse_written,
    write_json,
    write_safetensors,
)

HEAD_WIDTH = 64
"""Width of an attention head, in the image transformer (base and large) and in BERT."""
WEIGHTS, CONFIG, PREPROCESSOR = "model.safetensors", "config.json", "preprocessor_config.json"
ORIGINAL_VQA = "BLIP's checkpoint of question answering (model_base_vqa_capfilt_large.pth)"
SPECIAL = 2
"""Tokens that BLIP adds to the end of BERT's vocabulary: [DEC] and [ENC]."""

_VISION_NAMES = (
    (r"^visual_encoder\.cls_token$", "embeddings.class_embedding"),
    (r"^visual_encoder\.pos_embed$", "embeddings.position_embedding"),
    (r"^visual_encoder\.patch_embed\.proj\.", "embeddings.patch_embedding."),
    (r"^visual_encoder\.norm\.", "post_layernorm."),
    (r"^visual_encoder\.blocks\.(\d+)\.norm([12])\.", r"encoder.layers.\1.layer_norm\2."),
    (r"^visual_encoder\.blocks\.(\d+)\.attn\.qkv\.", r"encoder.layers.\1.self_attn.qkv."),
    (r"^visual_encoder\.blocks\.(\d+)\.attn\.proj\.", r"encoder.layers.\1.self_attn.projection."),
    (r"^visual_encoder\.blocks\.(\d+)\.mlp\.", r"encoder.layers.\1.mlp."),
)
"""Names of tensors in the original BLIP -> names in transformers; those of the text transformers are the same."""


def renamed(name: str, vision: str) -> str:
    """The name in transformers of a tensor of the original BLIP, whose image transformer is the module `vision`."""
    for pattern, replacement in _VISION_NAMES:
        found, times = re.subn(pattern, f"{vision}.{replacement}", name)
        if times:
            return found
    return name


def vision_sizes(state: Mapping[str, Tensor], vision: str) -> dict[str, Any]:
    """Config of the image transformer: sizes from its tensors, under their new names, the rest as in BLIP's code.

    Raises:
        KeyError: a tensor is missing.
    """
    patches = state[f"{vision}.embeddings.patch_embedding.weight"]
    side = round((state[f"{vision}.embeddings.position_embedding"].shape[1] - 1) ** 0.5)
    return {
        "hidden_size": patches.shape[0],
        "intermediate_size": state[f"{vision}.encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": _count(state, rf"{vision}\.encoder\.layers\.(\d+)\."),
        "num_attention_heads": patches.shape[0] // HEAD_WIDTH,
        "image_size": side * patches.shape[-1],
        "patch_size": patches.shape[-1],
        "layer_norm_eps": 1e-6,  # timm's; transformers has another default
    }


def text_sizes(state: Mapping[str, Tensor], text: str) -> dict[str, Any]:
    """Config of a text transformer, whose module is `text`, but for the width of the image's.

    Raises:
        KeyError: a tensor is missing.
    """
    words = state[f"{text}.embeddings.word_embeddings.weight"]
    return {
        "vocab_size": words.shape[0],
        "hidden_size": words.shape[1],
        "intermediate_size": state[f"{text}.encoder.layer.0.intermediate.dense.weight"].shape[0],
        "num_hidden_layers": _count(state, rf"{text}\.encoder\.layer\.(\d+)\."),
        "num_attention_heads": words.shape[1] // HEAD_WIDTH,
        "max_position_embeddings": state[f"{text}.embeddings.position_embeddings.weight"].shape[0],
        "layer_norm_eps": 1e-12,
    }


def convert_vqa(source: str | Path, out: str | Path) -> Path:
    """Writes the authors' BLIP-VQA as a folder of transformers, at its own size, without a tokenizer.

    The tokenizer is BERT's: google-bert/bert-base-uncased. The hub's own conversion resamples the table of positions
    from 480 pixels to 384.

    Args:
        source: The published file.
        out: The folder, created if missing.

    Raises:
        CheckpointError: `source` is missing, corrupt or of another model, or `out` cannot be written.
    """
    source, out = Path(source), Path(out)
    refuse_written(out / WEIGHTS, out / CONFIG, out / PREPROCESSOR)
    state = {renamed(name, "vision_model"): value for name, value in read_pickled(source, ORIGINAL_VQA).items()}
    try:
        vision, text = vision_sizes(state, "vision_model"), text_sizes(state, "text_encoder")
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{source} is not BLIP-VQA: {error} is missing; expected {ORIGINAL_VQA}") from error
    text |= {"encoder_hidden_size": vision["hidden_size"], "bos_token_id": text["vocab_size"] - SPECIAL}
    config = BlipConfig(vision_config=vision, text_config=text, architectures=[BlipForQuestionAnswering.__name__])
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in BlipForQuestionAnswering(config).state_dict().items()}
    weights = matched(state, shapes, source, ORIGINAL_VQA)
    write_safetensors(weights, make_folder(out) / WEIGHTS, {"format": "pt"})
    write_json(_preprocessor(vision["image_size"]), out / PREPROCESSOR)
    write_json(config.to_dict(), out / CONFIG)
    return out


def _preprocessor(side: int) -> dict[str, Any]:
    """Config of the image processor, with CLIP's constants, as the authors have them."""
    return {
        "image_processor_type": "BlipImageProcessor",
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": list(OPENAI_DATASET_MEAN),
        "image_std": list(OPENAI_DATASET_STD),
        "resample": 3,  # bicubic
        "rescale_factor": 1 / 255,
        "size": {"height": side, "width": side},
    }


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    return 1 + max(int(found[1]) for name in state if (found := re.match(pattern, name)))
