"""Every family of generators on the noise canvas: parity with diffusers' pipelines, gradients, batches, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pipelines
import pytest
import torch
from diffusers import DiffusionPipeline, EulerAncestralDiscreteScheduler, LCMScheduler
from diffusers.models import PixArtTransformer2DModel
from safetensors.torch import save_file
from torch import Tensor
from transformers import T5Tokenizer

from refcore.config.run import RunConfig
from refcore.engine.inversion import Inversion
from refcore.engine.memory import graph_bytes
from refcore.errors import CheckpointError, ConfigError, RefcoreError
from refcore.moment import Moment
from refcore.rng import Rng
from refcore_plugins.canvases.noise import Noise
from refcore_plugins.models.diffusers_folder import DiffusersFolder
from refcore_plugins.models.generators.flux import packed, unpacked

CPU, END = torch.device("cpu"), Moment.end(1)
PROMPTS = ["a Red circle left of a blue square", "two dotted green rings"]


@dataclass(frozen=True)
class Family:
    """A pipeline, how the canvas is set, and how diffusers' own is called for the same picture."""

    make: Callable[[], DiffusionPipeline]
    canvas: dict[str, Any] = field(default_factory=dict)
    called: dict[str, Any] = field(default_factory=dict)
    scheduler: Callable[[Any], Any] = lambda own: own
    """The scheduler with which the pipeline is called, by its own."""
    latents: Callable[[Tensor], Tensor] = lambda noise: noise
    size: tuple[int, int] = (16, 24)


def trailing(own: Any) -> Any:
    return EulerAncestralDiscreteScheduler.from_config(own.config, timestep_spacing="trailing")


def lcm(own: Any) -> Any:
    return LCMScheduler.from_config(own.config)


OWN = {"sampler": "own"}
NO_GUIDANCE = {"guidance_scale": 0.0}
PIXART = {"use_resolution_binning": False, "clean_caption": False, "guidance_scale": 1.0}
SANA = {"use_resolution_binning": False}
ONE_STEP = {
    "sdxl-turbo": Family(
        pipelines.sdxl, {"sampler": "euler_ancestral"}, {**NO_GUIDANCE, "num_inference_steps": 1}, trailing
    ),
    "hyper-sd": Family(
        pipelines.sdxl, {"sampler": "lcm", "timesteps": [800]}, {**NO_GUIDANCE, "timesteps": [800]}, lcm
    ),
    "pixart-dmd": Family(pipelines.pixart, {**OWN, "timesteps": [400]}, {**PIXART, "timesteps": [400]}),
    "sana-sprint": Family(
        pipelines.sana,
        {**OWN, "guidance": 4.5},
        {**SANA, "num_inference_steps": 1, "intermediate_timesteps": None, "guidance_scale": 4.5},
        size=(32, 64),
    ),
    "flux-schnell": Family(
        pipelines.flux,
        OWN,
        {**NO_GUIDANCE, "num_inference_steps": 1, "max_sequence_length": 256},
        latents=packed,
    ),
}
OTHERS = {
    "sdxl, guided": Family(
        pipelines.sdxl,
        {**OWN, "steps": 2, "guidance": 3.0},
        {"num_inference_steps": 2, "guidance_scale": 3.0},
    ),
    "sdxl, guided from a prompt": Family(
        pipelines.sdxl,
        {**OWN, "steps": 2, "guidance": 3.0, "negative_prompt": "blue"},
        {"num_inference_steps": 2, "guidance_scale": 3.0, "negative_prompt": ["blue"] * 2},
    ),
    "sdxl-turbo, several steps": Family(
        pipelines.sdxl, {"sampler": "euler_ancestral", "steps": 3}, {**NO_GUIDANCE, "num_inference_steps": 3}, trailing
    ),
    "hyper-sd, several steps": Family(
        pipelines.sdxl,
        {"sampler": "lcm", "steps": 2, "timesteps": [799, 399]},
        {**NO_GUIDANCE, "timesteps": [799, 399]},
        lcm,
    ),
    "pixart of 1024 px": Family(
        partial(pipelines.pixart, 128), {**OWN, "steps": 1}, {**PIXART, "num_inference_steps": 1}
    ),
    "pixart, guided": Family(
        pipelines.pixart,
        {**OWN, "steps": 2, "guidance": 2.0},
        {**PIXART, "num_inference_steps": 2, "guidance_scale": 2.0},
    ),
    "sana-sprint, two steps": Family(
        pipelines.sana,
        {**OWN, "steps": 2, "guidance": 4.5},
        {**SANA, "num_inference_steps": 2, "guidance_scale": 4.5},
        size=(32, 64),
    ),
    "flux-schnell, several steps": Family(
        pipelines.flux,
        {**OWN, "steps": 4},
        {**NO_GUIDANCE, "num_inference_steps": 4, "max_sequence_length": 256},
        latents=packed,
    ),
    "flux-dev": Family(
        partial(pipelines.flux, guidance_embeds=True),
        {**OWN, "steps": 3, "guidance": 3.5},
        {"num_inference_steps": 3, "guidance_scale": 3.5},
        latents=packed,
    ),
}
Saved = Callable[[Callable[[], DiffusionPipeline]], tuple[DiffusionPipeline, str]]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """A tiny pipeline and the folder that it is saved in, built once."""
    built: dict[str, tuple[DiffusionPipeline, str]] = {}

    def find(make: Callable[[], DiffusionPipeline]) -> tuple[DiffusionPipeline, str]:
        key = repr(make)
        if key not in built:
            pipeline, folder = pipelines.build(make), str(tmp_path_factory.mktemp("pipeline"))
            pipeline.save_pretrained(folder)
            built[key] = pipeline, folder
        return built[key]

    return find


def loaded(folder: str, size: tuple[int, int] | None = (16, 24), **fields: Any) -> Noise:
    canvas = Noise(model=folder, **fields)
    canvas.load(CPU, torch.float32, size)
    return canvas


def drawn(*seeds: int) -> Rng:
    """The draws of some samples, new each time."""
    return Rng(seeds, 0, "canvas")


@pytest.mark.parametrize("family", [*ONE_STEP, *OTHERS])
def test_pictures_are_those_of_diffusers_pipeline(family: str, saved: Saved) -> None:
    case = {**ONE_STEP, **OTHERS}[family]
    pipeline, folder = saved(case.make)
    canvas = loaded(folder, case.size, **case.canvas)
    params = canvas.init(Rng([3, 4], 0, "init"))
    with torch.no_grad():
        ours = canvas.decode(params, END, canvas.read(PROMPTS), drawn(3, 4))
    own = pipeline.scheduler
    pipeline.scheduler = case.scheduler(own)
    height, width = case.size
    options = {"height": height, "width": width, "output_type": "pt", "generator": drawn(3, 4).generators}
    try:
        theirs = pipeline(prompt=PROMPTS, latents=case.latents(params["noise"]), **{**options, **case.called}).images
    finally:
        pipeline.scheduler = own
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert ours.std() > 0.01
    assert (ours[0] - ours[1]).abs().max() > 0.01
    blank = canvas.read(["", ""])
    assert not torch.equal(ours, canvas.decode(params, END, blank, drawn(3, 4)))


@pytest.mark.parametrize("family", ONE_STEP)
def test_the_gradient_is_finite_and_the_same_when_recomputed(family: str, saved: Saved) -> None:
    case, gradients = ONE_STEP[family], []
    for recompute in (False, True):
        canvas = loaded(saved(case.make)[1], recompute=recompute, **case.canvas)
        noise = canvas.init(Rng([3, 4], 0, "init"))["noise"].requires_grad_()
        image = canvas.decode({"noise": noise}, END, canvas.read(PROMPTS), drawn(3, 4))
        gradients += torch.autograd.grad(image.square().sum(), noise)
    assert gradients[0].isfinite().all()
    assert (gradients[0].flatten(1).abs().amax(1) > 0).all()
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("family", ONE_STEP)
def test_what_is_recomputed_is_not_held(family: str, saved: Saved) -> None:
    case, held = ONE_STEP[family], []
    for recompute in (False, True):
        canvas = loaded(saved(case.make)[1], (64, 64), recompute=recompute, **case.canvas)
        noise, read = canvas.init(Rng([3], 0, "init"))["noise"].requires_grad_(), canvas.read(PROMPTS[:1])
        held.append(graph_bytes(partial(canvas.decode, {"noise": noise}, END, read)))
    assert held[1] < 0.5 * held[0]


@pytest.mark.parametrize(
    "family", ["sdxl-turbo, several steps", "sana-sprint, two steps", "flux-schnell, several steps"]
)
def test_several_steps_are_recomputed_too(family: str, saved: Saved) -> None:
    case, gradients = OTHERS[family], []
    for recompute in (False, True):
        canvas = loaded(saved(case.make)[1], recompute=recompute, **case.canvas)
        noise = canvas.init(Rng([3], 0, "init"))["noise"].requires_grad_()
        image = canvas.decode({"noise": noise}, END, canvas.read(PROMPTS[:1]), drawn(3))
        gradients += torch.autograd.grad(image.square().sum(), noise)
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-7)
    assert gradients[0].abs().max() > 0


@pytest.mark.parametrize("family", [*ONE_STEP, "sdxl-turbo, several steps", "sana-sprint, two steps"])
def test_a_batch_of_two_is_two_single_ones(family: str, saved: Saved) -> None:
    case = {**ONE_STEP, **OTHERS}[family]
    canvas = loaded(saved(case.make)[1], **case.canvas)
    params, read = canvas.init(Rng([3, 4], 0, "init")), canvas.read(PROMPTS)
    with torch.no_grad():
        both = canvas.decode(params, END, read, drawn(3, 4))
        for b, seed in enumerate((3, 4)):
            alone = canvas.decode({"noise": params["noise"][b : b + 1]}, END, read.take([b]), drawn(seed))
            torch.testing.assert_close(both[b : b + 1], alone, atol=1e-5, rtol=0)


def test_the_noise_that_steps_add_is_that_of_the_sample_throughout_a_run(saved: Saved) -> None:
    folder = saved(pipelines.sdxl)[1]
    config = RunConfig.from_settings(
        {
            "canvas": {"name": "noise", "config": {"model": folder, "sampler": "euler_ancestral", "steps": 3}},
            "referees": [{"name": "clip", "config": {"model": "playground:clip"}}],
            "prompts": PROMPTS[1:],
            "seeds": [3, 4],
            "size": 16,
            "optimizer": {"name": "sgd", "lr": 1e-9},
            "steps": 2,
        }
    )
    inversion = Inversion(config)
    before = inversion.images()
    for _ in inversion:
        pass
    torch.testing.assert_close(inversion.images(), before, atol=1e-4, rtol=0)
    canvas = loaded(folder, (16, 16), sampler="euler_ancestral", steps=3)
    read = canvas.read(PROMPTS[1:] * 2)
    with torch.no_grad():
        expected = canvas.decode(inversion.params, END, read, drawn(3, 4))
        other = canvas.decode(inversion.params, END, read, drawn(5, 6))
    torch.testing.assert_close(inversion.images(), expected, atol=1e-5, rtol=0)
    assert (other - expected).abs().max() > 0.01


@pytest.mark.parametrize("family", ONE_STEP)
def test_the_default_size_is_that_of_the_training_and_the_noise_has_its_shape(family: str, saved: Saved) -> None:
    case = ONE_STEP[family]
    canvas = loaded(saved(case.make)[1], None, **case.canvas)
    side = 256 if family == "flux-schnell" else 16
    assert canvas.size == (side, side)
    assert canvas.init(Rng([3], 0, "init"))["noise"].shape == (1, 4, side // 2, side // 2)
    assert canvas.latent_space is not None
    assert canvas.latent_space.fingerprint.startswith("noise of ")


@pytest.mark.parametrize("family", ONE_STEP)
def test_weights_are_frozen_and_text_encoders_are_dropped(family: str, saved: Saved) -> None:
    case = ONE_STEP[family]
    canvas = loaded(saved(case.make)[1], **case.canvas)
    generator: Any = canvas.generator
    networks = [generator.network, generator.autoencoder.model]
    assert not any(p.requires_grad for network in networks for p in network.parameters())
    canvas.finish_reading()
    assert not any(getattr(generator, name, None) for name in ("_encoder", "_encoders"))
    with pytest.raises(AssertionError, match="finish_reading"):
        canvas.read(PROMPTS)


@pytest.mark.parametrize("family", ONE_STEP)
def test_what_is_truncated_of_a_prompt_is_told(family: str, saved: Saved) -> None:
    case = ONE_STEP[family]
    canvas = loaded(saved(case.make)[1], **case.canvas)
    read = canvas.read(["a red circle", "circle " * 60 + "end"])
    assert read.truncated[0] == ""
    assert read.truncated[1].endswith("end")


def test_half_precision_weights_make_float32_pictures(saved: Saved) -> None:
    case = ONE_STEP["flux-schnell"]
    pictures = []
    for dtype in ("bfloat16", "float32"):
        canvas = loaded(saved(case.make)[1], dtype=dtype, **case.canvas)
        params = canvas.init(Rng([3], 0, "init"))
        with torch.no_grad():
            pictures.append(canvas.decode(params, END, canvas.read(PROMPTS[:1])))
        assert next(canvas.generator.network.parameters()).dtype == getattr(torch, dtype)
    assert pictures[0].dtype == torch.float32
    torch.testing.assert_close(*pictures, atol=0.05, rtol=0)


class TestParts:
    """A network, its weights alone, or an autoencoder from another place."""

    def pictures(self, *canvases: Noise) -> list[Tensor]:
        params = canvases[0].init(Rng([3], 0, "init"))
        with torch.no_grad():
            return [canvas.decode(params, END, canvas.read(PROMPTS[:1])) for canvas in canvases]

    def other(self, make: Callable[[], DiffusionPipeline], tmp_path: Path) -> tuple[Any, str]:
        pipeline, folder = pipelines.build(make, seed=1), str(tmp_path / "other")
        pipeline.save_pretrained(folder)
        return pipeline, folder

    @pytest.mark.parametrize("inside", [False, True])
    def test_weights_alone_are_read_with_the_settings_of_the_model(
        self, inside: bool, saved: Saved, tmp_path: Path
    ) -> None:
        case = ONE_STEP["hyper-sd"]
        pipeline, whole = self.other(case.make, tmp_path)
        save_file(pipeline.unet.state_dict(), tmp_path / "unet-1step.safetensors")
        fields = (
            {"denoiser": str(tmp_path), "denoiser_file": "unet-1step.safetensors"}
            if inside
            else {"denoiser": str(tmp_path / "unet-1step.safetensors")}
        )
        base = saved(case.make)[1]
        own, with_file, with_folder = self.pictures(
            loaded(base, **case.canvas),
            loaded(base, **fields, **case.canvas),
            loaded(base, denoiser=whole, **case.canvas),
        )
        assert torch.equal(with_file, with_folder)
        assert (with_file - own).abs().max() > 0.01

    def test_a_pipelines_network_brings_its_scheduler_and_may_be_of_the_older_class(
        self, saved: Saved, tmp_path: Path
    ) -> None:
        case = ONE_STEP["pixart-dmd"]
        _, other = self.other(case.make, tmp_path)
        config = json.loads(Path(other, "transformer/config.json").read_text())
        config = {name: value for name, value in config.items() if name != "use_additional_conditions"}
        config |= {"_class_name": "Transformer2DModel", "num_vector_embeds": None, "only_cross_attention": False}
        Path(other, "transformer/config.json").write_text(json.dumps(config))
        schedule = json.loads(Path(other, "scheduler/scheduler_config.json").read_text())
        schedule |= {"beta_end": 0.03}
        Path(other, "scheduler/scheduler_config.json").write_text(json.dumps(schedule))
        pipeline, base = saved(case.make)
        canvas = loaded(base, denoiser=other, **case.canvas)
        assert canvas.generator.schedule["beta_end"] == 0.03
        network = PixArtTransformer2DModel.from_pretrained(other, subfolder="transformer")
        assert torch.equal(canvas.generator.network.proj_out.weight, network.proj_out.weight)
        assert not torch.equal(network.proj_out.weight, pipeline.transformer.proj_out.weight)

    def test_an_autoencoder_of_another_folder_decodes(self, saved: Saved, tmp_path: Path) -> None:
        case = ONE_STEP["sdxl-turbo"]
        pipeline, folder = self.other(case.make, tmp_path)
        base = saved(case.make)[1]
        pipeline.vae.save_pretrained(tmp_path / "bare")
        own, whole, bare = self.pictures(
            *(loaded(base, vae=vae, **case.canvas) for vae in (None, folder, str(tmp_path / "bare")))
        )
        assert torch.equal(whole, bare)
        assert (whole - own).abs().max() > 0.01


class TestRefusals:
    def refused(self, error: type[Exception], match: str, *args: Any, **fields: Any) -> None:
        with pytest.raises(error, match=match) as caught:
            loaded(*args, **fields)
        assert "\n" not in str(caught.value)

    def test_a_pipeline_of_no_known_family(self, tmp_path: Path) -> None:
        (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "KandinskyPipeline"}))
        expected = r"is a KandinskyPipeline; expected a folder of StableDiffusionPipeline, .*, FluxPipeline$"
        self.refused(CheckpointError, expected, str(tmp_path))

    @pytest.mark.parametrize("family", ["sana-sprint", "flux-schnell"])
    def test_a_sampler_of_noise_for_a_network_that_predicts_none(self, family: str, saved: Saved) -> None:
        folder = saved(ONE_STEP[family].make)[1]
        self.refused(RefcoreError, "sampler is ddim, .* predicts no noise; expected sampler own", folder)

    def test_a_folders_scheduler_that_is_not_known(self, saved: Saved, tmp_path: Path) -> None:
        pipelines.build(pipelines.sdxl).save_pretrained(tmp_path)
        file = tmp_path / "scheduler/scheduler_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "_class_name": "PNDMScheduler"}))
        self.refused(RefcoreError, "is a PNDMScheduler; expected DDIMScheduler, .*; or name one", str(tmp_path), **OWN)

    def test_parts_of_two_models(self, tmp_path: Path) -> None:
        for make, component, name, value in (
            (pipelines.sdxl, "unet", "cross_attention_dim", 96),
            (pipelines.pixart, "transformer", "caption_channels", 40),
            (pipelines.flux, "transformer", "joint_attention_dim", 40),
        ):
            folder = tmp_path / make.__name__
            pipeline = pipelines.build(make)
            pipeline.save_pretrained(folder)
            network: Any = getattr(pipeline, component)
            type(network).from_config({**network.config, name: value}).save_pretrained(folder / component)
            self.refused(CheckpointError, "the folder mixes two models", str(folder), sampler="own")

    @pytest.mark.parametrize(
        ("family", "file", "value"),
        [
            ("sdxl-turbo", "unet/config.json", {"addition_embed_type": None}),
            ("sdxl-turbo", "unet/config.json", {"_class_name": "UNet2DModel"}),
            ("pixart-dmd", "transformer/config.json", {"_class_name": "DiTTransformer2DModel"}),
            ("sana-sprint", "transformer/config.json", {"guidance_embeds": False}),
            ("sana-sprint", "vae/config.json", {"_class_name": "AutoencoderKL"}),
            ("flux-schnell", "transformer/config.json", {"_class_name": "UNet2DConditionModel"}),
            ("flux-schnell", "vae/config.json", {"_class_name": "AutoencoderDC"}),
        ],
    )
    def test_a_component_of_another_family(self, family: str, file: str, value: dict[str, Any], tmp_path: Path) -> None:
        case = ONE_STEP[family]
        pipelines.build(case.make).save_pretrained(tmp_path)
        config = json.loads((tmp_path / file).read_text())
        (tmp_path / file).write_text(json.dumps({**config, **value}))
        self.refused(CheckpointError, "expected", str(tmp_path), **case.canvas)

    def test_an_autoencoder_of_other_latents(self, saved: Saved, tmp_path: Path) -> None:
        pipelines.autoencoder(latent_channels=8).save_pretrained(tmp_path)
        folder = saved(pipelines.sdxl)[1]
        self.refused(CheckpointError, "has 8 channels, but .* makes latents of 4", folder, vae=str(tmp_path))

    def test_weights_that_do_not_fit_or_are_a_pickle(self, saved: Saved, tmp_path: Path) -> None:
        folder = saved(pipelines.sdxl)[1]
        save_file({"conv_in.weight": torch.zeros(1)}, tmp_path / "broken.safetensors")
        broken, pickled = str(tmp_path / "broken.safetensors"), tmp_path / "unet.bin"
        self.refused(CheckpointError, r'with the weights of ".*broken.safetensors"', folder, denoiser=broken)
        pickled.write_bytes(b"")
        self.refused(CheckpointError, "are no file in safetensors", folder, denoiser=str(pickled))
        absent = {"denoiser": str(tmp_path), "denoiser_file": "absent.safetensors"}
        self.refused(CheckpointError, "are no file in safetensors", folder, **absent)

    def test_a_size_with_half_a_token(self, saved: Saved) -> None:
        folder = saved(pipelines.flux)[1]
        self.refused(RefcoreError, "multiple of 4 for this generator", folder, (18, 18), **OWN)

    def test_a_negative_prompt_without_effect(self, saved: Saved) -> None:
        told = {"guidance": 4.5, "negative_prompt": "blue"}
        self.refused(RefcoreError, "makes no second prediction", saved(pipelines.sana)[1], **OWN, **told)
        self.refused(RefcoreError, "guidance is 1", saved(pipelines.sdxl)[1], negative_prompt="blue")

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"denoiser_file": "a.safetensors"}, "but denoiser, which has it, is not given"),
            (
                {"sampler": "euler_ancestral", "timesteps": [999]},
                "timesteps are given, but euler_ancestral has its own",
            ),
        ],
    )
    def test_settings_that_do_not_go_together(self, fields: dict[str, Any], message: str) -> None:
        with pytest.raises((ConfigError, ValueError), match=message):
            Noise(**fields)


def test_a_tokenizer_in_sentencepieces_own_file_is_read_as_that_library_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    (tmp_path / "tokenizer").mkdir()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([f"{prompt.lower()} {number}" for prompt in PROMPTS for number in range(50)]),
        model_prefix=str(tmp_path / "tokenizer/spiece"),
        vocab_size=35,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    settings = {"tokenizer_class": "T5Tokenizer", "legacy": True, "extra_ids": 100}
    (tmp_path / "tokenizer/tokenizer_config.json").write_text(json.dumps(settings))
    folder = DiffusersFolder(str(tmp_path))
    expected = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer/spiece.model"))
    text = PROMPTS[1].lower()
    assert folder.load_tokenizer(T5Tokenizer)(text).input_ids == [*expected.encode(text), 1]

    def broken(*_: Any, **__: Any) -> None:
        raise ValueError("tiktoken is required")

    monkeypatch.setattr(T5Tokenizer, "from_pretrained", broken)
    monkeypatch.setattr("refcore_plugins.models.diffusers_folder.find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match="read with the package sentencepiece, which is not installed"):
        folder.load_tokenizer(T5Tokenizer)


def test_packing_is_that_of_diffusers_and_is_undone() -> None:
    latents = torch.arange(2 * 4 * 6 * 8.0).view(2, 4, 6, 8)
    theirs = pipelines.FluxPipeline._pack_latents(latents, 2, 4, 6, 8)
    assert torch.equal(packed(latents), theirs)
    assert torch.equal(unpacked(theirs, (6, 8)), latents)


def test_what_is_downloaded_leaves_out_what_is_replaced() -> None:
    canvas = Noise(
        model="stabilityai/stable-diffusion-xl-base-1.0",
        denoiser="ByteDance/Hyper-SD",
        denoiser_file="Hyper-SDXL-1step-Unet.safetensors",
        vae="madebyollin/sdxl-vae-fp16-fix",
    )
    found = canvas.downloads()
    base = found["stabilityai/stable-diffusion-xl-base-1.0"]
    assert set(base.parts) == {"text_encoder", "text_encoder_2"}
    assert not any(part.startswith(("unet", "vae")) for part in base.include)
    assert found["ByteDance/Hyper-SD"].include == ("Hyper-SDXL-1step-Unet.safetensors",)
    assert set(found["ByteDance/Hyper-SD"].parts) == {"unet"}
    assert set(found["madebyollin/sdxl-vae-fp16-fix"].parts) == {"vae"}
    whole = Noise(model="black-forest-labs/FLUX.1-schnell").downloads()["black-forest-labs/FLUX.1-schnell"]
    assert set(whole.parts) == {"text_encoder", "text_encoder_2", "transformer", "vae"}
