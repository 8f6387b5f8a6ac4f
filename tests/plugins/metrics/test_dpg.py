"""The `dpg` metric: gates and means equal to DPG-Bench's, written out; and the answers of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import published_answers as published
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from refcore.contracts.metric import BenchmarkPrompt
from refcore.errors import RefcoreError
from refcore.testing import suite
from refcore_plugins.metrics.dpg import Dpg, DpgQuestion, counted

CPU = torch.device("cpu")
QUESTIONS = [
    {"id": 1, "text": "Is there a circle?", "dependency": [0], "category": "entity - whole"},
    {"id": 2, "text": "Is the circle red?", "dependency": [1], "category": "attribute - color"},
    {"id": 3, "text": "Is there a square?", "dependency": [0], "category": "entity - whole"},
    {"id": 4, "text": "Is the circle left of the square?", "dependency": [1, 3], "category": "relation - spatial"},
]
FACTS = {"questions": QUESTIONS}


def metric_of(folder: Path, **fields: object) -> Dpg:
    found = Dpg(model=str(folder), **{"batch": 3, **fields})
    found.load(CPU, torch.float32)
    return found


@some.composite
def answered(draw: Any) -> tuple[list[DpgQuestion], dict[int, bool]]:
    """Up to nine questions, each of which depends on any of those before it, and their answers."""
    ids = draw(some.permutations(range(1, draw(some.integers(1, 9)) + 1)))
    questions = [
        DpgQuestion(
            number,
            f"Is it {number}?",
            tuple(draw(some.lists(some.sampled_from(ids[:i]), max_size=3, unique=True))) if i else (),
            draw(some.sampled_from(["entity", "attribute", "relation"])),
        )
        for i, number in enumerate(ids)
    ]
    return questions, {number: draw(some.booleans()) for number in ids}


@settings(max_examples=300, deadline=None)
@given(answered())
def test_gates_values_and_categories_are_those_of_the_public_code(case: tuple[list[DpgQuestion], dict[int, bool]]):
    questions, says = case
    words = {question.id: "yes" if says[question.id] else "no" for question in questions}
    parents = {question.id: question.parents or (0,) for question in questions}
    categories = {question.id: question.category for question in questions}
    found = counted(questions, says, gated_categories=False)
    assert found.value == pytest.approx(published.dpg_image(words, parents))
    gated = published.dpg_gated(words, parents)
    assert {q.id: found.parts[f"{q.id}. {q.text}"] for q in questions} == gated
    for name, mean in published.dpg_categories(words, categories).items():
        assert found.parts[f"category: {name}"] == pytest.approx(mean)
    both = counted(questions, says, gated_categories=True)
    assert both.value == found.value
    for name in set(categories.values()):
        own = [gated[q.id] for q in questions if q.category == name]
        assert both.parts[f"category: {name}"] == pytest.approx(sum(own) / len(own))


def test_a_lost_point_is_lost_to_the_third_generation_but_not_in_the_category():
    chain = [DpgQuestion(1, "a?", (), "x"), DpgQuestion(2, "b?", (1,), "x"), DpgQuestion(3, "c?", (2,), "y")]
    found = counted(chain, {1: False, 2: True, 3: True}, gated_categories=False)
    assert found.value == 0.0
    assert found.parts["category: y"] == 1.0
    assert counted(chain, {1: False, 2: True, 3: True}, gated_categories=True).parts["category: y"] == 0.0


@pytest.mark.parametrize("decision", ["written", "likelier"])
def test_the_answer_is_that_of_the_model(qwen, images, decision):
    """By the library's own probabilities: of the whole vocabulary, and of yes against no."""
    exact = [image[:56, :56].copy() for image in images]
    found = metric_of(qwen, decision=decision, gated_categories=False).measure(
        exact, [BenchmarkPrompt("a red circle left of a square", "", FACTS)] * len(exact)
    )
    model, processor = AutoModelForImageTextToText.from_pretrained(qwen).eval(), AutoProcessor.from_pretrained(qwen)
    yes, no = (processor.tokenizer.convert_tokens_to_ids(words) for words in (["Yes", "yes"], ["No", "no"]))
    for image, one in zip(exact, found, strict=True):
        words = {}
        for question in QUESTIONS:
            asked = f"{question['text']} Please answer yes or no."
            p = published.first_token_probabilities(model, processor, Image.fromarray(image), asked)
            says = int(p.argmax()) in yes if decision == "written" else p[yes].sum() > p[no].sum()
            words[question["id"]] = "yes" if says else "no"
        parents = {question["id"]: question["dependency"] for question in QUESTIONS}
        assert one.value == pytest.approx(published.dpg_image(words, parents))


def test_a_blip_is_asked_the_question_itself_and_a_chat_model_for_yes_or_no(blip_folder, qwen):
    assert metric_of(blip_folder)._template == "{}"
    assert metric_of(qwen)._template == "{} Please answer yes or no."
    assert metric_of(qwen, question="Well: {}")._template == "Well: {}"


def test_a_model_that_says_yes_to_all_has_one_and_no_to_all_has_zero(blip_folder, images, monkeypatch):
    metric = metric_of(blip_folder)
    prompts = [BenchmarkPrompt("a red circle left of a square", "", FACTS)]
    for token, value in ((metric._yes[0], 1.0), (metric._no[0], 0.0)):
        monkeypatch.setattr(
            metric._answering, "logits", lambda views, text, rows, t=token: [
                torch.nn.functional.one_hot(torch.full((len(rows), 1), t), 200).float()
            ]
        )  # fmt: skip
        (found,) = metric.measure(images[:1], prompts)
        assert found.value == value


def test_a_parent_that_is_missing_gates_nothing_and_is_told_of():
    """The public reader drops the first row of its table, on which later questions of that prompt depend."""
    orphan = BenchmarkPrompt("a brown dog", "", {"questions": [{"id": 2, "text": "a?", "dependency": [1]}]})
    whole = BenchmarkPrompt("a circle", "", FACTS)
    (remark,) = Dpg().remarks([orphan, whole])
    assert remark.startswith("1 of 2 prompts have questions that depend on one that is missing")
    assert '"a brown dog"' in remark
    assert Dpg().remarks([whole]) == []
    assert counted([DpgQuestion(2, "a?", (1,), "")], {2: True}, gated_categories=False).value == 1.0


@pytest.mark.parametrize(
    ("questions", "told"),
    [
        ([], "questions"),
        ([{"id": 1}], r"expected a list of \{id, text, dependency: \[ids\], category\}"),
        (["Is it?"], r"'Is it\?' in questions"),
        ([{"id": "one", "text": "a?"}], "in questions"),
        ([{"id": 1, "text": "a?"}, {"id": 1, "text": "b?"}], "two questions of id 1"),
    ],
)
def test_questions_of_another_form_are_refused(blip_folder, images, questions, told):
    with pytest.raises(RefcoreError, match=told):
        metric_of(blip_folder).measure(images[:1], [BenchmarkPrompt("a cat", "", {"questions": questions})])


@pytest.fixture(scope="class")
def _folder(request, blip_folder):
    request.cls.case.plugin = Dpg(model=str(blip_folder))


@pytest.mark.usefixtures("_folder")
class TestContract(
    suite(Dpg(), prompts=("a red circle", "a square"), facts=FACTS, refused={"model": "nowhere/at/all"})
):
    """The contract, on a small BLIP-VQA."""
