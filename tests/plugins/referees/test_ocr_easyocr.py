"""The referee `ocr` with EasyOCR's recogniser, on rendered words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

pytest.importorskip("easyocr_en_models", reason="extra `ocr` is not installed")

from refcore.errors import CheckpointError, RefcoreError
from refcore.testing import CHECKS, Case, run
from refcore_plugins.models import crnn
from refcore_plugins.referees.ocr import Ocr

WORDS = ("hello world", "Exit 42", "quartz")


@pytest.fixture(scope="module")
def rendered() -> Tensor:
    """[3, 3, 64, 256]: the words, black on white."""
    views = []
    for word in WORDS:
        image = Image.new("RGB", (256, 64), "white")
        ImageDraw.Draw(image).text((12, 12), word, "black", ImageFont.load_default(34))
        views.append(torch.from_numpy(np.asarray(image, np.float32) / 255).permute(2, 0, 1))
    return torch.stack(views)


@pytest.mark.parametrize("check", CHECKS["referees"])
def test_it_keeps_the_contract(check: str) -> None:
    run(check, Case(Ocr(weights="easyocr", width=64), prompts=("sun", 'a sign: "no"', "42")))


def test_rendered_words_are_read_and_grey_is_not(rendered: Tensor) -> None:
    referee = Ocr(weights="easyocr", width=256)
    referee.load(torch.device("cpu"), torch.float32)
    conditioning = referee.read(WORDS)
    assert referee.logits(rendered).shape == (3, 63, 97)
    assert referee.guess(rendered) == list(WORDS)
    assert referee.score(rendered, conditioning).min() > 0.5
    assert referee.score(torch.full_like(rendered, 0.5), conditioning).max() < 0.05


def test_its_alphabet_is_english() -> None:
    with pytest.raises(RefcoreError, match=r"outside the recogniser\'s alphabet: \"é\""):
        Ocr(weights="easyocr").check(["café"])


def test_a_file_that_easyocr_did_not_release_is_refused(tmp_path: Path) -> None:
    path = tmp_path / crnn.FILE
    path.write_bytes(b"not a model")
    with pytest.raises(CheckpointError, match="is not EasyOCR's english_g2"):
        crnn.recogniser(path)
