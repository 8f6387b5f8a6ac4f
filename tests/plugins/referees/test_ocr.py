"""The referee `ocr` against onnxruntime on rendered words, and what it says of prompts that it cannot read."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

pytest.importorskip("rapidocr_onnxruntime", reason="extra `ocr` is not installed")
pytest.importorskip("onnx", reason="extra `ocr` is not installed")

import onnx

from refcore.errors import CheckpointError, RefcoreError
from refcore.testing import CHECKS, Case, run
from refcore_plugins.models import ppocr
from refcore_plugins.referees.ocr import Ocr

WORDS = ("hello world", "Exit 42", "quartz")
LOGITS = "p2o.Add.277"
"""The file's tensor before its last softmax."""


@pytest.fixture(scope="module")
def ocr() -> Ocr:
    referee = Ocr(width=256)
    referee.load(torch.device("cpu"), torch.float32)
    return referee


@pytest.fixture(scope="module")
def rendered() -> Tensor:
    """[3, 3, 48, 256]: the words, black on white."""
    views = []
    for word in WORDS:
        image = Image.new("RGB", (256, 48), "white")
        ImageDraw.Draw(image).text((12, 8), word, "black", ImageFont.load_default(26))
        views.append(torch.from_numpy(np.asarray(image, np.float32) / 255).permute(2, 0, 1))
    return torch.stack(views)


@pytest.mark.parametrize("check", CHECKS["referees"])
def test_it_keeps_the_contract(check: str) -> None:
    run(check, Case(Ocr(width=64), prompts=("sun", 'a sign: "no"', "42")))


def test_logits_equal_those_of_onnxruntime(ocr: Ocr, rendered: Tensor) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="extra `ocr` is not installed")
    model = onnx.load(str(ppocr.weights_file()))
    model.graph.output.append(onnx.helper.make_tensor_value_info(LOGITS, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (wanted,) = session.run([LOGITS], {"x": ((rendered - 0.5) / 0.5).numpy()})
    found = ocr.logits(rendered)
    assert found.shape == (3, 32, 6625)
    # float32 rounding over 40 layers with folded scales; logits are up to about 30.
    assert np.abs(found.numpy() - wanted).max() < 1e-3


def test_rendered_words_are_read_and_grey_is_not(ocr: Ocr, rendered: Tensor) -> None:
    conditioning = ocr.read(WORDS)
    assert [text.strip() for text in ocr.guess(rendered)] == list(WORDS)
    assert ocr.score(rendered, conditioning).min() > 0.5
    assert ocr.score(torch.full_like(rendered, 0.5), conditioning).max() < 0.05


def test_the_loss_is_torchs_ctc_per_character(ocr: Ocr, rendered: Tensor) -> None:
    index = {character: i for i, character in enumerate(ocr.classes)}
    found = ocr.judge(rendered, ocr.read(WORDS), torch.tensor([2, 0, 1]))
    for i, word in enumerate((WORDS[2], WORDS[0], WORDS[1])):
        log_p = ocr.logits(rendered[i : i + 1]).log_softmax(-1).transpose(0, 1)
        target = torch.tensor([[index[character] for character in word]])
        # `mean` divides by the length.
        wanted = F.ctc_loss(log_p, target, torch.tensor([32]), torch.tensor([len(word)]), reduction="mean")
        assert found[i].item() == pytest.approx(wanted.item(), rel=1e-4)


def test_the_prompt_may_quote_the_text(ocr: Ocr) -> None:
    conditioning = ocr.read(['a sign that says "open"', "open"])
    assert torch.equal(conditioning["target"][0], conditioning["target"][1])
    assert conditioning.notes == ('to be read: "open"', "")


def test_a_prompt_outside_the_alphabet_is_refused_before_loading() -> None:
    with pytest.raises(RefcoreError, match=r'outside the recogniser\'s alphabet: "☃" \(U\+2603\)'):
        Ocr().check(["snow ☃"])


@pytest.mark.parametrize(
    ("weights", "missing"), [("ppocr", "onnx"), ("ppocr", "rapidocr_onnxruntime"), ("easyocr", "easyocr_en_models")]
)
def test_a_package_that_its_reader_needs_is_missed_before_loading(
    weights: str, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr("refcore_plugins.referees.ocr.find_spec", lambda name: None if name == missing else there(name))
    with pytest.raises(CheckpointError, match=rf"needs the package {missing}: pip install 'refcore\[ocr\]'"):
        Ocr(weights=weights).check()


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(CheckpointError, match="is not the recogniser of PP-OCRv4"):
        ppocr.recogniser(path)
