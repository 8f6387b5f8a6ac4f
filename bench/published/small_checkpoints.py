"""Small checkpoints of random weights in the formats of the published ones, for `--quick`: what they say means nothing.

Each has the class, the files and the processors of the model in whose place it stands, and loads by the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import nn
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForQuestionAnswering,
    BlipImageProcessor,
    BlipProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    DPTConfig,
    DPTForDepthEstimation,
    DPTImageProcessor,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessor,
    SwinConfig,
)

from refcore import checkpoints
from refcore_bench.published.task import PublishedTask
from refcore_bench.storing.storage import Folder, open_storage
from refcore_playground.training.tokens import CONTEXT_LENGTH, bert_tokenizer, clip_tokenizer
from refcore_plugins.models.coco_classes import COCO

TOWER: Final[Mapping[str, Any]] = MappingProxyType(
    {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
)
"""Size of a transformer's tower."""
SIDE, PATCH = 64, 8
"""Side of an image and of its patches, in pixels."""
LONGEST: Final = 60
"""Tokens of a question."""
SPREAD: Final = 0.25
"""Standard deviation of the weights: large enough that images and prompts make a difference."""
DETECTOR: Final = "playground:owlv2"
"""The embedded detector, which is a trained one."""


def overrides(task: PublishedTask, out: str | Path) -> dict[str, dict[str, Any]]:
    """Label -> settings of each metric of a benchmark with small checkpoints, which are made if need be.

    Args:
        task: the benchmark.
        out: results folder; they are in its folder "checkpoints", or if it is a URL in the user's cache.
    """
    storage = open_storage(out)
    folder = storage.path / "checkpoints" if isinstance(storage, Folder) else checkpoints.cache() / "small"
    made = {name: str(_made(folder / name, make)) for name, make in MAKERS.items()}
    asks, sees = {"model": made["blip-vqa"]}, {"model": made["clip"]}
    blip, boxes = {**asks, "size": SIDE}, {"model": DETECTOR}
    settings: dict[str, dict[str, Any]] = {
        "blip-vqa": blip,
        "clip-score": sees,
        "2d-owlv2": boxes,
        "3d-owlv2": {**boxes, "depth": made["dpt"], "depth_side": SIDE},
        "numeracy-owlv2": boxes,
        "3-in-1": {"blip_vqa": blip, "spatial_2d": boxes, "clip_score": sees},
        "geneval": {"model": made["mask2former"], "clip": made["clip"]},
        "vqa-score": asks,
        "soft-tifa": asks,
        "dpg": asks,
    }
    return {label: settings[use.name] for label, use in task.metrics.items()}


def _made(folder: Path, make: Callable[[Path], None]) -> Path:
    """The folder, which appears whole or not at all: what a kill left half made would be taken for a checkpoint."""
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.parent, prefix=".") as beside:
            make(Path(beside) / folder.name)
            try:
                (Path(beside) / folder.name).rename(folder)
            except OSError:
                if not folder.is_dir():  # else another process was faster
                    raise
    return folder


def blip_vqa(folder: Path) -> None:
    """A `BlipForQuestionAnswering`, in the place of Salesforce/blip-vqa-capfilt-large."""
    pieces = [piece for piece in bert_tokenizer().get_vocab() if piece != "[DEC]"]
    pieces += [word for word in ("yes", "no") if word not in pieces]
    tokenizer = BertTokenizer(vocab={piece: i for i, piece in enumerate(pieces)})
    text = {
        **TOWER,
        "vocab_size": len(pieces) + 2,  # [DEC] and [ENC] are beyond the tokenizer's vocabulary, as in the hub's
        "max_position_embeddings": LONGEST,
        "encoder_hidden_size": TOWER["hidden_size"],
        "bos_token_id": len(pieces),
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = BlipConfig(text_config=text, vision_config={**TOWER, "image_size": SIDE, "patch_size": PATCH})
    _random(BlipForQuestionAnswering(config)).save_pretrained(folder)
    images = BlipImageProcessor(size={"height": SIDE, "width": SIDE})
    BlipProcessor(images, tokenizer).save_pretrained(folder)


def clip(folder: Path) -> None:
    """A `CLIPModel`, in the place of openai/clip-vit-base-patch32 and -large-patch14."""
    tokenizer = clip_tokenizer()
    text = {
        **TOWER,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": CONTEXT_LENGTH,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {**TOWER, "image_size": SIDE, "patch_size": PATCH}
    _random(CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}).save_pretrained(folder)


def dpt(folder: Path) -> None:
    """A `DPTForDepthEstimation`, in the place of Intel/dpt-hybrid-midas."""
    config = DPTConfig(
        **{**TOWER, "num_hidden_layers": 4},
        image_size=SIDE,
        patch_size=16,
        is_hybrid=False,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 16, 16, 16],
        reassemble_factors=[4, 2, 1, 0.5],
        fusion_hidden_size=16,
        use_auxiliary_head=False,
    )
    _random(DPTForDepthEstimation(config)).save_pretrained(folder)
    DPTImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)


def mask2former_config() -> Mask2FormerConfig:
    """Of a `Mask2FormerForUniversalSegmentation` of a few thousand parameters, with COCO's classes."""
    stages = ["stage1", "stage2", "stage3", "stage4"]
    swin = SwinConfig(
        embed_dim=8, depths=[1] * 4, num_heads=[1, 1, 2, 2], window_size=4, image_size=SIDE, out_features=stages
    )
    return Mask2FormerConfig(
        backbone_config=swin,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=32,
        dim_feedforward=32,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        num_queries=12,
        id2label=dict(enumerate(COCO)),
    )


def mask2former(folder: Path) -> None:
    """A `Mask2FormerForUniversalSegmentation`, in the place of facebook/mask2former-swin-small-coco-instance."""
    _random(Mask2FormerForUniversalSegmentation(mask2former_config())).save_pretrained(folder)
    Mask2FormerImageProcessor(size={"shortest_edge": SIDE, "longest_edge": 2 * SIDE}).save_pretrained(folder)


MAKERS: Final[Mapping[str, Callable[[Path], None]]] = MappingProxyType(
    {"blip-vqa": blip_vqa, "clip": clip, "dpt": dpt, "mask2former": mask2former}
)


def _random(model: Any) -> Any:
    """The model with weights of `SPREAD`, drawn from a seed of their own."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
                module.weight.normal_(0, SPREAD, generator=generator)
    return model.eval()
