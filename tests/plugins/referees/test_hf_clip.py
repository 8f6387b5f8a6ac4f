"""The `hf-clip` referee: equal to the CLIPModel of transformers and its processor, and clear about what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from tiny import loaded, refusal_of
from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

from refcore_plugins.referees.hf_clip import HfClip

CPU = torch.device("cpu")
PROMPTS = ["a red circle", "two small blue squares"]


def load(folder: Path, dtype: torch.dtype = torch.float32, **fields: object) -> HfClip:
    return loaded(HfClip(model=str(folder), **fields), dtype)


def test_scores_equal_the_librarys_logits_over_their_scale(hf_clip_folder, photographs, pixels):
    """The same pixels to 1e-5; through the library's own 8-bit processor, to 0.02."""
    referee = load(hf_clip_folder)
    model = CLIPModel.from_pretrained(hf_clip_folder).eval()
    tokens = AutoTokenizer.from_pretrained(hf_clip_folder)(PROMPTS, padding=True, return_tensors="pt")
    processed = AutoImageProcessor.from_pretrained(hf_clip_folder)(photographs, return_tensors="pt").pixel_values
    images = pixels(referee.input_size)
    score = referee.score(images, referee.read(PROMPTS))
    for given, tolerance in ((referee.towers.normalise(images), 1e-5), (processed, 0.02)):
        with torch.no_grad():
            logits = model(**tokens, pixel_values=given).logits_per_image.diagonal()
        torch.testing.assert_close(score * model.logit_scale.exp(), logits, atol=tolerance * 100, rtol=0)
        torch.testing.assert_close(score, logits / model.logit_scale.exp(), atol=tolerance, rtol=0)
    torch.testing.assert_close(referee.towers.scale, model.logit_scale.exp().detach())


def test_it_holds_the_contract(hf_clip_folder, holds_the_contract):
    holds_the_contract(load(hf_clip_folder, torch.float64, absent_below=-0.99))
    holds_the_contract(load(hf_clip_folder, torch.float64, absent_below=-0.99, loss="spherical"))


def test_the_folders_own_tokenizer_says_what_is_left_unread(hf_clip_folder):
    referee = load(hf_clip_folder)
    long = "a red circle, a blue square, a green star and a Striped Yellow heart"
    conditioning = referee.read(["a red circle", long])
    assert conditioning.truncated == ("", "star and a Striped Yellow heart")
    torch.testing.assert_close(
        referee.read([long.removesuffix(conditioning.truncated[1])])["text"][0], conditioning["text"][1]
    )


def refusal(**fields: object) -> str:
    return refusal_of(HfClip(**fields))


def test_missing_corrupt_and_foreign_checkpoints_are_refused_with_the_remedy(hf_clip_folder, siglip_folder, tmp_path):
    assert "does not exist; expected a CLIPModel" in refusal(model=str(tmp_path / "nowhere"))
    assert "has no config.json" in refusal(model=str(tmp_path))
    assert "is a SiglipModel; expected a CLIPModel" in refusal(model=str(siglip_folder))
    broken = shutil.copytree(hf_clip_folder, tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "cannot be loaded" in refusal(model=str(broken))
    incomplete = shutil.copytree(hf_clip_folder, tmp_path / "incomplete")
    config = json.loads((incomplete / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 3
    (incomplete / "config.json").write_text(json.dumps(config))
    assert "expected a complete CLIPModel" in refusal(model=str(incomplete))


def test_a_processor_that_scales_levels_otherwise_is_refused(hf_clip_folder, tmp_path):
    folder = shutil.copytree(hf_clip_folder, tmp_path / "scaled")
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "rescale_factor": 1 / 127.5}))
    assert "expected rescale_factor 1/255" in refusal(model=str(folder))


@pytest.mark.usefixtures("offline")
def test_what_is_out_of_reach_is_named_with_the_remedy():
    assert "hf download yuvalkirstain/PickScore_v1" in refusal()
