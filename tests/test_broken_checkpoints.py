"""A checkpoint that is not what it says is refused by name, before it judges anything."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from toys import toy_config

from refcore import checkpoints, registry
from refcore.calibration import Calibration
from refcore.engine.inversion import Inversion
from refcore.errors import CheckpointError, RefcoreError
from refcore_plugins.models.autoencoder import load_autoencoder
from refcore_plugins.models.diffusers_folder import DiffusersFolder
from refcore_plugins.models.rating_head import RatingHead

CPU = torch.device("cpu")


def copied(name: str, to: Path) -> Path:
    shutil.copytree(checkpoints.zoo() / name, to / name)
    return to / name


def edit(file: Path, *path: str, value: Any) -> None:
    content = json.loads(file.read_text())
    place = content
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    file.write_text(json.dumps(content))


def poison(file: Path, value: float = torch.nan) -> str:
    tensors = load_file(file)
    name = next(name for name in sorted(tensors) if tensors[name].is_floating_point() and tensors[name].ndim > 1)
    tensors[name].view(-1)[3] = value
    save_file(tensors, file, metadata={"format": "pt"})
    return name


def load(referee: str, model: str) -> None:
    registry.create("referees", referee, {"model": model}).load(CPU, torch.float32)


@pytest.mark.fault("5.3")
@pytest.mark.parametrize("tower", ["vision_config", "text_config"])
def test_a_config_of_fewer_layers_than_the_weights_is_refused(tower, tmp_path):
    folder = copied("owlv2", tmp_path)
    edit(folder / "config.json", tower, "num_hidden_layers", value=1)
    with pytest.raises(CheckpointError, match=r"tensors that its config gives no place to, owlv2\..* has fewer layers"):
        load("owlv2", str(folder))


@pytest.mark.fault("5.3")
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize(
    ("referee", "name", "file"),
    [
        ("owlv2", "owlv2", "model.safetensors"),
        ("clip", "clip", "open_clip_model.safetensors"),
        ("blip2", "blip2", "itg_head.safetensors"),
    ],
)
def test_weights_that_are_not_finite_are_refused_by_tensor(referee, name, file, value, tmp_path):
    folder = copied(name, tmp_path)
    tensor = poison(folder / file, value)
    model = f"local-dir:{folder}" if referee == "clip" else str(folder)
    with pytest.raises(CheckpointError, match=f"has NaN or infinity in {tensor}"):
        load(referee, model)


@pytest.mark.fault("5.3")
def test_an_autoencoder_with_nan_is_refused_though_no_image_is_judged(tmp_path):
    folder = copied("diffusion", tmp_path)
    tensor = poison(folder / "vae" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(CheckpointError, match=rf'vae of ".*" has NaN or infinity in {tensor}; fetch'):
        load_autoencoder(DiffusersFolder(str(folder)), CPU, torch.float32)


@pytest.mark.fault("5.3")
def test_a_flipped_bit_in_an_embedded_checkpoint_is_found_by_its_hash(tmp_path, monkeypatch):
    zoo = shutil.copytree(checkpoints.zoo(), tmp_path / "zoo")
    monkeypatch.setattr(checkpoints, "zoo", lambda: zoo)
    assert set(json.loads((zoo / checkpoints.HASHES).read_text())) == set(checkpoints.embedded())
    for name in checkpoints.embedded():
        checkpoints.resolve(f"playground:{name}")
    weights = zoo / "clip" / "open_clip_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-200] ^= 4
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match=r'"playground:clip" is not as it was shipped \(hash .*reinstall refcore'):
        checkpoints.resolve("playground:clip")
    checkpoints.resolve("playground:owlv2")


@pytest.mark.fault("5.3")
def test_a_large_file_is_sampled_and_its_digest_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "WHOLE", 100)
    monkeypatch.setattr(checkpoints, "BLOCK", 4)
    (tmp_path / "a").write_bytes(bytes(range(256)) * 4)
    first = checkpoints.digest(tmp_path)
    assert first.startswith("sampled:")
    content = bytearray((tmp_path / "a").read_bytes())
    content[-1] ^= 1
    (tmp_path / "b").write_bytes(content)
    assert checkpoints.digest(tmp_path / "b") != checkpoints.digest(tmp_path / "a")


@pytest.mark.fault("5.3")
def test_a_run_is_resumed_with_the_weights_that_it_began_with(toys, monkeypatch):
    monkeypatch.setattr("refcore.engine.inversion.local_checkpoints", lambda config: {"mine": "0" * 16})
    inversion = Inversion(toy_config(prompts=["a"]))
    state = inversion.state_dict()
    assert state["meta"]["checkpoints"] == {"mine": "0" * 16}
    inversion.load_state_dict(state)
    inversion.checkpoints = {"mine": "1" * 16}
    with pytest.raises(RefcoreError, match=r'of other weights: "mine" had the hash 0+, and has 1+ now; restore'):
        inversion.load_state_dict(state)


@pytest.mark.fault("5.3")
@pytest.mark.fault("5.10")
@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("referees", 0, "losses"), [float("nan"), 1.0], r"referees\.0\.losses is not of finite numbers"),
        (("referees", 0, "losses"), [], r"referees\.0\.losses is empty"),
        (("latent",), {"mean": [float("inf")]}, r"latent\.mean is not of finite numbers"),
        (("referees",), [1], "not a calibration file"),
    ],
)
def test_a_calibration_of_no_numbers_is_refused(place, value, message, tmp_path):
    curve = {"name": "toy", "config": {}, "prompt": "{prompt}", "wanted": True, "images": 1, "losses": [0.0, 1.0]}
    content: Any = {"about": {}, "latent": None, "referees": [curve]}
    inner = content
    for part in place[:-1]:
        inner = inner[part]
    inner[place[-1]] = value
    (tmp_path / "it.json").write_text(json.dumps(content))
    with pytest.raises(RefcoreError, match=message):
        Calibration.read(str(tmp_path / "it.json"))


@pytest.mark.fault("5.10")
@pytest.mark.parametrize(
    ("referee", "name", "broken"),
    [
        ("owlv2", "owlv2", ("config.json", "[1]")),
        ("clip", "clip", ("open_clip_config.json", "[1]")),
        ("blip2", "blip2", ("config.json", '"x"')),
        ("blip2", "blip2", ("preprocessor_config.json", "[]")),
        ("blip2", "blip2", ("tokenizer_config.json", None)),
        ("owlv2", "owlv2", ("tokenizer.json", "[]")),
        ("owlv2", "owlv2", ("config.json", "[" * 5000)),
    ],
)
def test_files_of_the_wrong_form_are_one_error_that_names_the_model(referee, name, broken, tmp_path):
    folder = copied(name, tmp_path)
    file, text = broken
    (folder / file).unlink() if text is None else (folder / file).write_text(text)
    with pytest.raises(CheckpointError, match=referee) as refused:
        load(referee, f"local-dir:{folder}" if name == "clip" else str(folder))
    assert str(folder) in str(refused.value)


@pytest.mark.fault("5.10")
@pytest.mark.parametrize(
    "config", ["[]", '{"num_train_timesteps": "x"}', '{"num_train_timesteps": -1}', '{"beta_start": []}']
)
def test_a_bad_scheduler_is_one_error_that_names_the_model(config, tmp_path):
    folder = copied("diffusion", tmp_path)
    (folder / "scheduler" / "scheduler_config.json").write_text(config)
    prior = registry.create("priors", "sds", {"model": str(folder)})
    with pytest.raises(CheckpointError, match="scheduler"):
        prior.load(CPU, torch.float32)


@pytest.mark.fault("5.10")
@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "/" + "y/" * 3000])
@pytest.mark.parametrize("referee", ["owlv2", "clip", "blip2"])
def test_names_that_no_file_can_have_are_one_short_error(referee, name):
    with pytest.raises(RefcoreError) as refused:
        load(referee, f"local-dir:{name}" if referee == "clip" else name)
    assert len(str(refused.value)) < 8000


@pytest.mark.fault("5.10")
def test_a_rating_head_of_vectors_or_with_more_is_refused(tmp_path):
    save_file({"layers.0.weight": torch.zeros(4), "layers.0.bias": torch.zeros(1)}, tmp_path / "flat")
    with pytest.raises(CheckpointError, match=r"weights of \[\[4\]\], not of matrices; remedy"):
        RatingHead.from_file(tmp_path / "flat", "remedy")
    whole = {"layers.0.weight": torch.zeros(1, 4), "layers.0.bias": torch.zeros(1)}
    save_file({**whole, "x": torch.zeros(1)}, tmp_path / "more")
    with pytest.raises(CheckpointError, match="1 tensors that its config gives no place to, x the first"):
        RatingHead.from_file(tmp_path / "more", "remedy")


@pytest.mark.fault("5.6")
@pytest.mark.parametrize(
    ("referee", "name", "file", "path"),
    [
        ("owlv2", "owlv2", "config.json", ("text_config", "num_hidden_layers")),
        ("blip2", "blip2", "config.json", ("qformer_config", "num_hidden_layers")),
        ("clip", "clip", "open_clip_config.json", ("model_cfg", "vision_cfg", "layers")),
    ],
)
def test_a_config_of_a_hundred_thousand_layers_builds_none(referee, name, file, path, tmp_path):
    folder = copied(name, tmp_path)
    edit(folder / file, *path, value=100_000)
    with pytest.raises(CheckpointError, match=rf"has {'.'.join(path)} 100000; expected at most 1000"):
        load(referee, f"local-dir:{folder}" if referee == "clip" else str(folder))
