"""The `soft-tifa` metric: equal to GenEval 2's, written out, with its quirk and without."""

from __future__ import annotations

from pathlib import Path

import published_answers as published
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from refcore.contracts.metric import BenchmarkPrompt
from refcore.errors import RefcoreError
from refcore.testing import suite
from refcore_plugins.metrics.soft_tifa import SoftTifa, answers_of

CPU = torch.device("cpu")
FACTS = {
    "vqa_list": [
        ["How many squares are in the image?", "two"],
        ["Are the squares blue?", "Yes"],
        ["Are there any squares in the image?", "Yes"],
    ]
}
PAIRS = [*map(tuple, FACTS["vqa_list"]), ("How many dogs?", "ten"), ("Is it so?", "No")]
PROMPT = BenchmarkPrompt("two blue squares", "", FACTS)


def metric_of(folder: Path, **fields: object) -> SoftTifa:
    found = SoftTifa(model=str(folder), **{"batch": 2, **fields})
    found.load(CPU, torch.float32)
    return found


def expected(folder: Path, image: object) -> tuple[list[float], list[float]]:
    """Of each question, the probability as published, and that of the tokens of the answer, each once."""
    model, processor = AutoModelForImageTextToText.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    as_published, once = [], []
    for question, answer in FACTS["vqa_list"]:
        asked = published.soft_tifa_question(question)
        p = published.first_token_probabilities(model, processor, Image.fromarray(image), asked)
        spelt = [
            text
            for text in published.soft_tifa_variants(question, answer)
            if processor.tokenizer(text, add_special_tokens=False).input_ids != [processor.tokenizer.unk_token_id]
        ]
        as_published.append(published.soft_tifa_answer(p, processor.tokenizer, spelt))
        once.append(float(p[sorted({processor.tokenizer(text).input_ids[0] for text in spelt})].sum()))
    return as_published, once


def test_it_equals_geneval_2_written_out(qwen, images):
    exact = images[0][:56, :56].copy()
    as_published, once = expected(qwen, exact)
    assert as_published != once  # this tokenizer has one token for "yes" and " yes"
    for spellings, wanted in (("published", as_published), ("mended", once)):
        am, gm = (mean / 100 for mean in published.soft_tifa(wanted))
        for mean, value in (("am", am), ("gm", gm)):
            (found,) = metric_of(qwen, spellings=spellings, mean=mean).measure([exact], [PROMPT])
            assert found.value == pytest.approx(value, rel=1e-4)
            assert list(found.parts.values()) == pytest.approx([am, gm, *wanted], rel=1e-4)
    assert list(found.parts)[2] == "1. How many squares are in the image? two"


def test_the_geometric_mean_is_zero_if_one_answer_is_impossible_and_never_above_the_arithmetic():
    metric = SoftTifa()
    asked = [("a?", "Yes"), ("b?", "Yes"), ("c?", "Yes")]
    assert metric._measured(asked, [0.5, 0.0, 1.0]).parts["GM"] == 0.0
    assert metric._measured(asked, [0.9, 0.4, 1.0]).parts["GM"] < metric._measured(asked, [0.9, 0.4, 1.0]).parts["AM"]
    assert metric._measured(asked, [0.3] * 3).value == pytest.approx(0.3)


@pytest.mark.parametrize(("question", "answer"), PAIRS)
def test_the_spellings_are_those_of_the_public_code(question, answer):
    assert sorted(answers_of(question, answer)) == sorted(published.soft_tifa_variants(question, answer))


def test_a_number_may_be_given_in_digits():
    assert answers_of("How many dogs?", "2") == answers_of("How many dogs?", "two")


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"vqa_list": []}, "vqa_list"),
        ({"vqa_list": "Is it?"}, "vqa_list"),
        ({"vqa_list": [["Is it?"]]}, r"\['Is it\?'\] in vqa_list"),
        ({"vqa_list": [["Is it?", "unheardof"]]}, 'no token for the answer "unheardof"'),
    ],
)
def test_facts_of_another_form_are_refused(qwen, images, facts, told):
    with pytest.raises(RefcoreError, match=told):
        metric_of(qwen).measure(images[:1], [BenchmarkPrompt("a cat", "", facts)])


@pytest.fixture(scope="class")
def _folder(request, qwen):
    request.cls.case.plugin = SoftTifa(model=str(qwen))


@pytest.mark.usefixtures("_folder")
class TestContract(
    suite(SoftTifa(), prompts=("a red circle", "two squares"), facts=FACTS, refused={"model": "nowhere/at/all"})
):
    """The contract, on a small Qwen2.5-VL."""
