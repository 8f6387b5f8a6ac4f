"""The `classifier` referee: equal to timm's own models and preprocessing, whatever says which class is meant."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import timm
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from timm.data import create_transform, resolve_model_data_config
from tiny import MEAN, STD, loaded, refusal_of, scramble

from refcore.errors import RefcoreError
from refcore_plugins.referees.classifier import Classifier

CPU = torch.device("cpu")
ARCHITECTURE = "vit_tiny_patch16_224"
SIZES = {"img_size": 32, "embed_dim": 16, "depth": 2, "num_heads": 2}


def saved(folder: Path, classes: int, **config: object) -> Path:
    """A timm folder, as `timm.models.save_for_hf` lays it out."""
    folder.mkdir(exist_ok=True)
    model = timm.create_model(ARCHITECTURE, num_classes=classes, **SIZES)
    scramble(model, 31)
    save_file(model.state_dict(), folder / "model.safetensors")
    pretrained = {"input_size": [3, 32, 32], "mean": MEAN, "std": STD, "interpolation": "bicubic", "crop_pct": 0.9}
    content = {
        "architecture": ARCHITECTURE,
        "num_classes": classes,
        "model_args": SIZES,
        "pretrained_cfg": {**pretrained, "num_classes": classes},
        **config,
    }
    (folder / "config.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("timm"), 7)


def load(folder: Path, dtype: torch.dtype = torch.float32, **fields: object) -> Classifier:
    return loaded(Classifier(model=f"local-dir:{folder}", **fields), dtype)


def test_scores_equal_timms_probabilities(folder, photographs, pixels):
    """The same pixels to 1e-5; through timm's own 8-bit transform, of the whole image, to 0.02."""
    referee = load(folder)
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = create_transform(**{**resolve_model_data_config(model), "crop_pct": 1.0})
    images = pixels(referee.input_size)
    score = referee.score(images, referee.read(["2", "5"]))
    processed = torch.stack([transform(photograph) for photograph in photographs])
    for given, tolerance in ((referee.normalise(images), 1e-5), (processed, 0.02)):
        with torch.no_grad():
            expected = model(given).softmax(1)[torch.arange(2), torch.tensor([2, 5])]
        torch.testing.assert_close(score, expected, atol=tolerance, rtol=0)


def test_the_losses_are_the_negated_logit_and_the_cross_entropy(folder, pixels):
    for loss in ("logit", "cross_entropy"):
        referee = load(folder, torch.float64, loss=loss)
        images, conditioning, prompt_index = (
            pixels(referee.input_size).double(),
            referee.read(["2", "5"]),
            torch.arange(2),
        )
        logits = referee.logits(images)
        kept = logits if loss == "logit" else logits.log_softmax(1)
        torch.testing.assert_close(
            referee.judge(images, conditioning, prompt_index), -kept[prompt_index, torch.tensor([2, 5])]
        )
        p = referee.score(images, conditioning)
        torch.testing.assert_close(referee.judge(images, conditioning, prompt_index, wanted=False), -(1 - p).log())


def test_it_holds_the_contract(folder, holds_the_contract):
    holds_the_contract(load(folder, torch.float64, loss="cross_entropy"), prompts=["0", "3", "6"])


def test_an_index_counts_whatever_the_prompt(folder, pixels):
    conditioning = load(folder, index=4).read(["anything", "2"])
    assert torch.equal(conditioning["target"].argmax(1), torch.tensor([4, 4]))
    with pytest.raises(RefcoreError, match="index 7 is out of range"):
        load(folder, index=7)


def test_names_come_from_the_checkpoint_or_from_imagenet(folder, tmp_path):
    with pytest.raises(RefcoreError, match="has no names; set `index`"):
        load(folder).read(["a cat"])
    named = load(saved(tmp_path / "named", 3, label_names=["Cat", "dog", "newt"]))
    assert named.read(["cat", "2"])["target"].argmax(1).tolist() == [0, 2]
    with pytest.raises(RefcoreError, match='did you mean "newt"'):
        named.read(["newd"])
    imagenet = load(saved(tmp_path / "imagenet", 1000))
    assert imagenet.read(["volcano", "a macaw"])["target"].argmax(1).tolist() == [980, 88]


def test_weights_from_a_file_of_a_model_given_by_name(tmp_path):
    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=1000)
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    referee = Classifier(model="resnet10t", weights=str(tmp_path / "weights.safetensors"))
    referee.load(CPU, torch.float32)
    images = torch.rand(1, 3, *referee.input_size)
    with torch.no_grad():
        expected = model.eval()(referee.normalise(images)).softmax(1)[0, 7]
    torch.testing.assert_close(referee.score(images, referee.read(["7"]))[0], expected)


def refusal(**fields: object) -> str:
    return refusal_of(Classifier(**fields))


@pytest.mark.usefixtures("offline")
def test_missing_and_corrupt_checkpoints_are_refused_with_the_remedy(folder, tmp_path):
    assert "does not exist" in refusal(model=f"local-dir:{tmp_path}/nowhere")
    assert "has no config.json" in refusal(model=f"local-dir:{tmp_path}")
    assert "did you mean" in refusal(model="resnet50x")
    assert "there is no weights file" in refusal(model="resnet50", weights="none.pth")
    assert "set `weights` to a file" in refusal(model="hf-hub:nobody/none")
    broken = shutil.copytree(folder, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"broken")
    assert "cannot be loaded" in refusal(model=f"local-dir:{broken}")
    with pytest.raises(ValidationError):
        Classifier(model="resnet50", index=-1)
