"""Plugins loaded without weights: the architectures of published models, on tensors without data, to count memory.

Where the sizes come from: open_clip's own config of each model, which the package brings; the defaults of transformers'
`BlipConfig`, which are those of BLIP-VQA, and of diffusers' `UNet2DConditionModel`, nearly those of Stable Diffusion
1.x; Stable Diffusion 2's `v2-inference.yaml` for SD-Turbo; BLIP's `med_config.json` and its ViT-L at 224 pixels for
ImageReward (arXiv 2304.05977); BLIP-2's first stage with EVA ViT-g (arXiv 2301.12597); and the `model.yaml` of
taming-transformers for the VQGAN of ImageNet. Text is as long as the context or, where a referee reads it beside the
image, `WORDS` tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import open_clip
import torch
from diffusers.models import VQModel
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import (
    Blip2Config,
    Blip2ForImageTextRetrieval,
    BlipConfig,
    BlipForQuestionAnswering,
    CLIPConfig,
    CLIPModel,
    PreTrainedModel,
)

from refcore.contracts.canvas import LatentSpace
from refcore.contracts.conditioning import Conditioning
from refcore.plugin import Plugin
from refcore_plugins.canvases.latent import Latent
from refcore_plugins.canvases.noise import NEGATIVE, Noise
from refcore_plugins.canvases.vq import Vq
from refcore_plugins.models.attention import transformers_attention, write_out_attention
from refcore_plugins.models.autoencoder import Autoencoder
from refcore_plugins.models.generators.stable_diffusion import StableDiffusionGenerator
from refcore_plugins.models.generators.without_weights import (
    ARCHITECTURES,
    FAMILIES,
    frozen,
    generator_without_weights,
)
from refcore_plugins.models.latent_diffusion_prior import LatentDiffusionPrior
from refcore_plugins.models.open_clip_towers import OpenClipTowers
from refcore_plugins.models.preprocess import Normalise
from refcore_plugins.models.question_answering.blip import BlipAnswering
from refcore_plugins.models.rating_head import RatingHead
from refcore_plugins.models.stable_diffusion import StableDiffusion
from refcore_plugins.models.transformers_towers import TransformersTowers
from refcore_plugins.referees.blip2.itg_head import ItgHead
from refcore_plugins.referees.blip2.referee import Blip2
from refcore_plugins.referees.clip import Clip
from refcore_plugins.referees.hf_clip import HfClip
from refcore_plugins.referees.hpsv2 import ARCHITECTURE, Hpsv2
from refcore_plugins.referees.image.layers import ImageLayers
from refcore_plugins.referees.image_reward import Blip, ImageReward
from refcore_plugins.referees.vqa import Vqa

WORDS = 16
"""Tokens of a prompt that a referee reads beside the image."""
HF_CLIPS = {
    "yuvalkirstain/PickScore_v1": "ViT-H-14",
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K": "ViT-H-14",
    "laion/CLIP-ViT-g-14-laion2B-s12B-b42K": "ViT-g-14",
    "openai/clip-vit-base-patch32": "ViT-B-32",
}
"""Hub id -> open_clip's name of the architecture."""
DIFFUSION = [model for model, family in FAMILIES.items() if family is StableDiffusionGenerator]
"""Hub ids that the latent canvas and its priors can have."""
BLIP2 = "Salesforce/blip2-itm-vit-g"
BLIP_VQA = ("Salesforce/blip-vqa-base", "Salesforce/blip-vqa-capfilt-large")
"""Of the same shapes: the second is named after the data that it was trained on."""
VQGAN = "vqgan-imagenet-f16-16384"
"""The name that the preset `vqgan-clip` gives to its folder."""


def load(plugin: Plugin, device: torch.device, dtype: torch.dtype, size: tuple[int, int] | None) -> Conditioning | None:
    """Sets what `load` would set, but for tokenizers; see the hook `load_without_weights`."""
    for kinds, loader in LOADERS.items():
        if isinstance(plugin, kinds):
            with patch.object(PreTrainedModel, "init_weights"):  # it would read the tensors' values
                return loader(plugin, device, dtype, size)
    return None


def _frozen(model: Any, dtype: torch.dtype) -> Any:
    """The model in eval mode, with its numbers in `dtype`; `to` cannot replace tensors without data."""
    for module in model.requires_grad_(False).eval().modules():
        for table in (module._parameters, module._buffers):
            for name, tensor in table.items():
                if tensor is not None and tensor.is_floating_point() and tensor.dtype != dtype:
                    cast = tensor.detach().to(dtype)
                    table[name] = nn.Parameter(cast, False) if isinstance(tensor, nn.Parameter) else cast
    return model


def _towers(plugin: Any, device: torch.device, dtype: torch.dtype, size: Any) -> Conditioning | None:
    name = HF_CLIPS.get(plugin.config.model, "") if isinstance(plugin, HfClip) else plugin.config.model
    name = ARCHITECTURE if isinstance(plugin, Hpsv2) else name
    settings = open_clip.get_model_config(name) if name in open_clip.list_models() else None
    if settings is None or "hf_model_name" in settings["text_cfg"] or "timm_model_name" in settings["vision_cfg"]:
        return None
    transformers = isinstance(plugin, HfClip)
    towers: Any = object.__new__(TransformersTowers if transformers else OpenClipTowers)
    if transformers:
        config = transformers_config(settings)
        towers.model = CLIPModel._from_config(config, attn_implementation=transformers_attention(device, dtype))
    else:
        towers.model = open_clip.model.CLIP(**settings)
        if device.type == "cpu":
            write_out_attention(towers.model)
    towers.model, towers.dtype = _frozen(towers.model, dtype), dtype
    towers.scale, towers.bias = torch.ones((), device=device), torch.zeros((), device=device)
    towers.normalise, towers.remarks, towers.fit = Normalise((0.5,) * 3, (0.5,) * 3, device), (), None
    side = int(settings["vision_cfg"]["image_size"])
    towers.input_size = (side, side)
    plugin.towers, plugin.input_size, plugin.device, plugin.dtype = towers, (side, side), device, dtype
    if isinstance(plugin, ImageLayers):
        plugin.beside = torch.zeros(1, 3, side, side, device=device)
        return Conditioning(("",))
    return Conditioning(("",), {"text": torch.zeros(1, int(settings["embed_dim"]), device=device)})


def transformers_config(settings: Mapping[str, Any]) -> CLIPConfig:
    """The config in transformers of a CLIP with vision transformer in open_clip."""
    vision, text, width = settings["vision_cfg"], settings["text_cfg"], settings["embed_dim"]
    return CLIPConfig(
        projection_dim=width,
        vision_config={
            "hidden_size": vision["width"],
            "intermediate_size": int(vision["width"] * vision.get("mlp_ratio", 4)),
            "num_hidden_layers": vision["layers"],
            "num_attention_heads": vision["width"] // vision.get("head_width", 64),
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            "projection_dim": width,
        },
        text_config={
            "hidden_size": text["width"],
            "intermediate_size": 4 * text["width"],
            "num_hidden_layers": text["layers"],
            "num_attention_heads": text["heads"],
            "vocab_size": text["vocab_size"],
            "max_position_embeddings": text["context_length"],
            "projection_dim": width,
        },
    )


def _tokens(device: torch.device) -> tuple[Tensor, Tensor]:
    """`WORDS` ids of one prompt, and their mask."""
    shape = (1, WORDS)
    return torch.ones(shape, dtype=torch.int64, device=device), torch.ones(shape, dtype=torch.int64, device=device)


def _blip2(plugin: Blip2, device: torch.device, dtype: torch.dtype, size: Any) -> Conditioning | None:
    if plugin.config.model != BLIP2:
        return None
    attention = "eager" if device.type == "cpu" else "sdpa"
    shapes = blip2_config()
    model = Blip2ForImageTextRetrieval._from_config(shapes, attn_implementation=attention)
    wide = torch.promote_types(dtype, torch.float32)
    plugin.model = _frozen(model, wide)
    _frozen(plugin.model.vision_model, dtype)
    text, side = shapes.qformer_config, int(shapes.vision_config.image_size)
    plugin.head = _frozen(ItgHead(text.hidden_size, text.vocab_size), wide) if plugin.config.itg else None
    plugin.normalise = Normalise((0.5,) * 3, (0.5,) * 3, device)
    plugin.input_size, plugin.device, plugin.dtype = (side, side), device, dtype
    plugin.tokenizer = SimpleNamespace(bos_token_id=1)
    ids, mask = _tokens(device)
    features = torch.zeros(1, shapes.image_text_hidden_size, device=device)
    return Conditioning(("",), {"ids": ids, "mask": mask.bool(), "text": features})


def blip2_config() -> Blip2Config:
    """BLIP-2's first stage: EVA ViT-g at 224 px, a Q-Former the size of BERT with 32 queries."""
    config = Blip2Config(
        vision_config={
            "hidden_size": 1408,
            "intermediate_size": 6144,
            "num_hidden_layers": 39,
            "num_attention_heads": 16,
            "image_size": 224,
            "patch_size": 14,
        },
        qformer_config={
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "vocab_size": 30523,
            "max_position_embeddings": 512,
            "cross_attention_frequency": 2,
            "encoder_hidden_size": 1408,
            "use_qformer_text_input": True,
        },
        num_query_tokens=32,
        image_text_hidden_size=256,
    )
    config.image_token_index = None  # type: ignore[assignment]
    return config


def _image_reward(plugin: ImageReward, device: torch.device, dtype: torch.dtype, size: Any) -> Conditioning:
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    text = {"vocab_size": 30524, "encoder_hidden_size": 1024, "num_attention_heads": 12}
    model = Blip({"vision": {**vision, "image_size": 224, "patch_size": 16}, "text": text})
    plugin.model = _frozen(model, dtype)
    plugin.head = _frozen(RatingHead([768, 1024, 128, 64, 16]), torch.promote_types(dtype, torch.float32))
    plugin.normalise = Normalise((0.5,) * 3, (0.5,) * 3, device)
    plugin.input_size, plugin.device, plugin.dtype = (224, 224), device, dtype
    ids, mask = _tokens(device)
    return Conditioning(("",), {"ids": ids, "mask": mask})


class _Answering(BlipAnswering):
    """One group of questions, whose lengths have no values."""

    def groups(self, mask: Tensor) -> list[tuple[int, Tensor]]:
        return [(mask.shape[1], torch.arange(len(mask), device=mask.device))]


def _vqa(plugin: Vqa, device: torch.device, dtype: torch.dtype, size: Any) -> Conditioning | None:
    if plugin.config.model not in BLIP_VQA:
        return None
    towers: Any = object.__new__(_Answering)
    model = BlipForQuestionAnswering(BlipConfig())
    model.tie_weights()  # type: ignore[no-untyped-call]
    towers.model, towers.dtype = _frozen(model, dtype), dtype
    side = int(plugin.config.size or 384)
    towers.normalise = Normalise((0.5,) * 3, (0.5,) * 3, device)
    towers.input_size, towers.interpolates = (side, side), side != 384
    answers = 1 if plugin.config.against is None else 2
    towers.answers = [torch.ones(2, dtype=torch.int64, device=device)] * answers
    towers.start = torch.ones(1, dtype=torch.int64, device=device)
    plugin.towers, plugin.input_size, plugin.device, plugin.dtype = towers, (side, side), device, dtype
    ids, mask = _tokens(device)
    return Conditioning(("",), {"input_ids": ids, "attention_mask": mask})


def _autoencoder(model: str, dtype: torch.dtype, size: tuple[int, int]) -> Autoencoder:
    vae: Any = frozen(ARCHITECTURES[model]["vae"], dtype)
    space = LatentSpace("without weights", int(vae.config.latent_channels), float(vae.config.scaling_factor))
    return Autoencoder(vae, space, size)


def _diffusion(model: str, device: torch.device, dtype: torch.dtype) -> StableDiffusion:
    parts = ARCHITECTURES[model]
    made: Any = object.__new__(StableDiffusion)
    made.folder, made.device, made.dtype = SimpleNamespace(model=model), device, dtype
    made.prediction, made.has_signal = "epsilon", True
    made.alphas_cumprod = torch.ones(1000, device=device)
    made.text_encoder, made.unet = frozen(parts["text_encoder"], dtype), frozen(parts["unet"], dtype)
    return made  # type: ignore[no-any-return]


def _latent(plugin: Latent, device: torch.device, dtype: torch.dtype, size: Any) -> Conditioning | None:
    if plugin.config.model not in DIFFUSION or plugin.config.gradient_decoder is not None:
        return None
    own = dtype if plugin.config.dtype is None else getattr(torch, plugin.config.dtype)
    plugin.size, plugin.device = size or (512, 512), device
    plugin.autoencoder = _autoencoder(plugin.config.model, own, plugin.size)
    plugin.latent_space = plugin.autoencoder.space
    return Conditioning(("",))


class _Steps:
    """A sampler's calls of the network without its arithmetic. Recomputed steps hold next to nothing: two count."""

    def __init__(self, steps: int, calls: int) -> None:
        self.steps, self.calls = steps, calls

    def __call__(
        self, noise: Tensor, denoise: Callable[..., Tensor], eta: float, own: Tensor | None, recompute: bool, rng: Any
    ) -> Tensor:
        x, times = noise, torch.zeros(len(noise), dtype=torch.int64, device=noise.device)
        graph = torch.is_grad_enabled() and recompute
        for i in range(min(self.steps, 2) if recompute else self.steps):
            for _ in range(self.calls):
                out = checkpoint(denoise, x, times, use_reentrant=False) if graph else denoise(x, times)
                x = 0.5 * x + 0.5 * out
            x = x if own is None else x + own[:, i]
        return x


def _noise(plugin: Noise, device: torch.device, dtype: torch.dtype, size: Any) -> Conditioning | None:
    own = plugin.config
    kind = dtype if own.dtype is None else getattr(torch, own.dtype)
    made = generator_without_weights(own.model, own.denoiser, device, kind, size or (512, 512), own.guidance)
    if made is None:
        return None
    plugin.generator, read = made
    plugin.latent_space, plugin.size, plugin.device = plugin.generator.space, plugin.generator.size, device
    plugin._guidance = 1.0 if plugin.generator.embeds_guidance else own.guidance
    sampler: Any = _Steps(own.steps, 2 if own.sampler == "edict" else 1)
    plugin._sampler = sampler
    if own.recompute and own.steps == 1:
        plugin.generator.recompute_blocks()
    told = dict(read.tensors)
    if plugin._guidance != 1:
        told |= {NEGATIVE + name: value for name, value in read.tensors.items()}
    return Conditioning(("",), told)


def _distilled(
    plugin: LatentDiffusionPrior, device: torch.device, dtype: torch.dtype, size: Any
) -> Conditioning | None:
    if plugin.config.model not in DIFFUSION:
        return None
    plugin.diffusion, plugin.device, plugin.dtype = _diffusion(plugin.config.model, device, dtype), device, dtype
    plugin.compares_clean = False
    tokens = int(plugin.diffusion.text_encoder.config.max_position_embeddings)  # type: ignore[union-attr]
    text = torch.zeros(1, tokens, int(plugin.diffusion.unet.config.cross_attention_dim), device=device)
    return Conditioning(("",), {"text": text, "negative": text})


def _vq(plugin: Vq, device: torch.device, dtype: torch.dtype, size: Any) -> Conditioning | None:
    if plugin.config.model != VQGAN:
        return None
    plugin.model = _frozen(VQModel(**vqgan()), dtype)
    plugin.factor, plugin.size, plugin.device = 16, size or (256, 256), device
    plugin.codebook = plugin.model.quantize.embedding.weight
    plugin._low = plugin._high = torch.zeros(1, 256, 1, 1, device=device)
    return Conditioning(("",))


def vqgan() -> dict[str, Any]:
    """diffusers' settings of the VQGAN of ImageNet with 16,384 entries and 16 pixels a latent."""
    return {
        "down_block_types": ("DownEncoderBlock2D",) * 4 + ("AttnDownEncoderBlock2D",),
        "up_block_types": ("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (128, 128, 256, 256, 512),
        "layers_per_block": 2,
        "latent_channels": 256,
        "num_vq_embeddings": 16384,
        "vq_embed_dim": 256,
    }


LOADERS: Mapping[tuple[type[Plugin], ...], Callable[..., Conditioning | None]] = {
    (Clip, HfClip, Hpsv2, ImageLayers): _towers,
    (Blip2,): _blip2,
    (ImageReward,): _image_reward,
    (Vqa,): _vqa,
    (Latent,): _latent,
    (Noise,): _noise,
    (Vq,): _vq,
    (LatentDiffusionPrior,): _distilled,
}
