"""The preset `lettering`: gray, without grain, on white, and read by PP-OCR and EasyOCR."""

from __future__ import annotations

import pytest
import torch

import refcore
from refcore.config import presets
from refcore.config.run import RunConfig

WORD = 'a sign that says "no"'


def test_views_lie_on_white_and_no_tensor_has_grain() -> None:
    config = refcore.resolve(RunConfig.from_settings({**presets.get("lettering").settings, "prompts": [WORD]}))
    assert config.image_size == (48, config.referees[0].config["width"])
    assert [term.config["weights"] for term in config.referees] == ["ppocr", "easyocr"]
    assert config.views["main"].padding == "ones"
    assert config.canvas.config["color"] == "gray"
    assert config.canvas.config["finest"] < config.image_size[1] / 3 + 1


def test_it_runs_and_notes_what_is_to_be_read() -> None:
    pytest.importorskip("rapidocr_onnxruntime", reason="extra `ocr` is not installed")
    pytest.importorskip("onnx", reason="extra `ocr` is not installed")
    pytest.importorskip("easyocr_en_models", reason="extra `ocr` is not installed")
    result = refcore.invert(WORD, preset="lettering", overrides=["steps=2", "views.main.count=1"], seeds=0)
    assert result.images.shape == (1, 3, 48, 168)
    assert torch.equal(result.images[:, 0], result.images[:, 2])
    assert any('to be read: "no"' in note for note in result.notes)


@pytest.mark.slow
def test_its_referee_reads_a_word_that_it_wrote() -> None:
    pytest.importorskip("rapidocr_onnxruntime", reason="extra `ocr` is not installed")
    pytest.importorskip("onnx", reason="extra `ocr` is not installed")
    pytest.importorskip("easyocr_en_models", reason="extra `ocr` is not installed")
    result = refcore.invert("hello", preset="lettering", seeds=0)
    assert result.samples[0].scores["ppocr"] > 0.5
