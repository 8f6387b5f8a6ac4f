"""Tiny detectors, segmenters and depth models of random weights, in the formats of transformers."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny import MEAN, SIZE, STD, TOWER, scramble, text_config
from transformers import (
    BertTokenizer,
    BitConfig,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    DepthProConfig,
    DepthProForDepthEstimation,
    DepthProImageProcessor,
    Dinov2Config,
    DPTConfig,
    DPTForDepthEstimation,
    DPTImageProcessor,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessor,
    Owlv2Config,
    Owlv2ForObjectDetection,
    Owlv2ImageProcessor,
    Owlv2Processor,
    SwinConfig,
)

from refcore_bench.published.small_checkpoints import mask2former_config
from refcore_playground.training.tokens import clip_tokenizer


def owlv2(folder: Path, length: int = 10, shift: float = -1.2) -> Path:
    """An `Owlv2ForObjectDetection`; `shift` moves its logits, which are neither certain nor impossible."""
    tokenizer = clip_tokenizer()
    tokenizer.model_max_length = length
    config = Owlv2Config(
        text_config=text_config(tokenizer, length),
        vision_config={**TOWER, "image_size": SIZE, "patch_size": 4},
        projection_dim=16,
    )
    model = Owlv2ForObjectDetection(config)
    scramble(model, 7)
    with torch.no_grad():
        model.class_head.logit_scale.weight.mul_(0.1)
        model.class_head.logit_shift.weight.mul_(0.1)
        model.class_head.logit_shift.bias.fill_(shift)
    model.save_pretrained(folder)
    images = Owlv2ImageProcessor(size={"height": SIZE, "width": SIZE}, image_mean=MEAN, image_std=STD)
    Owlv2Processor(image_processor=images, tokenizer=tokenizer).save_pretrained(folder)
    return folder


def clip(folder: Path, length: int = 12) -> Path:
    """A `CLIPModel`."""
    tokenizer = clip_tokenizer()
    tokenizer.save_pretrained(folder)
    config = CLIPConfig(
        text_config=text_config(tokenizer, length),
        vision_config={**TOWER, "image_size": SIZE, "patch_size": 8},
        projection_dim=12,
    )
    model = CLIPModel(config)
    scramble(model, 5)
    model.save_pretrained(folder)
    CLIPImageProcessor(
        size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}, image_mean=MEAN, image_std=STD
    ).save_pretrained(folder)
    return folder


def dpt(folder: Path, hybrid: bool = True) -> Path:
    """A `DPTForDepthEstimation` for 32 pixels, behind a convolutional network as MiDaS's hybrid is, or without it."""
    bit = BitConfig(
        embedding_size=8,
        hidden_sizes=[8, 16, 24],
        depths=[1, 1, 1],
        num_groups=2,
        layer_type="bottleneck",
        global_padding="same",
        embedding_dynamic_padding=True,
        out_features=["stage1", "stage2", "stage3"],
    )
    config = DPTConfig(
        **{**TOWER, "num_hidden_layers": 4},
        image_size=32,
        patch_size=16,
        is_hybrid=hybrid,
        backbone_config=bit if hybrid else None,
        backbone_featmap_shape=[1, 24, 2, 2],
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 16, 16, 16],
        reassemble_factors=[1, 1, 1, 0.5] if hybrid else [4, 2, 1, 0.5],
        fusion_hidden_size=16,
        use_auxiliary_head=False,
    )
    model = DPTForDepthEstimation(config)
    scramble(model, 21)
    model.save_pretrained(folder)
    DPTImageProcessor(
        size={"height": 32, "width": 32}, image_mean=[0.5] * 3, image_std=[0.5] * 3, resample=3
    ).save_pretrained(folder)
    return folder


def depth_anything(folder: Path, kind: str = "relative") -> Path:
    """A `DepthAnythingForDepthEstimation`; `kind` "metric" predicts metres."""
    backbone = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
        out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=16,
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=16,
        head_hidden_size=8,
        depth_estimation_type=kind,
        max_depth=20 if kind == "metric" else 1,
    )
    model = DepthAnythingForDepthEstimation(config)
    scramble(model, 22)
    model.save_pretrained(folder)
    DPTImageProcessor(
        size={"height": 28, "width": 28}, keep_aspect_ratio=True, ensure_multiple_of=14, resample=3
    ).save_pretrained(folder)
    return folder


def depth_pro(folder: Path) -> Path:
    """A `DepthProForDepthEstimation` for 64 pixels, without its model of the field of view."""
    dino = {
        "model_type": "dinov2",
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 4,
    }
    config = DepthProConfig(
        patch_size=16,
        fusion_hidden_size=8,
        intermediate_hook_ids=[1, 0],
        intermediate_feature_dims=[8, 8],
        scaled_images_ratios=[0.5, 1.0],
        scaled_images_overlap_ratios=[0.0, 0.2],
        scaled_images_feature_dims=[8, 8],
        image_model_config=dino,
        patch_model_config=dino,
        fov_model_config=dino,
    )
    model = DepthProForDepthEstimation(config)
    scramble(model, 23)
    model.save_pretrained(folder)
    DepthProImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


def mask2former(folder: Path) -> Path:
    """A `Mask2FormerForUniversalSegmentation` of COCO's classes; about a third of its queries find something."""
    model = Mask2FormerForUniversalSegmentation(mask2former_config())
    scramble(model, 24)
    model.save_pretrained(folder)
    Mask2FormerImageProcessor(size={"shortest_edge": 64, "longest_edge": 96}).save_pretrained(folder)
    return folder


def grounding_dino(folder: Path) -> Path:
    """A `GroundingDinoForObjectDetection` that knows a few words."""
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        ".",
        "cat",
        "dog",
        "traffic",
        "light",
        "giraffe",
        "lamp",
        "stop",
        "sign",
        "##s",
    ]
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(words)}, model_max_length=64)
    swin = SwinConfig(
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=4,
        image_size=64,
        out_indices=[2, 3, 4],
    )
    config = GroundingDinoConfig(
        backbone_config=swin,
        text_config={
            "model_type": "bert",
            **TOWER,
            "vocab_size": len(words),
            "max_position_embeddings": 64,
        },
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        num_queries=8,
        encoder_n_points=2,
        decoder_n_points=2,
        max_text_len=64,
        disable_custom_kernels=True,
    )
    model = GroundingDinoForObjectDetection(config)
    scramble(model, 25)
    model.save_pretrained(folder)
    images = GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    GroundingDinoProcessor(image_processor=images, tokenizer=tokenizer).save_pretrained(folder)
    return folder
