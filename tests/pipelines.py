"""Tiny text-to-image pipelines of diffusers with random weights, built by its own classes."""

from __future__ import annotations

import string
from collections.abc import Callable
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DiffusionPipeline,
    EulerAncestralDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    PixArtAlphaPipeline,
    SanaPipeline,
    SanaSprintPipeline,
    SCMScheduler,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from diffusers.models import (
    AutoencoderDC,
    AutoencoderKL,
    FluxTransformer2DModel,
    PixArtTransformer2DModel,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)
from tiny import text_config
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from refcore_playground.training.tokens import CONTEXT_LENGTH, clip_tokenizer

SYMBOLS = [*string.ascii_letters, *string.digits, *string.punctuation]
WIDTH = 32
"""Of every text encoder."""


def t5_tokenizer() -> T5Tokenizer:
    """A unigram tokenizer of single letters, with T5's special tokens."""
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    return T5Tokenizer(vocab=[*special, *((symbol, -3.0) for symbol in SYMBOLS)], extra_ids=0)


def gemma_tokenizer() -> GemmaTokenizer:
    """A byte-pair tokenizer without merges, so of single letters, with Gemma's special tokens."""
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", "\n", *SYMBOLS]
    pieces += [f"<0x{byte:02X}>" for byte in range(256)]
    return GemmaTokenizer(vocab={piece: i for i, piece in enumerate(dict.fromkeys(pieces))}, merges=[])


def clip_text(kind: Callable[..., Any] = CLIPTextModel) -> Any:
    """The text tower of a CLIP for `clip_tokenizer`."""
    width = {"hidden_size": WIDTH, "projection_dim": WIDTH}
    return kind(CLIPTextConfig(**{**text_config(clip_tokenizer(), CONTEXT_LENGTH), **width}))


def t5(tokenizer: T5Tokenizer, width: int = WIDTH) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(vocab_size=len(tokenizer), d_model=width, d_ff=48, d_kv=8, num_heads=4, num_layers=2)
    )


def autoencoder(**fields: Any) -> AutoencoderKL:
    """An autoencoder of 2 pixels a latent pixel."""
    return AutoencoderKL(
        **{
            "block_out_channels": (8, 16),
            "down_block_types": ("DownEncoderBlock2D",) * 2,
            "up_block_types": ("UpDecoderBlock2D",) * 2,
            "latent_channels": 4,
            "norm_num_groups": 4,
            "sample_size": 32,
            **fields,
        }
    )


def stable_diffusion() -> StableDiffusionPipeline:
    """Of latents of 16 pixels, whose attention maps have 4 x 4 places in the middle."""
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=8,
        cross_attention_dim=WIDTH,
    )
    return StableDiffusionPipeline(
        vae=autoencoder(),
        text_encoder=clip_text(),
        tokenizer=clip_tokenizer(),
        unet=unet,
        scheduler=DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sd3() -> StableDiffusion3Pipeline:
    tokenizer = t5_tokenizer()
    transformer = SD3Transformer2DModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=2 * WIDTH,
        pooled_projection_dim=2 * WIDTH,
        qk_norm="rms_norm",
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=autoencoder(use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.0609, scaling_factor=1.5305),
        text_encoder=clip_text(CLIPTextModelWithProjection),
        tokenizer=clip_tokenizer(),
        text_encoder_2=clip_text(CLIPTextModelWithProjection),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=t5(tokenizer, 2 * WIDTH),
        tokenizer_3=tokenizer,
    )


def sdxl() -> StableDiffusionXLPipeline:
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + WIDTH,
        cross_attention_dim=2 * WIDTH,
    )
    return StableDiffusionXLPipeline(
        vae=autoencoder(),
        text_encoder=clip_text(),
        text_encoder_2=clip_text(CLIPTextModelWithProjection),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        unet=unet,
        scheduler=EulerAncestralDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="leading"
        ),
        add_watermarker=False,
    )


def pixart(side: int = 8) -> PixArtAlphaPipeline:
    """`side`: of the latents in pixels; a model of 128 is told the image's size."""
    tokenizer = t5_tokenizer()
    transformer = PixArtTransformer2DModel(
        sample_size=side,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=3,
        caption_channels=WIDTH,
        cross_attention_dim=24,
        out_channels=8,
    )
    return PixArtAlphaPipeline(
        tokenizer=tokenizer,
        text_encoder=t5(tokenizer),
        vae=autoencoder(),
        transformer=transformer,
        scheduler=DDPMScheduler(clip_sample=False),
    )


def sana(sprint: bool = True) -> SanaSprintPipeline | SanaPipeline:
    """`sprint`: the consistency model, which is told the guidance scale."""
    tokenizer = gemma_tokenizer()
    encoder = Gemma2Model(
        Gemma2Config(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            head_dim=8,
            intermediate_size=64,
            num_attention_heads=2,
            num_key_value_heads=2,
            num_hidden_layers=1,
            sliding_window=64,
        )
    )
    transformer = SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_attention_heads=2,
        attention_head_dim=4,
        num_cross_attention_heads=2,
        cross_attention_head_dim=4,
        cross_attention_dim=8,
        caption_channels=WIDTH,
        sample_size=8,
        qk_norm="rms_norm_across_heads",
        guidance_embeds=sprint,
    )
    blocks, channels, scales = ("ResBlock", "EfficientViTBlock"), (8, 8), ((), (5,))
    vae = AutoencoderDC(
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=blocks,
        decoder_block_types=blocks,
        encoder_block_out_channels=channels,
        decoder_block_out_channels=channels,
        encoder_qkv_multiscales=scales,
        decoder_qkv_multiscales=scales,
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        downsample_block_type="Conv",
        upsample_block_type="interpolate",
        scaling_factor=0.41407,
    )
    if not sprint:
        return SanaPipeline(tokenizer, encoder, vae, transformer, FlowMatchEulerDiscreteScheduler(shift=3.0))
    return SanaSprintPipeline(tokenizer, encoder, vae, transformer, SCMScheduler())


def flux(guidance_embeds: bool = False) -> FluxPipeline:
    """`guidance_embeds`: as of FLUX.1-dev, not -schnell."""
    tokenizer = t5_tokenizer()
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=guidance_embeds,
    )
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=guidance_embeds),
        vae=autoencoder(use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.1159, scaling_factor=0.3611),
        text_encoder=clip_text(),
        tokenizer=clip_tokenizer(),
        text_encoder_2=t5(tokenizer),
        tokenizer_2=tokenizer,
        transformer=transformer,
    )


def build(make: Callable[[], DiffusionPipeline], seed: int = 0) -> DiffusionPipeline:
    """A pipeline with random weights of this seed, and without its progress bar."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        pipeline = make()
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            part.eval()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
