"""Metrics that ask, against a transcription made without their code, on checkpoints with the published numbers."""

from __future__ import annotations

import math
from pathlib import Path

import published_answers as published
import pytest
import torch
from english_model import english_folder, with_model
from PIL import Image
from tiny import TOWER, scramble
from transformers import BertTokenizer, BlipConfig, BlipForQuestionAnswering, BlipImageProcessor, BlipProcessor

from refcore.contracts.metric import BenchmarkPrompt
from refcore_plugins.metrics.blip_vqa import BlipVqa

pytestmark = with_model
CPU = torch.device("cpu")
WORDS = {"yes": 2748, "no": 2053, "a": 1037, "red": 2417, "circle": 4418, "green": 2665, "bench": 6847, "?": 1029}
"""Words of BERT's vocabulary at their own places, [ENC] and [DEC] behind its end."""


def bert_vocabulary() -> dict[str, int]:
    """30,522 pieces, most of which no prompt has."""
    places = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103, **WORDS}
    named = {place: word for word, place in places.items()}
    return {named.get(i, f"[unused{i}]"): i for i in range(30_522)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BLIP-VQA of BERT's whole vocabulary, for 480 pixels."""
    folder = tmp_path_factory.mktemp("blip")
    tokenizer = BertTokenizer(vocab=bert_vocabulary(), model_max_length=512)
    text = {**TOWER, "vocab_size": 30_524, "max_position_embeddings": 64, "encoder_hidden_size": 16}
    config = BlipConfig(text_config=text, vision_config={**TOWER, "image_size": 480, "patch_size": 32})
    model = BlipForQuestionAnswering(config)
    scramble(model, 31)
    model.save_pretrained(folder)
    constants = {"image_mean": published.CLIP_MEAN, "image_std": published.CLIP_STD}
    images = BlipImageProcessor(size={"height": 480, "width": 480}, **constants)
    BlipProcessor(images, tokenizer).save_pretrained(folder)
    return folder


def test_blip_vqa_uses_the_published_numbers_of_tokens_and_pixels(folder, images):
    """No number is handed over: [ENC] 30523, [DEC] 30522, yes 2748, no 2053 and 480 pixels are the metric's own."""
    model, tokenizer = BlipForQuestionAnswering.from_pretrained(folder).eval(), BertTokenizer.from_pretrained(folder)
    metric = BlipVqa(model=str(folder), parser=str(english_folder()), rounding=False)
    metric.load(CPU, torch.float32)
    prompt, phrases = "a red circle and a green bench", ["a red circle", "a green bench"]
    wanted = [
        [published.blip_yes(model, tokenizer, Image.fromarray(image), phrase) for phrase in phrases] for image in images
    ]
    found = metric.measure(images, [BenchmarkPrompt(prompt)] * len(images))
    for one, probabilities in zip(found, wanted, strict=True):
        assert list(one.parts.values()) == pytest.approx(probabilities, rel=1e-5)
        assert one.value == pytest.approx(math.prod(probabilities), rel=1e-5)
    assert len({round(one.value, 5) for one in found}) == len(images)


def test_blip_vqa_as_published_is_the_product_of_four_digits(folder, images):
    model, tokenizer = BlipForQuestionAnswering.from_pretrained(folder).eval(), BertTokenizer.from_pretrained(folder)
    metric = BlipVqa(model=str(folder), parser=str(english_folder()))
    metric.load(CPU, torch.float32)
    for image in images:
        (found,) = metric.measure([image], [BenchmarkPrompt("a red circle and a green bench")])
        whole = published.blip_vqa(model, tokenizer, Image.fromarray(image), ["a red circle", "a green bench"])
        assert found.value == pytest.approx(whole, abs=1.01e-4)  # a probability may lie on the edge of a digit
