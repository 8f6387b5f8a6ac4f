"""The `image` referee: cosines to a reference, equal to those of open_clip's and transformers' own features."""

from __future__ import annotations

import shutil
from pathlib import Path

import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import ValidationError
from tiny import MEAN, SIZE, STD, loaded, scramble
from transformers import (
    AutoImageProcessor,
    BitImageProcessor,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
)

from refcore.errors import CheckpointError, RefcoreError
from refcore_plugins.referees.image.referee import ImageSimilarity

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["plain", "registers"])
def dinov2_folder(request, tmp_path_factory) -> Path:
    """A DINOv2 folder of a few thousand parameters, whose processor crops to less than it was trained at."""
    folder = tmp_path_factory.mktemp(f"dinov2_{request.param}")
    tower = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 24, "patch_size": 8}
    if request.param == "plain":
        model = Dinov2Model(Dinov2Config(**tower))
    else:
        model = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**tower, num_register_tokens=3))
    scramble(model, 21)
    model.save_pretrained(folder)
    BitImageProcessor(
        size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}, image_mean=MEAN, image_std=STD
    ).save_pretrained(folder)
    return folder


@pytest.fixture
def reference(photographs: list[Image.Image], tmp_path: Path) -> Path:
    photographs[0].save(tmp_path / "reference.png")
    return tmp_path / "reference.png"


def load(reference: Path, dtype: torch.dtype = torch.float32, **fields: object) -> ImageSimilarity:
    return loaded(ImageSimilarity(reference=str(reference), **fields), dtype)


def test_scores_equal_the_cosines_of_dinov2s_class_tokens(dinov2_folder, reference, photographs, pixels):
    """The same pixels to 1e-5; through the library's own 8-bit processor, to 0.02."""
    referee = load(reference, features="dinov2", model=str(dinov2_folder))
    model = type(referee.towers.model).from_pretrained(dinov2_folder).eval()
    processed = AutoImageProcessor.from_pretrained(dinov2_folder)(photographs, return_tensors="pt").pixel_values
    images = pixels(referee.input_size)
    score = referee.score(images, referee.read(["", ""]))
    for given, tolerance in ((referee.towers.normalise(images), 1e-5), (processed, 0.02)):
        with torch.no_grad():
            features = F.normalize(model(pixel_values=given).pooler_output, dim=1)
        torch.testing.assert_close(score, features @ features[0], atol=tolerance, rtol=0)
    assert score[0] == pytest.approx(1, abs=1e-5)


def test_patches_are_compared_place_by_place(dinov2_folder, reference, pixels):
    referee = load(reference, features="dinov2", model=str(dinov2_folder), compare="patches")
    model = type(referee.towers.model).from_pretrained(dinov2_folder).eval()
    images = pixels(referee.input_size)
    with torch.no_grad():
        hidden = model(pixel_values=referee.towers.normalise(images)).last_hidden_state[:, -4:]  # 2 x 2 patches
    expected = F.cosine_similarity(hidden, hidden[:1], dim=-1).mean(1)
    torch.testing.assert_close(referee.score(images, referee.read(["", ""])), expected, atol=1e-5, rtol=0)


def test_scores_equal_the_cosines_of_both_kinds_of_clip(clip_folder, hf_clip_folder, reference, pixels):
    own = open_clip.create_model(f"local-dir:{clip_folder}").eval().encode_image
    hf = CLIPModel.from_pretrained(hf_clip_folder).eval()
    for fields, encode in (
        ({"features": "clip", "model": f"local-dir:{clip_folder}"}, own),
        (
            {"features": "hf-clip", "model": str(hf_clip_folder)},
            lambda x: hf.get_image_features(pixel_values=x).pooler_output,
        ),
    ):
        referee = load(reference, **fields)
        images = pixels(referee.input_size)
        with torch.no_grad():
            features = F.normalize(encode(referee.towers.normalise(images)), dim=1)
        score = referee.score(images, referee.read(["", ""]))
        torch.testing.assert_close(score, features @ features[0], atol=1e-5, rtol=0)


def test_a_reference_of_other_proportions_is_cut_about_its_centre(clip_folder, photographs, tmp_path, pixels):
    square = photographs[0]
    wide = Image.new("RGB", (square.width + 200, square.height), "magenta")
    wide.paste(square, (100, 0))
    wide.save(tmp_path / "wide.png")
    referee = load(tmp_path / "wide.png", model=f"local-dir:{clip_folder}")
    assert referee.score(pixels(referee.input_size), referee.read(["", ""]))[0] == pytest.approx(1, abs=1e-5)


def test_it_holds_the_contract(clip_folder, dinov2_folder, reference, holds_the_contract):
    whole = {"features": "dinov2", "model": str(dinov2_folder), "absent_below": -0.99}
    for fields in (
        {"model": f"local-dir:{clip_folder}", "absent_below": -0.99},
        {"model": f"local-dir:{clip_folder}", "absent_below": -0.99, "loss": "spherical"},
        whole,
        {**whole, "compare": "patches"},
    ):
        holds_the_contract(load(reference, torch.float64, **fields), reads_prompts=False)


def test_missing_references_and_foreign_checkpoints_are_refused(hf_clip_folder, dinov2_folder, reference, tmp_path):
    with pytest.raises(RefcoreError, match="cannot read the image"):
        load(tmp_path / "none.png")
    with pytest.raises(CheckpointError, match="is a CLIPModel; expected a Dinov2Model or Dinov2WithRegistersModel"):
        load(reference, features="dinov2", model=str(hf_clip_folder))
    broken = shutil.copytree(dinov2_folder, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(CheckpointError, match="image: the checkpoint of model"):
        load(reference, features="dinov2", model=str(broken))
    with pytest.raises(ValidationError, match="compare: patches needs features: dinov2"):
        ImageSimilarity(reference="x.png", compare="patches")
