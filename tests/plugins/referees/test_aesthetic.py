"""The `aesthetic` referee: equal to the published heads on open_clip's features, converted from their pickles."""

from __future__ import annotations

from pathlib import Path

import open_clip
import pytest
import torch
import torch.nn.functional as F
from tiny import loaded
from torch import nn

from refcore.errors import CheckpointError
from refcore_plugins.referees.aesthetic import Aesthetic, convert_head

CPU = torch.device("cpu")
WIDTH = 12


def original(kind: str, width: int = WIDTH) -> nn.Module:
    """A head as the authors build it, with random weights."""
    torch.manual_seed(3)
    if kind == "linear":
        return nn.Linear(width, 1)
    relu = [nn.ReLU()] if kind == "relu" else []
    layers = [nn.Linear(width, 32), *relu, nn.Dropout(0.2), nn.Linear(32, 16), *relu, nn.Dropout(0.2)]
    layers += [nn.Linear(16, 8), *relu, nn.Dropout(0.1), nn.Linear(8, 4), *relu, nn.Linear(4, 1)]
    return nn.ModuleDict({"layers": nn.Sequential(*layers)})


def converted(kind: str, tmp_path: Path, width: int = WIDTH) -> Path:
    torch.save(original(kind, width).state_dict(), tmp_path / f"{kind}.pth")
    return convert_head(tmp_path / f"{kind}.pth", tmp_path / f"{kind}.safetensors")


def load(head: Path, folder: Path, dtype: torch.dtype = torch.float32, **fields: object) -> Aesthetic:
    return loaded(Aesthetic(head=str(head), model=f"local-dir:{folder}", **fields), dtype)


@pytest.mark.parametrize("kind", ["linear", "plain", "relu"])
def test_ratings_equal_the_authors_head_on_open_clips_unit_features(kind, clip_folder, pixels, photographs, tmp_path):
    """The same pixels to 1e-5; through open_clip's own 8-bit preprocessing, to 0.02."""
    referee = load(converted(kind, tmp_path), clip_folder)
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{clip_folder}")
    head = original(kind).eval()
    head = head if kind == "linear" else head["layers"]
    images = pixels(referee.input_size)
    rating = referee.score(images, referee.read(["a", "b"]))
    own_pixels = torch.stack([preprocess(photograph) for photograph in photographs])
    for given, tolerance in ((referee.towers.normalise(images), 1e-5), (own_pixels, 0.02)):
        with torch.no_grad():
            expected = head(model.eval().encode_image(given, normalize=True)).squeeze(1)
        torch.testing.assert_close(rating, expected, atol=tolerance, rtol=0)


def test_the_loss_falls_with_the_rating_and_flattens_out_above_the_best(clip_folder, pixels, tmp_path):
    head = converted("linear", tmp_path)
    referee = load(head, clip_folder, best=9.0, worst=2.0)
    conditioning, prompt_index, images = referee.read(["a"]), torch.tensor([0, 0]), pixels(referee.input_size)
    rating = referee.score(images, conditioning)
    torch.testing.assert_close(referee.judge(images, conditioning, prompt_index), F.softplus(9 - rating))
    torch.testing.assert_close(referee.judge(images, conditioning, prompt_index, wanted=False), F.softplus(rating - 2))


def test_it_holds_the_contract(clip_folder, tmp_path, holds_the_contract):
    for kind in ("linear", "plain", "relu"):
        holds_the_contract(load(converted(kind, tmp_path), clip_folder, torch.float64, best=1.0), reads_prompts=False)


def test_missing_corrupt_and_foreign_heads_are_refused_with_the_remedy(clip_folder, tmp_path):
    def refusal(head: Path) -> str:
        with pytest.raises(CheckpointError) as caught:
            load(head, clip_folder)
        return str(caught.value)

    assert "refcore convert aesthetic-head" in refusal(tmp_path / "none")
    (tmp_path / "broken").write_bytes(b"broken")
    assert "is corrupt" in refusal(tmp_path / "broken")
    assert "is corrupt or not a rating head" in refusal(clip_folder / "open_clip_model.safetensors")
    (tmp_path / "wide").mkdir()
    assert "takes 20 features" in refusal(converted("linear", tmp_path / "wide", width=20))
    with pytest.raises(CheckpointError, match="does not exist"):
        load(converted("linear", tmp_path), tmp_path / "nowhere")


def test_only_heads_are_converted(tmp_path):
    with pytest.raises(CheckpointError, match="there is no file"):
        convert_head(tmp_path / "none.pth", tmp_path)
    (tmp_path / "broken.pth").write_bytes(b"broken")
    with pytest.raises(CheckpointError, match="cannot be read"):
        convert_head(tmp_path / "broken.pth", tmp_path)
    torch.save({"layers.0.weight": torch.ones(2, 3), "layers.1.weight": torch.ones(1, 2)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"has no rating head; it holds layers\.0\.weight"):
        convert_head(tmp_path / "other.pth", tmp_path)
    torch.save(original("linear").state_dict(), tmp_path / "head.pth")
    assert convert_head(tmp_path / "head.pth", tmp_path).name == "aesthetic_head.safetensors"
