"""The captioning head: taken from a file in the original layout, read back, and refused where it is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from refcore.errors import CheckpointError
from refcore_plugins.referees.blip2.itg_head import ItgHead, extract_itg_head

WIDTH, VOCABULARY = 8, 20
PREDICTIONS = "Qformer.cls.predictions."


@pytest.fixture
def original() -> dict[str, Tensor]:
    """Tensors under the names of the original first-stage file, a few of each part."""
    words, bias = torch.randn(VOCABULARY, WIDTH), torch.randn(VOCABULARY)
    return {
        "temp": torch.tensor(0.07),
        "query_tokens": torch.randn(1, 4, WIDTH),
        "visual_encoder.cls_token": torch.randn(1, 1, WIDTH),
        "Qformer.bert.embeddings.word_embeddings.weight": words,
        "Qformer.bert.encoder.layer.0.attention.self.query.weight": torch.randn(WIDTH, WIDTH),
        f"{PREDICTIONS}bias": bias,
        f"{PREDICTIONS}transform.dense.weight": torch.randn(WIDTH, WIDTH),
        f"{PREDICTIONS}transform.dense.bias": torch.randn(WIDTH),
        f"{PREDICTIONS}transform.LayerNorm.weight": torch.randn(WIDTH),
        f"{PREDICTIONS}transform.LayerNorm.bias": torch.randn(WIDTH),
        f"{PREDICTIONS}decoder.weight": words,
        f"{PREDICTIONS}decoder.bias": bias,
        "itm_head.weight": torch.randn(2, WIDTH),
    }


def write(path: Path, content: object, **options: object) -> Path:
    torch.save(content, path, **options)
    return path


def test_the_head_of_an_original_file_is_read_back_as_it_was(original, tmp_path):
    out = extract_itg_head(write(tmp_path / "first_stage.pth", {"model": original}), tmp_path / "head.safetensors")
    assert out == tmp_path / "head.safetensors"
    head = ItgHead.from_file(out, WIDTH, VOCABULARY)
    hidden = torch.randn(3, WIDTH)
    part = {name.removeprefix(PREDICTIONS): value for name, value in original.items()}
    x = F.gelu(hidden @ part["transform.dense.weight"].T + part["transform.dense.bias"])
    x = F.layer_norm(x, (WIDTH,), part["transform.LayerNorm.weight"], part["transform.LayerNorm.bias"], 1e-12)
    expected = x @ part["decoder.weight"].T + part["decoder.bias"]
    torch.testing.assert_close(head(hidden), expected)


def test_a_folder_receives_the_file_under_the_name_that_blip2_looks_for(original, blip2_folder, tmp_path):
    out = extract_itg_head(write(tmp_path / "first_stage.pth", {"model": original}), tmp_path)
    assert out == tmp_path / "itg_head.safetensors"
    assert set(load_file(out)) == set(load_file(blip2_folder / "itg_head.safetensors"))


def test_tied_tensors_that_the_file_names_once_are_found(original, tmp_path):
    once = {k: v for k, v in original.items() if not k.startswith(f"{PREDICTIONS}decoder")}
    tensors = load_file(extract_itg_head(write(tmp_path / "first_stage.pth", {"model": once}), tmp_path))
    assert torch.equal(tensors["cls.predictions.decoder.weight"], original[f"{PREDICTIONS}decoder.weight"])
    assert torch.equal(tensors["cls.predictions.decoder.bias"], original[f"{PREDICTIONS}bias"])


def test_old_files_and_half_precision_are_read_too(original, tmp_path):
    half = {k: v.half() for k, v in original.items()}
    source = write(tmp_path / "first_stage.pth", {"model": half}, _use_new_zipfile_serialization=False)
    head = ItgHead.from_file(extract_itg_head(source, tmp_path), WIDTH, VOCABULARY)
    assert head.decoder.weight.dtype == torch.float32


class Harmful:
    """What a pickle could smuggle in."""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {"opt_proj.weight": torch.zeros(2, 2)}}, "no captioning head.*it holds opt_proj"),
        ({}, "no captioning head.*no tensors"),
        ([1, 2], "no captioning head"),
        ({"model": Harmful()}, "cannot be read as a torch checkpoint of plain tensors"),
    ],
)
def test_a_file_without_the_head_is_refused_and_nothing_is_written(content, message, tmp_path):
    source = write(tmp_path / "other.pth", content)
    with pytest.raises(CheckpointError, match=message):
        extract_itg_head(source, tmp_path / "head.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["other.pth"]


def test_a_missing_or_torn_file_is_refused(original, tmp_path):
    with pytest.raises(CheckpointError, match="there is no file"):
        extract_itg_head(tmp_path / "none.pth", tmp_path)
    torn = write(tmp_path / "torn.pth", {"model": original})
    torn.write_bytes(torn.read_bytes()[:500])
    with pytest.raises(CheckpointError, match=r"torn.pth cannot be read"):
        extract_itg_head(torn, tmp_path)
    with pytest.raises(CheckpointError, match="cannot be written"):
        extract_itg_head(write(tmp_path / "whole.pth", {"model": original}), tmp_path / "no" / "such" / "folder.st")


def test_a_failed_conversion_leaves_nothing(original, tmp_path, monkeypatch):
    source = write(tmp_path / "first_stage.pth", {"model": original})

    def full(tensors: object, path: Path, **_: object) -> None:
        Path(path).write_bytes(b"half of")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("refcore_plugins.models.checkpoint_conversion.save_file", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        extract_itg_head(source, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["first_stage.pth"]


def test_a_head_that_is_corrupt_incomplete_or_of_another_size_is_refused(original, tmp_path):
    out = extract_itg_head(write(tmp_path / "first_stage.pth", {"model": original}), tmp_path)
    with pytest.raises(CheckpointError, match=r"of another model.*\(20, 8\).*\(30, 8\)"):
        ItgHead.from_file(out, WIDTH, 30)
    tensors = load_file(out)
    del tensors["cls.predictions.decoder.bias"]
    save_file(tensors, out)
    with pytest.raises(CheckpointError, match=r"lacks cls.predictions.decoder.bias"):
        ItgHead.from_file(out, WIDTH, VOCABULARY)
    out.write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="corrupt"):
        ItgHead.from_file(out, WIDTH, VOCABULARY)
