"""Tiny question-answering models of random weights in their own layouts, and their tokenizers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tiny import MEAN, SIZE, STD, TOWER, scramble
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    BertTokenizer,
    BlipConfig,
    BlipForQuestionAnswering,
    BlipImageProcessor,
    BlipProcessor,
    PreTrainedTokenizerFast,
)

from refcore_playground.training.tokens import bert_tokenizer


def blip_vqa_folder(folder: Path, side: int = SIZE, *words: str) -> Path:
    """A BLIP-VQA of a few thousand parameters, for images of `side` pixels; `words` join the vocabulary."""
    tokenizer = bert_tokenizer()
    tokenizer.add_tokens(["yes", *words])
    config = BlipConfig(
        text_config={
            **TOWER,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 60,
            "encoder_hidden_size": 16,
            "bos_token_id": tokenizer.convert_tokens_to_ids("[DEC]"),
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={**TOWER, "image_size": side, "patch_size": 8},
    )
    model = BlipForQuestionAnswering(config)
    scramble(model, 11)
    model.save_pretrained(folder)
    images = BlipImageProcessor(size={"height": side, "width": side}, image_mean=MEAN, image_std=STD)
    BlipProcessor(images, tokenizer).save_pretrained(folder)
    return folder


def capfilt_folder(folder: Path, side: int = SIZE, wide: bool = False, **constants: Any) -> Path:
    """A BLIP-VQA as the hub has it: [DEC] and [ENC] are beyond the tokenizer's vocabulary, at its end.

    `wide`: attention heads of 64, as in every BLIP. `constants` replace those of the image processor.
    """
    tower = {**TOWER, "hidden_size": 128} if wide else TOWER
    pieces = [piece for piece in bert_tokenizer().get_vocab() if piece != "[DEC]"]
    pieces += [word for word in ("yes", "no") if word not in pieces]
    tokenizer = BertTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, model_max_length=512)
    config = BlipConfig(
        text_config={
            **tower,
            "vocab_size": len(pieces) + 2,
            "max_position_embeddings": 64,
            "encoder_hidden_size": tower["hidden_size"],
            "bos_token_id": len(pieces),
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={**tower, "image_size": side, "patch_size": 8},
    )
    model = BlipForQuestionAnswering(config)
    scramble(model, 15)
    model.save_pretrained(folder)
    constants = {"image_mean": MEAN, "image_std": STD, **constants}
    images = BlipImageProcessor(size={"height": side, "width": side}, **constants)
    BlipProcessor(images, tokenizer).save_pretrained(folder)
    return folder


def cased_tokenizer(*specials: str) -> PreTrainedTokenizerFast:
    """Words in lower case and capitalised, each a token of its own."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = "a red circle left of blue square two small squares green star striped and Does this figure show Please"
    words += " answer yes or no Yes No course Of Red Circle user A BLUE"
    ids = {
        word: i for i, word in enumerate(dict.fromkeys(["<unk>", "<pad>", "<bos>", "<eos>", *specials, *words.split()]))
    }
    for symbol in '"?.,!():':
        ids.setdefault(symbol, len(ids))
    ids.setdefault("\n", len(ids))
    backend = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
    )
    if specials:
        tokenizer.add_special_tokens({"additional_special_tokens": list(specials)})
    return tokenizer


QWEN_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% for content in message['content'] %}{% if content['type'] == 'image' %}<|vision_start|><|image_pad|>"
    "<|vision_end|>{% else %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""As published, without its videos and its numbered pictures."""


def qwen_folder(folder: Path, kind: str, patch: int, most: int = 36) -> Path:
    """A Qwen-VL of random weights in the layout of the hub, that takes at most `most` merged patches."""
    marks = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    tokenizer = cased_tokenizer(*marks)
    tokenizer.chat_template = QWEN_TEMPLATE
    start, end, image, video = tokenizer.convert_tokens_to_ids(list(marks[2:]))
    text = {**TOWER, "num_key_value_heads": 1, "vocab_size": len(tokenizer), "max_position_embeddings": 400}
    text |= {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 1}
    text |= {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}}
    vision = {"depth": 2, "num_heads": 2, "patch_size": patch, "spatial_merge_size": 2, "temporal_patch_size": 2}
    if kind == "qwen2_vl":
        vision |= {"embed_dim": 16, "hidden_size": 16, "mlp_ratio": 2}
    else:
        vision |= {"hidden_size": 16, "out_hidden_size": 16, "intermediate_size": 32}
    if kind == "qwen2_5_vl":  # windows of 4 x 4 merged patches in the first layer, all patches in the second
        vision |= {"window_size": 112, "fullatt_block_indexes": [1]}
    if kind == "qwen3_vl":
        vision |= {"deepstack_visual_indexes": [0], "num_position_embeddings": 16}
        text |= {"head_dim": 8}
    config = AutoConfig.for_model(
        kind,
        text_config=text,
        vision_config=vision,
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    torch.manual_seed(14)
    model = AutoModelForImageTextToText.from_config(config).eval()
    scramble(model, 14)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    preprocessor: dict[str, Any] = {"patch_size": patch, "temporal_patch_size": 2, "merge_size": 2}
    preprocessor |= {"image_mean": MEAN, "image_std": STD, "image_processor_type": "Qwen2VLImageProcessor"}
    area = (2 * patch) ** 2
    preprocessor |= {"min_pixels": 4 * area, "max_pixels": most * area}
    preprocessor["processor_class"] = {
        "qwen2_vl": "Qwen2VLProcessor",
        "qwen2_5_vl": "Qwen2_5_VLProcessor",
        "qwen3_vl": "Qwen3VLProcessor",
    }[kind]
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": QWEN_TEMPLATE}))
    return folder
