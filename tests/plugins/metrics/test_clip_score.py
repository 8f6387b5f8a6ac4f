"""The `clip-score` metric: equal to the cosine of a CLIP, written out, on a small checkpoint of the same layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import published_answers as published
import pytest
import torch
from english_model import english_folder, with_model
from PIL import Image
from tiny import MEAN, STD, TOWER, scramble, text_config
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize, ToTensor
from transformers import AutoTokenizer, CLIPConfig, CLIPImageProcessor, CLIPModel

from refcore.contracts.metric import BenchmarkPrompt
from refcore.errors import CheckpointError
from refcore.testing import suite
from refcore_playground.training.tokens import clip_tokenizer
from refcore_plugins.metrics.clip_score import ClipScore
from refcore_plugins.models.finished_images import covering

CPU = torch.device("cpu")
PROMPTS = [
    "a red circle", "A blue (square) left of a green star.", "two small dotted rings", "a shiny red circle " * 9,
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `CLIPModel` of 32 pixels and 20 tokens."""
    folder = tmp_path_factory.mktemp("clip")
    tokenizer = clip_tokenizer()
    tokenizer.save_pretrained(folder)
    model = CLIPModel(
        CLIPConfig(
            text_config=text_config(tokenizer, 20),
            vision_config={**TOWER, "image_size": 32, "patch_size": 8},
            projection_dim=12,
        )
    )
    scramble(model, 16)
    model.save_pretrained(folder)
    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    CLIPImageProcessor(**sizes, image_mean=MEAN, image_std=STD).save_pretrained(folder)
    return folder


def metric_of(folder: Path, **fields: object) -> ClipScore:
    found = ClipScore(model=str(folder), **{"batch": 3, **fields})
    found.load(CPU, torch.float32)
    return found


def expected(folder: Path, images: list, prompts: list[str]) -> list[float]:
    model, tokenizer = CLIPModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    return [
        published.clip_cosine(model, tokenizer, Image.fromarray(image), prompt, MEAN, STD)
        for image, prompt in zip(images, prompts, strict=True)
    ]


def test_it_is_the_cosine_neither_scaled_nor_clipped(folder, images):
    found = metric_of(folder).measure(images, [BenchmarkPrompt(prompt) for prompt in PROMPTS])
    wanted = expected(folder, images, PROMPTS)
    assert [one.value for one in found] == pytest.approx(wanted, abs=1e-5)
    assert min(wanted) < 0 < max(wanted)
    assert [list(one.parts) for one in found] == [[prompt] for prompt in PROMPTS]


def test_clipscore_is_two_and_a_half_times_its_positive_part_with_its_prefix(folder, images):
    found = metric_of(folder, scale="clipscore", prefix="A photo depicts ").measure(
        images, [BenchmarkPrompt(prompt) for prompt in PROMPTS]
    )
    wanted = expected(folder, images, [f"A photo depicts {prompt}" for prompt in PROMPTS])
    assert [one.value for one in found] == pytest.approx([2.5 * max(cosine, 0) for cosine in wanted], abs=1e-5)


@pytest.mark.parametrize(("width", "height"), [(200, 100), (61, 197), (96, 96), (33, 64), (20, 31), (107, 83)])
def test_images_are_resized_and_cropped_as_openais_transform_does(width, height, images):
    picture = Image.fromarray(images[0]).resize((width, height))
    transform = Compose([Resize(32, InterpolationMode.BICUBIC), CenterCrop(32), ToTensor()])
    torch.testing.assert_close(covering(np.array(picture), 32), transform(picture), atol=0, rtol=0)


def test_a_prompt_beyond_the_context_is_told_of(folder):
    (remark,) = metric_of(folder).remarks([BenchmarkPrompt(prompt) for prompt in PROMPTS])
    assert remark.startswith("1 of 4 prompts exceed CLIP's 20 tokens")


@with_model
def test_without_adjectives_it_reads_what_three_in_one_reads(folder, images):
    metric = metric_of(folder, without_adjectives=True, parser=str(english_folder()))
    prompts = ["the green bench is near a round table.", "a big red circle"]
    found = metric.measure(images[:2], [BenchmarkPrompt(prompt) for prompt in prompts])
    read = ["the bench is near a table .", "a circle"]
    assert [list(one.parts) for one in found] == [[text] for text in read]
    assert [one.value for one in found] == pytest.approx(expected(folder, images[:2], read), abs=1e-5)


def test_a_missing_parser_is_told_before_anything_is_loaded(folder):
    with pytest.raises(CheckpointError, match="en_none"):
        ClipScore(model=str(folder), without_adjectives=True, parser="en_none").check()
    ClipScore(model=str(folder), parser="en_none").check()


@pytest.fixture(scope="class")
def _folder(request, folder):
    request.cls.case.plugin = ClipScore(model=str(folder))


@pytest.mark.usefixtures("_folder")
class TestContract(suite(ClipScore(), prompts=tuple(PROMPTS), refused={"model": "nowhere/at/all"})):
    """The contract, on the small checkpoint."""
