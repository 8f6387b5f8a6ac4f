"""A checkpoint is data: payloads planted in every field and file that can name code are refused, and never run."""

from __future__ import annotations

import ast
import builtins
import json
import pickle
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoTokenizer, CLIPConfig, CLIPImageProcessor, CLIPModel, dynamic_module_utils

from refcore import registry
from refcore.checkpoints import zoo
from refcore.cli import main
from refcore.errors import CheckpointError
from refcore_plugins.models.diffusers_folder import DiffusersFolder
from refcore_plugins.models.stable_diffusion import StableDiffusion
from refcore_plugins.models.untrusted_checkpoints import data_only, refuse_code, refuse_fields

pytestmark = pytest.mark.fault("5.1")
CPU = torch.device("cpu")
ROOT = Path(__file__).parents[1]
PAYLOAD = """
from pathlib import Path
Path({marker!r}).write_text("ran")
from transformers import CLIPTokenizer, CLIPImageProcessor, PretrainedConfig
class Evil(CLIPTokenizer): pass
class EvilConfig(PretrainedConfig): model_type = "evil"
class EvilImages(CLIPImageProcessor): pass
class Pipe: pass
"""


class Watch:
    """Records whether a payload ran and whether anything was asked on stdin."""

    def __init__(self, marker: Path) -> None:
        self.marker, self.asked = marker, 0

    def ask(self, *_: object) -> str:
        self.asked += 1
        return "y"

    def __getattr__(self, name: str) -> Any:
        return self.ask

    def assert_quiet(self) -> None:
        assert not self.marker.exists(), "the payload ran"
        assert not self.asked, "something was asked on stdin"


@pytest.fixture
def watch(tmp_path, monkeypatch):
    """Answers "y" to every question, and counts them."""
    watch = Watch(tmp_path / "marker")
    monkeypatch.setattr(builtins, "input", watch.ask)
    monkeypatch.setattr(sys, "stdin", watch)
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    yield watch
    monkeypatch.undo()


class Pickled:
    """Writes the marker when unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.marker, "ran")


@pytest.fixture(scope="session")
def sources(tmp_path_factory):
    """Folder of each kind of checkpoint: embedded ones, and small ones in the other formats."""
    made = tmp_path_factory.mktemp("sources")
    clip = made / "hf-clip"
    tower = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    text = {**tower, "vocab_size": 290, "max_position_embeddings": 32, "eos_token_id": 289}
    config = CLIPConfig(text_config=text, vision_config={**tower, "image_size": 16, "patch_size": 8}, projection_dim=8)
    CLIPModel(config).save_pretrained(clip)
    CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}).save_pretrained(clip)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"):
        shutil.copy(zoo() / "clip" / name, clip)
    network = timm.create_model("test_vit", num_classes=3)
    (made / "timm").mkdir()
    save_file(network.state_dict(), made / "timm" / "model.safetensors")
    settings = {
        "architecture": "test_vit",
        "num_classes": 3,
        "model_args": {"img_size": 160},
        "pretrained_cfg": {"num_classes": 3, "input_size": [3, 160, 160], "label_names": ["a", "b", "c"]},
    }
    (made / "timm" / "config.json").write_text(json.dumps(settings))
    return {"hf-clip": clip, "classifier": made / "timm"} | {
        name: zoo() / name for name in ("clip", "blip2", "owlv2", "diffusion")
    }


@pytest.fixture
def folder_of(sources, tmp_path, watch):
    """kind -> a copy of that checkpoint with a Python file beside its JSON files."""

    def copy(kind: str) -> Path:
        folder = tmp_path / f"copy_of_{kind.replace('-', '_')}"
        shutil.copytree(sources[kind], folder)
        for place in (folder, *(path for path in folder.iterdir() if path.is_dir())):
            (place / "evil.py").write_text(PAYLOAD.format(marker=str(watch.marker)))
        return folder

    return copy


def plant(folder: Path, file: str, field: str, value: Any) -> None:
    """Sets a field, given by its dotted path, in a JSON file, which is created if missing."""
    path = folder / file
    content = json.loads(path.read_text()) if path.is_file() else {}
    inner = content
    *parents, last = field.split(".")
    for name in parents:
        inner = inner.setdefault(name, {})
    inner[last] = value
    path.write_text(json.dumps(content))


def load(kind: str, folder: Path) -> None:
    """Loads a checkpoint in the way that a run does."""
    if kind == "diffusion":
        StableDiffusion(DiffusersFolder(str(folder)), CPU, torch.float32)
        return
    plugin = registry.get("referees", kind)
    prefix = "local-dir:" if kind in ("clip", "classifier") else ""
    more = {}
    if kind == "image":
        Image.new("RGB", (16, 16)).save(folder / "reference.png")
        more = {"reference": str(folder / "reference.png"), "features": "dinov2"}
    plugin(plugin.Config(model=prefix + str(folder), **more)).load(CPU, torch.float32)


AUTO = {
    "AutoConfig": "evil.EvilConfig",
    "AutoModel": "evil.Evil",
    "AutoTokenizer": [None, "evil.Evil"],
    "AutoImageProcessor": "evil.EvilImages",
    "AutoProcessor": "evil.Evil",
}
TRANSFORMERS = [
    ("config.json", "auto_map", AUTO),
    ("config.json", "vision_config.auto_map", AUTO),
    ("config.json", "custom_pipelines", {"own": {"impl": "evil.Evil"}}),
    ("config.json", "trust_remote_code", True),
    ("config.json", "attn_implementation", "evil/kernel"),
    ("config.json", "_attn_implementation", {"vision_config": "evil/kernel:run"}),
    ("config.json", "experts_implementation", "evil/kernel"),
    ("config.json", "quantization_config", {"quant_method": "awq"}),
    ("config.json", "vision_config.quantization_config", {"quant_method": "bitsandbytes", "load_in_8bit": True}),
    ("config.json", "transformers_weights", "evil.bin"),
    ("config.json", "configuration_files", ["../config.4.0.0.json"]),
    ("config.4.0.0.json", "auto_map", AUTO),
    ("config.json", "tokenizer_class", "evil.Evil"),
    ("config.json", "vision_config.architecture", "local-dir:evil"),
    ("config.json", "model_args.checkpoint_path", "evil.bin"),
    ("generation_config.json", "custom_generate", "evil"),
    ("tokenizer_config.json", "auto_map", AUTO),
    ("tokenizer_config.json", "auto_map", [None, "evil.Evil"]),
    ("tokenizer_config.json", "tokenizer_class", "evil.Evil"),
    ("tokenizer_config.json", "tokenizer_class", "RagRetriever"),
    ("tokenizer_config.json", "processor_class", "evil.Evil"),
    ("tokenizer_config.json", "trust_remote_code", True),
    ("preprocessor_config.json", "auto_map", AUTO),
    ("preprocessor_config.json", "image_processor_type", "evil.EvilImages"),
    ("preprocessor_config.json", "feature_extractor_type", "AutoModel"),
    ("processor_config.json", "auto_map", AUTO),
    ("processor_config.json", "image_processor.auto_map", AUTO),
    ("processor_config.json", "image_processor.image_processor_type", "evil.EvilImages"),
    ("processor_config.json", "audio_tokenizer", {"audio_tokenizer_name_or_path": "evil/other"}),
    ("processor_config.json", "processor_class", "evil.Evil"),
    ("video_preprocessor_config.json", "auto_map", AUTO),
    ("adapter_config.json", "base_model_name_or_path", "evil/other"),
    ("adapter_config.json", "auto_mapping", {"parent_library": "evil", "base_model_class": "Evil"}),
    ("model.safetensors.index.json", "weight_map", {"a": "evil.bin"}),
]
OPEN_CLIP = [
    ("open_clip_config.json", "model_cfg.text_cfg.tokenizer_kwargs", {"trust_remote_code": True}),
    ("open_clip_config.json", "model_cfg.text_cfg.tokenizer_kwargs", {"trust_remote_code": False}),
    ("open_clip_config.json", "model_cfg.text_cfg.tokenizer_kwargs", {"subfolder": "evil"}),
    ("open_clip_config.json", "model_cfg.text_cfg.tokenizer_kwargs", {"config": {"auto_map": AUTO}}),
    ("open_clip_config.json", "model_cfg.text_cfg.tokenizer_kwargs", ["trust_remote_code"]),
    ("open_clip_config.json", "model_cfg.vision_cfg.timm_model_name", "hf-hub:evil/other"),
    ("open_clip_config.json", "model_cfg.vision_cfg.timm_model_name", "local-dir:evil"),
    ("tokenizer_config.json", "auto_map", AUTO),
    ("tokenizer_config.json", "auto_map", [None, "evil.Evil"]),
    ("tokenizer_config.json", "tokenizer_class", "evil.Evil"),
    ("config.json", "auto_map", AUTO),
]
DIFFUSERS = [
    ("model_index.json", "_class_name", ["evil", "Pipe"]),
    ("model_index.json", "_class_name", "evil.Pipe"),
    ("model_index.json", "unet", ["evil", "Pipe"]),
    ("model_index.json", "vae", ["os", "system"]),
    ("model_index.json", "scheduler", ["diffusers.utils.evil", "Pipe"]),
    ("model_index.json", "custom_pipeline", "evil"),
    ("model_index.json", "tokenizer", ["transformers", "evil.Evil"]),
    ("unet/config.json", "auto_map", {"AutoModel": "evil.Evil"}),
    ("unet/config.json", "_class_name", "evil.Evil"),
    ("unet/config.json", "quantization_config", {"quant_method": "torchao"}),
    ("vae/config.json", "auto_map", {"AutoModel": "evil.Evil"}),
    ("scheduler/scheduler_config.json", "_class_name", "evil.Evil"),
    ("scheduler/scheduler_config.json", "_class_name", ["evil", "Evil"]),
    ("scheduler/scheduler_config.json", "auto_map", {"AutoModel": "evil.Evil"}),
    ("text_encoder/config.json", "auto_map", AUTO),
    ("text_encoder/config.json", "attn_implementation", "evil/kernel"),
    ("tokenizer/tokenizer_config.json", "auto_map", AUTO),
    ("unet/diffusion_pytorch_model.safetensors.index.json", "weight_map", {"a": "../evil.bin"}),
]
TIMM = [
    ("config.json", "architecture", "local-dir:evil"),
    ("config.json", "model_args.checkpoint_path", "evil.bin"),
    ("config.json", "model_args.trust_remote_code", True),
    ("config.json", "pretrained_cfg.custom_load", "hf"),
    ("config.json", "pretrained_cfg.hf_hub_filename", "evil.bin"),
    ("config.json", "pretrained_cfg.state_dict", {"a": 1}),
]
PLANTED = [
    *(("clip", *case) for case in OPEN_CLIP),
    *((kind, *case) for kind in ("blip2", "owlv2", "hf-clip") for case in TRANSFORMERS),
    *((kind, *TRANSFORMERS[0]) for kind in ("vqa", "siglip", "image")),
    *(("diffusion", *case) for case in DIFFUSERS),
    *(("classifier", *case) for case in TIMM),
]
KIND_OF = {"vqa": "blip2", "siglip": "hf-clip", "image": "hf-clip"}


@pytest.mark.parametrize("kind", ["clip", "blip2", "owlv2", "hf-clip", "diffusion", "classifier"])
def test_the_same_folder_without_a_payload_in_its_settings_loads(kind, folder_of, watch):
    load(kind, folder_of(kind))
    watch.assert_quiet()


@pytest.mark.parametrize(("kind", "file", "field", "value"), PLANTED)
def test_a_payload_is_refused_by_file_and_field(kind, file, field, value, folder_of, watch):
    folder = folder_of(KIND_OF.get(kind, kind))
    plant(folder, file, field, value)
    with pytest.raises(CheckpointError) as caught:
        load(kind, folder)
    message = str(caught.value)
    assert "\n" not in message
    assert file in message
    if not file.startswith("adapter"):
        assert field in message
    assert str(folder) in message
    assert "trust_remote_code=True" not in message
    watch.assert_quiet()


AUTO_MAPS = [
    ("clip", "tokenizer_config.json"),
    ("clip", "config.json"),
    *((k, f) for k in ("blip2", "owlv2", "hf-clip") for f in ("config.json", "tokenizer_config.json")),
    *((k, f) for k in ("blip2", "owlv2", "hf-clip") for f in ("preprocessor_config.json", "processor_config.json")),
    ("diffusion", "text_encoder/config.json"),
    ("diffusion", "tokenizer/tokenizer_config.json"),
]


@pytest.mark.fault("5.2")
@pytest.mark.parametrize(("kind", "file"), AUTO_MAPS)
def test_what_the_check_overlooks_runs_no_code_and_asks_nothing(kind, file, folder_of, watch, monkeypatch):
    for module in ("open_clip_towers", "transformers_folder", "diffusers_folder"):
        for check in ("refuse_code", "refuse_fields"):
            if hasattr(sys.modules[f"refcore_plugins.models.{module}"], check):
                monkeypatch.setattr(f"refcore_plugins.models.{module}.{check}", lambda *_, **__: None)
    folder = folder_of(kind)
    plant(folder, file, "auto_map", AUTO)
    if file == "tokenizer_config.json":
        plant(folder, file, "tokenizer_class", "Unknown")
    with suppress(CheckpointError):
        load(kind, folder)
    watch.assert_quiet()


def test_the_reported_case_by_the_command_line(folder_of, watch, tmp_path, capsys):
    """`refcore score` with a CLIP whose config names the code beside it, which once printed 0.47 and ran the code."""
    folder = folder_of("clip")
    plant(folder, "open_clip_config.json", "model_cfg.text_cfg.tokenizer_kwargs", {"trust_remote_code": True})
    plant(folder, "tokenizer_config.json", "auto_map", {"AutoTokenizer": [None, "evil.Evil"]})
    Image.new("RGB", (64, 64), "red").save(tmp_path / "image.png")
    with pytest.raises(SystemExit) as left:
        main(
            "score {} a-red-circle --referee clip --json --set {}".format(
                tmp_path / "image.png", f"referees.0.config.model=local-dir:{folder}"
            ).split()
        )
    printed = capsys.readouterr()
    assert left.value.code == 1
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert "open_clip_config.json" in printed.err
    assert "tokenizer_kwargs.trust_remote_code" in printed.err
    watch.assert_quiet()


def test_that_payload_runs_where_open_clip_alone_reads_the_folder(folder_of, watch):
    folder = folder_of("clip")
    plant(folder, "open_clip_config.json", "model_cfg.text_cfg.tokenizer_kwargs", {"trust_remote_code": True})
    plant(folder, "tokenizer_config.json", "auto_map", {"AutoTokenizer": [None, "evil.Evil"]})
    open_clip.get_tokenizer(f"local-dir:{folder}")
    assert watch.marker.exists()


@pytest.mark.fault("5.2")
def test_that_payload_runs_where_transformers_may_ask(folder_of, watch):
    folder = folder_of("hf-clip")
    plant(folder, "config.json", "model_type", "evil")
    plant(folder, "config.json", "auto_map", AUTO)
    with pytest.raises(ValueError, match="custom code"), data_only():
        AutoConfig.from_pretrained(folder)
    watch.assert_quiet()
    AutoConfig.from_pretrained(folder)
    assert watch.asked
    assert watch.marker.exists()


@pytest.mark.fault("5.2")
def test_even_trust_runs_nothing_within_data_only(folder_of, watch):
    folder = folder_of("hf-clip")
    plant(folder, "tokenizer_config.json", "auto_map", AUTO)
    with pytest.raises(CheckpointError, match="Python code of its own"), data_only():
        AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    watch.assert_quiet()
    AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    assert watch.marker.exists()


def test_a_text_tower_from_a_folder_of_its_own_is_checked_too(folder_of, watch):
    folder, other = folder_of("clip"), folder_of("hf-clip")
    plant(folder, "open_clip_config.json", "model_cfg.text_cfg.hf_model_name", str(other))
    plant(other, "config.json", "model_type", "evil")
    plant(other, "config.json", "auto_map", AUTO)
    with pytest.raises(CheckpointError, match=r"config.json of model .*copy_of_hf_clip.* has auto_map"):
        load("clip", folder)
    watch.assert_quiet()


@pytest.fixture
def on_hub(tmp_path, monkeypatch):
    """(folder, id) -> puts a folder into the hub's cache; the hub itself is out of reach."""
    cache = tmp_path / "hub"
    for module in ("huggingface_hub.constants", "transformers.utils.hub.constants"):
        monkeypatch.setattr(f"{module}.HF_HUB_CACHE", str(cache))

    def put(folder: Path, name: str) -> None:
        commit = "0" * 40
        place = cache / f"models--{name.replace('/', '--')}"
        (place / "refs").mkdir(parents=True)
        (place / "refs" / "main").write_text(commit)
        shutil.copytree(folder, place / "snapshots" / commit)

    return put


@pytest.mark.parametrize(("kind", "prefix"), [("hf-clip", ""), ("clip", "hf-hub:"), ("classifier", "hf-hub:")])
def test_a_hub_id_is_checked_as_a_folder_is(kind, prefix, folder_of, on_hub, watch):
    folder = folder_of(kind)
    file = "open_clip_config.json" if kind == "clip" else "config.json"
    plant(folder, file, "model_cfg.text_cfg.tokenizer_kwargs", {"trust_remote_code": True})
    plant(folder, "tokenizer_config.json", "auto_map", AUTO)
    on_hub(folder, "evil/model")
    plugin = registry.get("referees", kind)
    with pytest.raises(CheckpointError, match=r"tokenizer_kwargs\.trust_remote_code|tokenizer_config.json.* auto_map"):
        plugin(plugin.Config(model=f"{prefix}evil/model")).load(CPU, torch.float32)
    watch.assert_quiet()


def test_a_diffusers_hub_id_is_checked_file_by_file(folder_of, on_hub, watch):
    folder = folder_of("diffusion")
    plant(folder, "unet/config.json", "auto_map", {"AutoModel": "evil.Evil"})
    on_hub(folder, "evil/model")
    with pytest.raises(CheckpointError, match=r"unet/config.json .*auto_map"):
        StableDiffusion(DiffusersFolder("evil/model"), CPU, torch.float32)
    watch.assert_quiet()


def test_a_tokenizer_of_open_clip_on_the_hub_is_checked_where_it_comes_from_another_id(folder_of, on_hub, watch):
    folder, other = folder_of("clip"), folder_of("hf-clip")
    plant(folder, "open_clip_config.json", "model_cfg.text_cfg.hf_tokenizer_name", "evil/tokenizer")
    plant(other, "tokenizer_config.json", "auto_map", AUTO)
    on_hub(folder, "evil/model")
    on_hub(other, "evil/tokenizer")
    plugin = registry.get("referees", "clip")
    with pytest.raises(CheckpointError, match=r"tokenizer_config.json of model .*evil/tokenizer.* auto_map"):
        plugin(plugin.Config(model="hf-hub:evil/model")).load(CPU, torch.float32)
    watch.assert_quiet()


PICKLES = [
    ("clip", "open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
    ("clip", "open_clip_model.safetensors", "open_clip_pytorch_model.pth"),
    ("clip", "open_clip_model.safetensors", "weights.pth"),
    *((kind, "model.safetensors", "pytorch_model.bin") for kind in ("blip2", "owlv2", "hf-clip", "classifier")),
    ("classifier", "model.safetensors", "weights.pth"),
    ("diffusion", "unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.bin"),
    ("diffusion", "text_encoder/model.safetensors", "text_encoder/pytorch_model.bin"),
]


@pytest.mark.fault("5.11")
@pytest.mark.parametrize(("kind", "weights", "file"), PICKLES)
def test_pickled_weights_are_refused_by_name(kind, weights, file, folder_of, watch):
    folder = folder_of(kind)
    tensors: dict[str, Any] = dict(load_file(folder / weights))
    (folder / weights).unlink()
    torch.save(tensors | {"evil": Pickled(watch.marker)}, folder / file)
    with pytest.raises(CheckpointError, match="safetensors") as caught:
        load(kind, folder)
    assert Path(file).name in str(caught.value)
    assert "refcore convert clip-weights" in str(caught.value)
    assert "weights_only" not in str(caught.value)
    watch.assert_quiet()
    torch.load(folder / file, weights_only=False)
    assert watch.marker.exists()


@pytest.mark.fault("5.11")
def test_a_pickle_that_open_clip_prefers_to_safetensors_is_refused(folder_of, watch):
    folder = folder_of("clip")
    (folder / "open_clip_model.safetensors").rename(folder / "others.safetensors")
    torch.save({"evil": Pickled(watch.marker)}, folder / "open_clip_pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"open_clip_pytorch_model.bin .* is not a safetensors file"):
        load("clip", folder)
    watch.assert_quiet()


@pytest.mark.fault("5.11")
@pytest.mark.parametrize("kind", ["clip", "hf-clip", "classifier", "diffusion"])
def test_a_pickle_beside_safetensors_is_left_alone(kind, folder_of, watch):
    folder = folder_of(kind)
    for place in (folder, folder / "unet"):
        if place.is_dir():
            for name in ("open_clip_pytorch_model.bin", "pytorch_model.bin", "diffusion_pytorch_model.bin"):
                torch.save({"evil": Pickled(watch.marker)}, place / name)
    load(kind, folder)
    watch.assert_quiet()


@pytest.mark.fault("5.11")
@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("clip", {"model": "ViT-B-32", "pretrained": "FILE"}),
        ("classifier", {"model": "test_vit", "weights": "FILE"}),
        ("blip2", {"itg_head": "FILE"}),
        ("aesthetic", {"head": "FILE", "model": "playground:clip"}),
    ],
)
def test_a_file_of_weights_that_is_a_pickle_is_refused(kind, config, watch, tmp_path):
    file = tmp_path / "weights.pth"
    torch.save({"evil": Pickled(watch.marker)}, file)
    plugin = registry.get("referees", kind)
    with pytest.raises(CheckpointError, match=r"weights\.pth") as caught:
        plugin(plugin.Config(**{k: str(file) if v == "FILE" else v for k, v in config.items()})).load(
            CPU, torch.float32
        )
    assert "weights_only" not in str(caught.value)
    watch.assert_quiet()


@pytest.mark.fault("5.11")
@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_a_conversion_reads_tensors_alone(save, watch, tmp_path, capsys):
    save({"a": torch.ones(2), "evil": Pickled(watch.marker)}, tmp_path / "evil.bin")
    with pytest.raises(SystemExit):
        main(["convert", "clip-weights", str(tmp_path / "evil.bin"), str(tmp_path / "out.safetensors")])
    message = capsys.readouterr().err
    assert len(message.splitlines()) == 1
    assert "evil.bin" in message
    assert "weights_only" not in message
    assert not (tmp_path / "out.safetensors").exists()
    watch.assert_quiet()


@pytest.mark.fault("5.11")
def test_converted_weights_load(folder_of, watch):
    folder = folder_of("hf-clip")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    with pytest.raises(SystemExit) as left:
        main(["convert", "clip-weights"] + [str(folder / name) for name in ("pytorch_model.bin", "model.safetensors")])
    assert not left.value.code
    load("hf-clip", folder)
    written = load_file(folder / "model.safetensors")
    assert all(torch.equal(written[name], tensor) for name, tensor in tensors.items())


def test_tags_of_a_run_config_run_nothing(watch, tmp_path, capsys):
    file = tmp_path / "run.yaml"
    file.write_text(f"steps: !!python/object/apply:pathlib.Path.write_text [{watch.marker}, ran]\n")
    with pytest.raises(SystemExit) as left:
        main(["config", "validate", str(file)])
    assert left.value.code
    assert "python/object" in capsys.readouterr().err
    watch.assert_quiet()


def test_what_is_harmless_is_not_refused():
    harmless: list[tuple[str, Any]] = [
        (
            "open_clip_config.json",
            {"text_cfg": {"tokenizer_kwargs": {"clean": "canonicalize", "language": "en"}}},
        ),
        (
            "config.json",
            {"auto_map": None, "quantization_config": None, "attn_implementation": "sdpa", "trust_remote_code": False},
        ),
        ("tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", "processor_class": "CLIPProcessor"}),
        ("preprocessor_config.json", {"image_processor_type": "ViTImageProcessorFast"}),
        ("preprocessor_config.json", {"feature_extractor_type": "CLIPFeatureExtractor"}),
        ("model_index.json", {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]}),
        ("model_index.json", {"_class_name": "StableDiffusionPipeline", "image_encoder": [None, None]}),
        ("model_index.json", {"feature_extractor": ["transformers", "CLIPFeatureExtractor"]}),
        ("scheduler_config.json", {"_class_name": "PNDMScheduler"}),
        ("config.json", {"architecture": "vit_base_patch16_224", "pretrained_cfg": {"custom_load": False}}),
        ("model.safetensors.index.json", {"weight_map": {"a": "model-00001-of-00002.safetensors"}}),
        ("model.safetensors.index.json", {"weight_map": ["no map at all"]}),
        ("config.json", ["no object"]),
    ]
    for file, content in harmless:
        refuse_fields(content, file, "some/model")


def test_words_of_a_vocabulary_name_nothing(tmp_path):
    (tmp_path / "vocab.json").write_text(json.dumps({"auto_map": 1, "trust_remote_code": 2}))
    (tmp_path / "added_tokens.json").write_text(json.dumps({"auto_map": 3}))
    refuse_code(tmp_path, "some/model")


def test_settings_behind_a_link_and_in_a_subfolder_are_read(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "tokenizer_config.json").write_text(json.dumps({"auto_map": AUTO}))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "tokenizer").symlink_to(tmp_path / "real")
    with pytest.raises(CheckpointError, match=r"tokenizer/tokenizer_config.json"):
        refuse_code(tmp_path / "model", "some/model")


FOLDERS = ("refcore", "plugins", "playground", "bench", "performance", "studies", "examples", "docs")
SOURCES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
OF_DIFFUSERS = ("AutoencoderKL", "AutoencoderTiny", "UNet2DConditionModel", "VQModel", "DDIMScheduler")
"""Classes whose `from_pretrained` has no `trust_remote_code`."""
UNSAFE = {
    "pickle": {"load", "loads", "Unpickler"},
    "marshal": {"load", "loads"},
    "yaml": {"unsafe_load", "full_load", "load_all", "full_load_all", "unsafe_load_all"},
    "joblib": {"load"},
    "shelve": {"open"},
    "os": {"system", "popen"},
}


def faults(tree: ast.AST) -> list[str]:
    """Calls that could run what a file names."""
    safe_loaders = {"SafeLoader", "CSafeLoader"} | {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and any("SafeLoader" in ast.unparse(base) for base in node.bases)
    }
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        owner, _, name = called.rpartition(".")
        given = {word.arg: ast.unparse(word.value) for word in node.keywords if word.arg}
        spread = [ast.unparse(word.value) for word in node.keywords if word.arg is None]
        untrusting = given.get("trust_remote_code") == "False" or any(s.startswith("without_code(") for s in spread)
        if name in ("from_pretrained", "get_config_dict") and not untrusting and owner not in OF_DIFFUSERS:
            found.append(f"{called} without trust_remote_code=False")
        loads_weights = name == "from_pretrained" and not any(
            word in owner for word in ("Tokenizer", "tokenizer", "Processor", "Scheduler", "auto")
        )
        if loads_weights and given.get("use_safetensors") != "True":
            found.append(f"{called} without use_safetensors=True")
        wrong = (
            (name in ("from_single_file", "load_state_dict_from_url", "torch_load"))
            or (called == "torch.load" and given.get("weights_only") != "True")
            or (called == "open_clip.create_model" and "pretrained" in given and given.get("weights_only") != "True")
            or (called == "yaml.load" and given.get("Loader", "").split(".")[-1] not in safe_loaders)
            or (called in ("eval", "exec", "compile", "__import__", "input"))
            or (name in UNSAFE.get(owner, ()))
            or ("True" in (given.get("allow_pickle", ""), given.get("trust_remote_code", ""), given.get("shell", "")))
        )
        if wrong:
            found.append(ast.unparse(node))
    return found


def test_every_folder_of_sources_is_scanned():
    assert [folder for folder in FOLDERS if not any(path.is_relative_to(ROOT / folder) for path in SOURCES)] == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_makes_a_call_that_could_run_a_checkpoint(path):
    assert faults(ast.parse(path.read_text("utf-8"))) == []


@pytest.mark.parametrize(
    "call",
    [
        "AutoModel.from_pretrained(folder, use_safetensors=True)",
        "AutoModel.from_pretrained(folder, trust_remote_code=None, use_safetensors=True)",
        "AutoModel.from_pretrained(folder, trust_remote_code=False)",
        "AutoTokenizer.from_pretrained(folder)",
        "UNet2DConditionModel.from_pretrained(folder)",
        "StableDiffusionPipeline.from_single_file(file)",
        "torch.load(file)",
        "torch.load(file, weights_only=False)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.unsafe_load(text)",
        "pickle.load(file)",
        "eval(text)",
        "np.load(file, allow_pickle=True)",
    ],
)
def test_that_scan_finds_such_calls(call):
    assert faults(ast.parse(call))


def test_nothing_is_switched_off_after_data_only():
    before = dynamic_module_utils.get_cached_module_file
    with data_only():
        assert dynamic_module_utils.get_cached_module_file is not before
    assert dynamic_module_utils.get_cached_module_file is before
