"""The true architectures of the generators that presets name, made without weights, to count their memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from refcore.contracts.canvas import LatentSpace
from refcore.contracts.conditioning import Conditioning
from refcore_plugins.models.autoencoder import Autoencoder
from refcore_plugins.models.generators.flux import Flux
from refcore_plugins.models.generators.generator import Generator
from refcore_plugins.models.generators.pixart import PixArt
from refcore_plugins.models.generators.sana_sprint import DeepCompressionAutoencoder, SanaSprint
from refcore_plugins.models.generators.stable_diffusion import StableDiffusionGenerator
from refcore_plugins.models.generators.stable_diffusion_xl import StableDiffusionXL
from refcore_plugins.models.stable_diffusion import StableDiffusion

Make = Callable[[], nn.Module]
VAE: Mapping[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "sample_size": 512,
    "scaling_factor": 0.18215,
}
"""diffusers' settings of the autoencoder of Stable Diffusion."""


def _clip(width: int, layers: int, heads: int, kind: str = "CLIPTextModel") -> Make:
    def make() -> nn.Module:
        import transformers

        own = {"hidden_size": width, "intermediate_size": 4 * width, "projection_dim": width}
        config = transformers.CLIPTextConfig(**own, num_hidden_layers=layers, num_attention_heads=heads)
        model: nn.Module = getattr(transformers, kind)(config)
        return model

    return make


def _t5() -> nn.Module:
    from transformers import T5Config, T5EncoderModel

    own = {"d_model": 4096, "d_ff": 10240, "d_kv": 64, "num_heads": 64, "num_layers": 24, "vocab_size": 32128}
    model: Any = T5EncoderModel(T5Config(**own, feed_forward_proj="gated-gelu"))
    model.tie_weights()  # its embedding is there under two names
    return model  # type: ignore[no-any-return]


def _gemma() -> nn.Module:
    from transformers import Gemma2Config, Gemma2Model

    own = {"hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26, "num_attention_heads": 8}
    model: nn.Module = Gemma2Model(Gemma2Config(**own, num_key_value_heads=4, head_dim=256, vocab_size=256000))
    return model


def _diffusers(name: str, **fields: Any) -> Make:
    def make() -> nn.Module:
        import diffusers

        model: nn.Module = getattr(diffusers, name)(**fields)
        return model

    return make


CLIP_L, KL = _clip(768, 12, 12), _diffusers("AutoencoderKL", **VAE)
SDXL_UNET = _diffusers(
    "UNet2DConditionModel",
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
VERSION_1 = {
    "text_encoder": CLIP_L,
    "unet": _diffusers("UNet2DConditionModel", sample_size=64, cross_attention_dim=768),
    "vae": KL,
}
VERSION_2 = {
    "text_encoder": _clip(1024, 23, 16),
    "unet": _diffusers(
        "UNet2DConditionModel",
        sample_size=64,
        cross_attention_dim=1024,
        attention_head_dim=(5, 10, 20, 20),
        use_linear_projection=True,
    ),
    "vae": KL,
}
SDXL = {
    "text_encoder": CLIP_L,
    "text_encoder_2": _clip(1280, 32, 20, "CLIPTextModelWithProjection"),
    "unet": SDXL_UNET,
    "vae": KL,
}
PIXART = {"attention_head_dim": 72, "num_attention_heads": 16, "num_layers": 28, "caption_channels": 4096}
BLOCKS, SCALES = ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3, ((),) * 3 + ((5,),) * 3
ARCHITECTURES: dict[str, dict[str, Make]] = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": VERSION_1,
    "CompVis/stable-diffusion-v1-4": VERSION_1,
    "stabilityai/stable-diffusion-2-1-base": VERSION_2,
    "stabilityai/sd-turbo": VERSION_2,
    "stabilityai/sdxl-turbo": SDXL,
    "stabilityai/stable-diffusion-xl-base-1.0": SDXL,
    "madebyollin/sdxl-vae-fp16-fix": {"vae": KL},
    "ByteDance/Hyper-SD": {"unet": SDXL_UNET},
    "PixArt-alpha/PixArt-XL-2-1024-MS": {
        "text_encoder": _t5,
        "transformer": _diffusers("PixArtTransformer2DModel", **PIXART, sample_size=128),
        "vae": KL,
    },
    "Efficient-Large-Model/Sana_Sprint_0.6B_1024px_diffusers": {
        "text_encoder": _gemma,
        "transformer": _diffusers(
            "SanaTransformer2DModel",
            num_attention_heads=36,
            attention_head_dim=32,
            num_layers=28,
            num_cross_attention_heads=16,
            cross_attention_head_dim=72,
            cross_attention_dim=1152,
            guidance_embeds=True,
            qk_norm="rms_norm_across_heads",
        ),
        "vae": _diffusers(
            "AutoencoderDC",
            encoder_block_types=BLOCKS,
            decoder_block_types=BLOCKS,
            encoder_qkv_multiscales=SCALES,
            decoder_qkv_multiscales=SCALES,
            downsample_block_type="Conv",
            upsample_block_type="interpolate",
        ),
    },
    "black-forest-labs/FLUX.1-schnell": {
        "text_encoder": CLIP_L,
        "text_encoder_2": _t5,
        "transformer": _diffusers("FluxTransformer2DModel"),
        "vae": _diffusers(
            "AutoencoderKL", **{**VAE, "latent_channels": 16}, use_quant_conv=False, use_post_quant_conv=False
        ),
    },
}
"""Hub id -> component -> a function that makes it with random weights."""
DMD = _diffusers("PixArtTransformer2DModel", **PIXART, sample_size=64)
"""The transformer of PixArt-alpha DMD, which is published as a pickle."""
FAMILIES: dict[str, type[Generator]] = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": StableDiffusionGenerator,
    "CompVis/stable-diffusion-v1-4": StableDiffusionGenerator,
    "stabilityai/stable-diffusion-2-1-base": StableDiffusionGenerator,
    "stabilityai/sd-turbo": StableDiffusionGenerator,
    "stabilityai/sdxl-turbo": StableDiffusionXL,
    "stabilityai/stable-diffusion-xl-base-1.0": StableDiffusionXL,
    "PixArt-alpha/PixArt-XL-2-1024-MS": PixArt,
    "Efficient-Large-Model/Sana_Sprint_0.6B_1024px_diffusers": SanaSprint,
    "black-forest-labs/FLUX.1-schnell": Flux,
}
"""Hub id -> family, of what can be made without weights."""


def generator_without_weights(
    model: str, denoiser: str | None, device: torch.device, dtype: torch.dtype, size: tuple[int, int], guidance: float
) -> tuple[Generator, Conditioning] | None:
    """The generator of a hub id with networks of random numbers, or of tensors without data, and what it reads of "".

    Its text encoders are held until `finish_reading`. None: its architecture is not known.
    """
    if model not in FAMILIES:
        return None
    family, parts = FAMILIES[model], ARCHITECTURES[model]
    made: Any = object.__new__(family)
    made.device, made.dtype, made.guidance, made.size = device, dtype, guidance, size
    make = parts[family.component] if family is not PixArt or denoiser is None else DMD
    made.network, vae = frozen(make, dtype), frozen(parts["vae"], dtype)
    space = LatentSpace("without weights", int(vae.config["latent_channels"]), 1.0)  # type: ignore[index]
    if family is SanaSprint:
        made.autoencoder = object.__new__(DeepCompressionAutoencoder)
        made.autoencoder.model, made.autoencoder.space = vae, space
        made.autoencoder.factor = int(vae.spatial_compression_ratio)  # type: ignore[arg-type]
    else:
        made.autoencoder = Autoencoder(vae, space, size)
    if family is StableDiffusionGenerator:
        made._diffusion = object.__new__(StableDiffusion)
        made._diffusion.unet, made._diffusion.dtype = made.network, dtype
    made.readers = [frozen(parts[name], dtype) for name in parts if name.startswith("text_encoder")]
    made.finish_reading = made.readers.clear
    made._prepare()
    return made, Conditioning(("",), features(family, int(getattr(made.network.config, "cross_attention_dim", 0) or 0)))


def features(family: type[Generator], width: int) -> dict[str, Tensor]:
    """The shapes of a prompt's features, of ones; `width` is that of a UNet's text."""
    known: dict[type[Generator], dict[str, tuple[int, ...]]] = {
        StableDiffusionGenerator: {"text": (77, width)},
        StableDiffusionXL: {"text": (77, 2048), "pooled": (1280,)},
        PixArt: {"text": (120, 4096), "mask": (120,)},
        SanaSprint: {"text": (300, 2304), "mask": (300,)},
        Flux: {"text": (256, 4096), "pooled": (768,)},
    }
    return {name: torch.ones(1, *shape) for name, shape in known[family].items()}


def frozen(make: Make, dtype: torch.dtype) -> nn.Module:
    """A network made in a dtype: fake tensors cannot be cast in place."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        return make().requires_grad_(False).eval()
    finally:
        torch.set_default_dtype(before)
