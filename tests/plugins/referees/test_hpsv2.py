"""The `hpsv2` referee: a tuned CLIP of open_clip, converted from the published pickle, equal to open_clip itself."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.model import CLIP
from tiny import loaded

from refcore.errors import CheckpointError
from refcore_plugins.referees import hpsv2
from refcore_plugins.referees.hpsv2 import Hpsv2, convert_weights

CPU = torch.device("cpu")
PROMPTS = ["a red circle", "two small blue squares"]
TINY = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 16, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 2},
}


@pytest.fixture
def published(tmp_path, monkeypatch) -> Path:
    """A file laid out as HPS_v2_compressed.pt is, of a tiny model with ViT-H-14's text context and vocabulary."""
    name = "tiny-hpsv2"
    (tmp_path / f"{name}.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(tmp_path / f"{name}.json")
    monkeypatch.setattr(hpsv2, "ARCHITECTURE", name)
    torch.manual_seed(4)
    state = {f"module.{key}": value for key, value in CLIP(**TINY).state_dict().items()}
    torch.save({"epoch": 1, "name": "hps", "state_dict": state}, tmp_path / "HPS_v2_compressed.pt")
    return tmp_path / "HPS_v2_compressed.pt"


def load(folder: Path, dtype: torch.dtype = torch.float32, **fields: object) -> Hpsv2:
    return loaded(Hpsv2(model=str(folder), **fields), dtype)


def test_scores_equal_open_clips_cosines_with_the_published_weights(published, tmp_path, photographs, pixels):
    """The same pixels to 1e-5; through open_clip's own 8-bit preprocessing, to 0.02."""
    referee = load(convert_weights(published, tmp_path / "folder"))
    model, _, preprocess = open_clip.create_model_and_transforms("tiny-hpsv2", pretrained=None)
    state = torch.load(published, weights_only=True)["state_dict"]
    model.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
    tokens = open_clip.get_tokenizer("tiny-hpsv2")(PROMPTS)
    images = pixels(referee.input_size)
    score = referee.score(images, referee.read(PROMPTS))
    own_pixels = torch.stack([preprocess(photograph) for photograph in photographs])
    for given, tolerance in ((referee.towers.normalise(images), 1e-5), (own_pixels, 0.02)):
        with torch.no_grad():
            image, text, _ = model.eval()(given, tokens)
        torch.testing.assert_close(score, (image * text).sum(1), atol=tolerance, rtol=0)


def test_it_holds_the_contract(published, tmp_path, holds_the_contract):
    referee = load(convert_weights(published, tmp_path / "folder"), torch.float64, absent_below=-0.99)
    holds_the_contract(referee)
    assert referee.read(["red " * 80]).truncated == ("red red red red red",)


def test_missing_and_foreign_checkpoints_are_refused_with_the_remedy(published, tmp_path):
    with pytest.raises(CheckpointError, match="refcore convert hpsv2-weights"):
        load(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="there is no file"):
        convert_weights(tmp_path / "none.pt", tmp_path / "out")
    state = torch.load(published, weights_only=True)["state_dict"]
    torch.save({"state_dict": {**state, "module.visual.proj": torch.ones(2, 2)}}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"visual.proj is \[2, 2\], not \[16, 12\]"):
        convert_weights(tmp_path / "other.pt", tmp_path / "out")
    state.pop("module.logit_scale")
    torch.save({"state_dict": state}, tmp_path / "less.pt")
    with pytest.raises(CheckpointError, match="lacks logit_scale"):
        convert_weights(tmp_path / "less.pt", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    folder = convert_weights(published, tmp_path / "folder")
    (folder / "open_clip_model.safetensors").write_bytes(b"broken")
    with pytest.raises(CheckpointError, match="hpsv2: the checkpoint of model"):
        load(folder)


def test_the_architecture_is_that_of_the_publication():
    assert hpsv2.ARCHITECTURE == "ViT-H-14"
    assert open_clip.get_model_config("ViT-H-14")["embed_dim"] == 1024
