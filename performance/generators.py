"""The true architectures of the generators that presets name, and the memory of a step, counted without weights.

    python -m performance.generators                 # counted on tensors without data, takes minutes

One sample, one step: gigabytes of the weights in the preset's dtype, without text encoders, which are dropped once the
prompts are read; and beside them the highest point of decode and pull-back, by `recompute`. The temporary buffers of
kernels are not included.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from performance.measure import peak_storages
from performance.real import VAE

PRESETS = ("reno", "reno-sdxl", "reno-hyper", "reno-pixart", "reno-sana", "reno-flux")
Make = Callable[[], nn.Module]


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
    model: nn.Module = T5EncoderModel(T5Config(**own, feed_forward_proj="gated-gelu"))
    return model


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
SDXL = {
    "text_encoder": CLIP_L,
    "text_encoder_2": _clip(1280, 32, 20, "CLIPTextModelWithProjection"),
    "unet": SDXL_UNET,
    "vae": KL,
}
PIXART = {"attention_head_dim": 72, "num_attention_heads": 16, "num_layers": 28, "caption_channels": 4096}
BLOCKS, SCALES = ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3, ((),) * 3 + ((5,),) * 3
ARCHITECTURES: dict[str, dict[str, Make]] = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": {
        "text_encoder": CLIP_L,
        "unet": _diffusers("UNet2DConditionModel", cross_attention_dim=768),
        "vae": KL,
    },
    "stabilityai/sd-turbo": {
        "text_encoder": _clip(1024, 23, 16),
        "unet": _diffusers(
            "UNet2DConditionModel",
            sample_size=64,
            cross_attention_dim=1024,
            attention_head_dim=(5, 10, 20, 20),
            use_linear_projection=True,
        ),
        "vae": KL,
    },
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
TEXT: dict[str, dict[str, tuple[int, ...]]] = {
    "StableDiffusionGenerator": {"text": (77, 1024)},
    "StableDiffusionXL": {"text": (77, 2048), "pooled": (1280,)},
    "PixArt": {"text": (120, 4096), "mask": (120,)},
    "SanaSprint": {"text": (300, 2304), "mask": (300,)},
    "Flux": {"text": (256, 4096), "pooled": (768,)},
}
"""Family -> shapes of a prompt's features."""


def plan(preset: str) -> dict[str, Any]:
    """Gigabytes of a preset's generator, one sample, by `recompute`."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    from refcore.config import presets
    from refcore.contracts.conditioning import Conditioning
    from refcore.moment import Moment
    from refcore_plugins.canvases.noise import Noise

    config = presets.compose(preset)
    own = config.canvas.config
    found: dict[str, Any] = {}
    for recompute in (False, True):
        canvas = Noise(**{**own, "recompute": recompute})
        dtype = getattr(torch, str(own.get("dtype") or "float32"))
        with FakeTensorMode():
            canvas.generator = generator = _generator(own["model"], own.get("denoiser"), dtype, config.image_size)
            canvas._guidance = 1.0
            canvas._sampler = _one_step  # type: ignore[assignment]  # the scheduler's arithmetic is on the host
            if recompute:
                generator.recompute_blocks()
            parts = (generator.network, generator.autoencoder.model)
            weights = sum(p.numel() * p.element_size() for part in parts for p in part.parameters())
            noise = torch.randn(1, *generator.noise_shape()).requires_grad_()
            shapes = TEXT[type(generator).__name__]
            told = Conditioning(("",), {name: torch.ones(1, *shape) for name, shape in shapes.items()})

            def step(canvas: Noise = canvas, noise: Tensor = noise, told: Conditioning = told) -> None:
                torch.autograd.grad(canvas.decode({"noise": noise}, Moment.end(1), told).sum(), noise)

            found["weights_gb"] = weights / 1e9
            found[f"recompute: {str(recompute).lower()}"] = peak_storages(step) / 1e9
    return found


def _one_step(noise: Tensor, denoise: Callable[[Tensor, Tensor], Tensor], *_: Any) -> Tensor:
    return noise - denoise(noise, torch.full((len(noise),), 1.0))


def _generator(model: str, denoiser: str | None, dtype: torch.dtype, size: tuple[int, int] | None) -> Any:
    """The generator of a hub id, with networks of the true architecture in place of those of files."""
    from refcore.contracts.canvas import LatentSpace
    from refcore_plugins.models.autoencoder import Autoencoder
    from refcore_plugins.models.generators.flux import Flux
    from refcore_plugins.models.generators.pixart import PixArt
    from refcore_plugins.models.generators.sana_sprint import DeepCompressionAutoencoder, SanaSprint
    from refcore_plugins.models.generators.stable_diffusion import StableDiffusionGenerator
    from refcore_plugins.models.generators.stable_diffusion_xl import StableDiffusionXL
    from refcore_plugins.models.stable_diffusion import StableDiffusion

    families: dict[str, Any] = {
        "stabilityai/sd-turbo": StableDiffusionGenerator,
        "PixArt-alpha/PixArt-XL-2-1024-MS": PixArt,
        "Efficient-Large-Model/Sana_Sprint_0.6B_1024px_diffusers": SanaSprint,
        "black-forest-labs/FLUX.1-schnell": Flux,
    }
    family, parts = families.get(model, StableDiffusionXL), ARCHITECTURES[model]
    generator: Any = family.__new__(family)
    assert size is not None
    generator.device, generator.dtype, generator.guidance, generator.size = torch.device("cpu"), dtype, 1.0, size
    make = parts[family.component] if family is not PixArt or denoiser is None else DMD
    generator.network = _frozen(make, dtype)
    vae: Any = _frozen(parts["vae"], dtype)
    space = LatentSpace("counted", int(vae.config["latent_channels"]), 1.0)
    if family is SanaSprint:
        generator.autoencoder = DeepCompressionAutoencoder.__new__(DeepCompressionAutoencoder)
        generator.autoencoder.model, generator.autoencoder.space = vae, space
        generator.autoencoder.factor = int(vae.spatial_compression_ratio)
    else:
        generator.autoencoder = Autoencoder(vae, space, size)
    if family is StableDiffusionGenerator:
        generator._diffusion = StableDiffusion.__new__(StableDiffusion)
        generator._diffusion.unet, generator._diffusion.dtype = generator.network, dtype
    generator._prepare()
    return generator


def _frozen(make: Make, dtype: torch.dtype) -> nn.Module:
    """A network made in a dtype: fake tensors cannot be cast in place."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        return make().requires_grad_(False).eval()
    finally:
        torch.set_default_dtype(before)


def main() -> None:
    print(json.dumps({preset: plan(preset) for preset in PRESETS}, indent=1))


if __name__ == "__main__":
    main()
