"""Images of several sizes, small checkpoints in the published formats, and the transcriptions beside the tests."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from question_answering import capfilt_folder, qwen_folder
from sklearn.datasets import load_sample_images

from refcore.images import Levels

sys.path.insert(0, str(Path(__file__).parent))  # published_answers and published_boxes


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def images() -> list[Levels]:
    """Photographs, wide, tall and square, each side from 61 to 200 pixels."""
    china, flower = load_sample_images().images
    return [
        np.ascontiguousarray(china[:100, :200]),
        np.ascontiguousarray(flower[100:297, 200:261]),
        np.ascontiguousarray(china[200:296, 300:396]),
        np.ascontiguousarray(flower[::4, ::4]),
    ]


@pytest.fixture(scope="session")
def blip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BLIP-VQA of 32 pixels."""
    return capfilt_folder(tmp_path_factory.mktemp("capfilt"), 32)


@pytest.fixture(scope="session")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2.5-VL, whose tokenizer has one token for a word, in each case."""
    return qwen_folder(tmp_path_factory.mktemp("qwen"), "qwen2_5_vl", 14)
