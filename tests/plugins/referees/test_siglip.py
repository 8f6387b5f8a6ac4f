"""The `siglip` referee: equal to SigLIP in transformers and in open_clip, with the sigmoid loss of the paper."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.model import CLIP
from safetensors.torch import save_file
from tiny import loaded, refusal_of
from transformers import AutoImageProcessor, AutoTokenizer, SiglipModel

from refcore_plugins.referees.siglip import Siglip

CPU = torch.device("cpu")
PROMPTS = ["a red circle", "two small blue squares"]


def load(model: object, dtype: torch.dtype = torch.float32, **fields: object) -> Siglip:
    return loaded(Siglip(model=str(model), **fields), dtype)


@pytest.fixture
def open_clip_folder(clip_folder, tmp_path) -> Path:
    """The tiny CLIP of open_clip, with a logit bias."""
    folder = shutil.copytree(clip_folder, tmp_path / "open_clip_siglip")
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"]["init_logit_bias"] = -0.5
    path.write_text(json.dumps(config))
    torch.manual_seed(9)
    model = CLIP(**config["model_cfg"])
    with torch.no_grad():
        model.logit_scale.fill_(1.5)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def test_scores_equal_the_sigmoid_of_the_logits_in_transformers(siglip_folder, photographs, pixels):
    """The same pixels to 1e-5; through the library's own 8-bit processor, to 0.02."""
    referee = load(siglip_folder)
    model = SiglipModel.from_pretrained(siglip_folder).eval()
    tokens = AutoTokenizer.from_pretrained(siglip_folder)(
        PROMPTS, padding="max_length", max_length=12, return_attention_mask=False, return_tensors="pt"
    )
    processed = AutoImageProcessor.from_pretrained(siglip_folder)(photographs, return_tensors="pt").pixel_values
    images = pixels(referee.input_size)
    score = referee.score(images, referee.read(PROMPTS))
    for given, tolerance in ((referee.towers.normalise(images), 1e-5), (processed, 0.02)):
        with torch.no_grad():
            expected = model(**tokens, pixel_values=given).logits_per_image.diagonal().sigmoid()
        torch.testing.assert_close(score, expected, atol=tolerance, rtol=0)


def test_scores_equal_the_sigmoid_of_the_logits_in_open_clip(open_clip_folder, pixels):
    referee = load(open_clip_folder)
    model = open_clip.create_model(f"local-dir:{open_clip_folder}").eval()
    tokens = open_clip.get_tokenizer(f"local-dir:{open_clip_folder}")(PROMPTS)
    images = pixels(referee.input_size)
    with torch.no_grad():
        expected = model.get_logits(referee.towers.normalise(images), tokens)[0].diagonal().sigmoid()
    torch.testing.assert_close(referee.score(images, referee.read(PROMPTS)), expected, atol=1e-5, rtol=0)


def test_the_losses_are_those_of_one_pair_in_open_clips_training(siglip_folder, pixels):
    """open_clip's SigLipLoss of a batch of one is the positive pair's; its negative pairs are the negated question."""
    referee = load(siglip_folder)
    conditioning, images = referee.read(PROMPTS), pixels(referee.input_size)
    features = referee.towers.image(images)
    loss = open_clip.loss.SigLipLoss()
    for row in range(2):
        pair = {"image_features": features[:1], "text_features": conditioning["text"][row : row + 1]}
        logits = {"logit_scale": referee.towers.scale, "logit_bias": referee.towers.bias}
        prompt_index = torch.tensor([row])
        torch.testing.assert_close(referee.judge(images[:1], conditioning, prompt_index)[0], loss(**pair, **logits))
        negative = loss._loss(*pair.values(), **logits, negative_only=True)
        torch.testing.assert_close(referee.judge(images[:1], conditioning, prompt_index, wanted=False)[0], negative)


def test_it_holds_the_contract(siglip_folder, open_clip_folder, holds_the_contract):
    holds_the_contract(load(siglip_folder, torch.float64))
    holds_the_contract(load(open_clip_folder, torch.float64))


def test_prompts_are_filled_up_and_cut_at_the_context(siglip_folder):
    referee = load(siglip_folder)
    long = "a red circle, a blue square, a green star and a Striped Yellow heart"
    conditioning = referee.read(["a red circle", long])
    assert conditioning.truncated[0] == ""
    assert long.endswith(conditioning.truncated[1])
    assert referee.read([long.removesuffix(conditioning.truncated[1])]).truncated == ("",)


def test_the_sentencepiece_tokenizer_of_siglip_1_is_read(siglip_folder, tmp_path):
    spm = pytest.importorskip("sentencepiece", reason="extra `siglip` is not installed")
    pytest.importorskip("google.protobuf", reason="extra `siglip` is not installed")
    folder = shutil.copytree(siglip_folder, tmp_path / "siglip1")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    text = tmp_path / "text.txt"
    text.write_text("a red circle\ntwo small blue squares\na striped green star left of a yellow heart\n" * 20)
    spm.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(folder / "spiece"), vocab_size=32, pad_id=3, minloglevel=2
    )
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "SiglipTokenizer"}))
    conditioning = load(folder).read(["A red circle!", "a red circle"])
    torch.testing.assert_close(conditioning["text"][0], conditioning["text"][1])  # it strips case and punctuation
    assert load(folder).read(["a red circle " * 9]).truncated[0].startswith(("circle", "red", "a red"))


def refusal(**fields: object) -> str:
    return refusal_of(Siglip(**fields))


def test_models_without_the_sigmoid_loss_are_refused(clip_folder, hf_clip_folder, siglip_folder, tmp_path):
    assert "has no logit bias" in refusal(model=f"local-dir:{clip_folder}")
    assert "has no logit bias" in refusal(model="playground:clip")
    assert "is a CLIPModel; expected a SiglipModel" in refusal(model=str(hf_clip_folder))
    assert "does not exist" in refusal(model=str(tmp_path / "nowhere"))
    assert "needs `pretrained`" in refusal(model="ViT-B-16-SigLIP")
    broken = shutil.copytree(siglip_folder, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"")
    assert "cannot be loaded" in refusal(model=str(broken))


@pytest.mark.usefixtures("offline")
def test_what_is_out_of_reach_is_named_with_the_remedy():
    assert "hf download google/siglip2-base-patch16-224" in refusal()
