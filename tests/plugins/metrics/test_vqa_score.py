"""The `vqa-score` metric: equal to a chat model's own probability of a yes, and to BLIP's."""

from __future__ import annotations

from pathlib import Path

import published_answers as published
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from transformers import AutoModelForImageTextToText, AutoProcessor

from refcore.contracts.metric import BenchmarkPrompt
from refcore.errors import RefcoreError
from refcore.testing import suite
from refcore_plugins.metrics.vqa_score import QUESTIONS, VqaScore

CPU = torch.device("cpu")
PROMPTS = ["a red circle", "two small squares left of a green star", "A blue square", "a striped star"]


def metric_of(folder: Path, **fields: object) -> VqaScore:
    found = VqaScore(model=str(folder), **{"batch": 3, **fields})
    found.load(CPU, torch.float32)
    return found


def library(folder: Path) -> tuple[object, object]:
    return AutoModelForImageTextToText.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)


def test_it_is_the_probability_of_yes_in_the_librarys_own_model(qwen, images):
    """To 5e-3: both resize in 8 bits, where a level may be rounded to either side."""
    found = metric_of(qwen).measure(images, [BenchmarkPrompt(prompt) for prompt in PROMPTS])
    wanted = [
        published.vqascore(*library(qwen), Image.fromarray(image), prompt)
        for image, prompt in zip(images, PROMPTS, strict=True)
    ]
    assert [one.value for one in found] == pytest.approx(wanted, abs=5e-3)
    assert [list(one.parts) for one in found] == [[published.vqascore_question(prompt)] for prompt in PROMPTS]


def test_a_resized_image_is_seen_in_whole_levels(qwen, images):
    seen = metric_of(qwen)._see(images[0])
    assert seen.shape[1:] != images[0].shape[:2]
    torch.testing.assert_close(seen * 255, (seen * 255).round(), rtol=0, atol=1e-4)


def test_the_question_is_that_of_t2v_metrics_unless_the_papers_is_chosen(qwen, images):
    """Version 3.1 asks for Yes or No of every model; CLIP-FlanT5 of the paper was asked for yes or no."""
    for fields, words in (({}, "Yes or No"), ({"question": "vqascore"}, "yes or no")):
        (one,) = metric_of(qwen, **fields).measure(images[:1], [BenchmarkPrompt("a red circle")])
        assert list(one.parts) == [f'Does this figure show "a red circle"? Please answer {words}.']


def test_at_a_size_that_needs_no_resizing_it_is_equal(qwen, images):
    exact = [image[:56, :56].copy() for image in images]
    found = metric_of(qwen).measure(exact, [BenchmarkPrompt(prompt) for prompt in PROMPTS])
    model, processor = library(qwen)
    wanted = [
        published.vqascore(model, processor, Image.fromarray(image), prompt)
        for image, prompt in zip(exact, PROMPTS, strict=True)
    ]
    assert [one.value for one in found] == pytest.approx(wanted, rel=1e-4)
    assert len({round(one.value, 6) for one in found}) == 4


def test_geneval_2_sums_four_spellings_of_yes_and_asks_its_own_question(qwen, images):
    exact = images[0][:56, :56].copy()
    (found,) = metric_of(qwen, question="geneval2").measure([exact], [BenchmarkPrompt(PROMPTS[0])])
    model, processor = library(qwen)
    question = published.geneval2_vqascore_question(PROMPTS[0])
    assert QUESTIONS["geneval2"].replace("{}", PROMPTS[0]) == question
    probabilities = published.first_token_probabilities(model, processor, Image.fromarray(exact), question)
    spelt = ["Yes", "yes", " yes", " Yes"]
    assert found.value == pytest.approx(published.soft_tifa_answer(probabilities, processor.tokenizer, spelt), rel=1e-4)


def test_against_another_answer_it_is_the_share_of_the_two(qwen, images):
    exact = images[0][:56, :56].copy()
    prompts = [BenchmarkPrompt(PROMPTS[0])]
    model, processor = library(qwen)
    question = QUESTIONS["vqascore"].replace("{}", PROMPTS[0])
    p = published.first_token_probabilities(model, processor, Image.fromarray(exact), question)
    yes, no = processor.tokenizer.convert_tokens_to_ids(["Yes", "No"])
    (found,) = metric_of(qwen, question="vqascore", against="No").measure([exact], prompts)
    assert found.value == pytest.approx(float(p[yes] / (p[yes] + p[no])), rel=1e-4)
    (other,) = metric_of(qwen, question="vqascore", answer="No").measure([exact], prompts)
    assert other.value == pytest.approx(float(p[no]), rel=1e-4)


def test_any_model_of_the_referee_answers(blip_folder, images):
    found = metric_of(blip_folder).measure(images, [BenchmarkPrompt(prompt) for prompt in PROMPTS])
    assert all(0 < one.value < 1 for one in found)


def test_a_question_without_a_place_for_the_prompt_is_refused():
    with pytest.raises(ValidationError, match=r"one \{\} for the prompt"):
        VqaScore(question="Is it red?")
    assert VqaScore(question='Is it "{}"?').config.question == 'Is it "{}"?'


def test_a_prompt_beyond_the_models_context_is_refused(qwen, images):
    with pytest.raises(RefcoreError, match="expected at most"):
        metric_of(qwen).measure(images[:1], [BenchmarkPrompt("a red circle " * 200)])


@pytest.fixture(scope="class")
def _folder(request, qwen):
    request.cls.case.plugin = VqaScore(model=str(qwen))


@pytest.mark.usefixtures("_folder")
class TestContract(suite(VqaScore(), prompts=tuple(PROMPTS), refused={"model": "nowhere/at/all"})):
    """The contract, on a small Qwen2.5-VL."""
