"""The readers of one line of text that packages of the extra `ocr` bring: PP-OCRv4's, and EasyOCR's for English."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from torch import Tensor, nn

from refcore_plugins.models import crnn, ppocr

Weights = Literal["ppocr", "easyocr"]
"""PP-OCRv4 is convolutions and attention, of Chinese and English scenes; EasyOCR convolutions and LSTMs, of rendered
English. Authors, alphabets and training data differ, too."""


@dataclass(frozen=True)
class Recogniser:
    """What a referee has to know of a recogniser before and after loading it."""

    height: int
    """Of its views, in pixels."""
    stride: int
    """Pixels of width for each step of the reading."""
    lost: int
    """Steps that fall away at the edge."""
    file: Callable[[], Path]
    """Path of its weights, inside the package that brings them; `CheckpointError` without the package."""
    load: Callable[[], tuple[nn.Module, tuple[str, ...]]]
    """The frozen network, and its classes: "" for the blank, then the alphabet."""
    normalise: Callable[[Tensor], Tensor]
    """Views [N, 3, H, W] in [0, 1] -> the network's input."""
    requires: Mapping[str, str]
    """Modules that it needs -> how to get them."""

    def steps(self, width: int) -> int:
        """Steps of the reading of views of this width in pixels."""
        return width // self.stride - self.lost


RECOGNISERS: Mapping[str, Recogniser] = MappingProxyType(
    {
        "ppocr": Recogniser(
            ppocr.HEIGHT,
            ppocr.STRIDE,
            0,
            ppocr.weights_file,
            ppocr.recogniser,
            lambda views: (views - ppocr.MEAN) / ppocr.STD,
            {"rapidocr_onnxruntime": ppocr.REMEDY, "onnx": ppocr.REMEDY},
        ),
        "easyocr": Recogniser(
            crnn.HEIGHT,
            crnn.STRIDE,
            1,
            crnn.weights_file,
            crnn.recogniser,
            lambda views: (crnn.grey(views) - crnn.MEAN) / crnn.STD,
            {crnn.PACKAGE: crnn.REMEDY},
        ),
    }
)


@cache
def index_of(weights: str) -> dict[str, int]:
    """Class of each character of a recogniser's alphabet."""
    _, classes = RECOGNISERS[weights].load()
    return {character: i for i, character in enumerate(classes) if character}
