"""Noun phrases as T2I-CompBench's public code takes them: rules, and the counts of the benchmark's own prompts."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from english_model import english_folder, with_model

from refcore.errors import CheckpointError
from refcore_plugins.models.noun_phrases import NounPhrases

pytestmark = with_model
ROOT = Path(__file__).parents[2]
PROMPTS = Path(os.environ.get("REFCORE_T2I_COMPBENCH", ROOT.parent / "shared" / "t2i-compbench"))
with_prompts = pytest.mark.skipif(
    not (PROMPTS / "color_val.txt").is_file(),
    reason=f"no prompts: REFCORE_T2I_COMPBENCH names no folder with T2I-CompBench's files, and {PROMPTS} is none",
)
COUNTS = {
    "color": {1: 10, 2: 247, 3: 21, 4: 10, 5: 6, 6: 2, 7: 3, 8: 1},
    "shape": {1: 2, 2: 214, 3: 40, 4: 30, 5: 11, 6: 3},
    "texture": {1: 5, 2: 235, 3: 13, 4: 34, 5: 12, 6: 1},
    "complex": {1: 1, 2: 143, 3: 81, 4: 17, 5: 24, 6: 26, 7: 6, 8: 2},
    "numeracy": {1: 73, 2: 100, 3: 44, 4: 38, 5: 43, 6: 2},
    "non_spatial": {2: 42, 3: 169, 4: 78, 5: 10, 6: 1},
}
"""Split -> number of questions -> prompts, by the public code with en_core_web_sm 3.8.0."""
ATTRIBUTES = ("color", "shape", "texture")


@pytest.fixture(scope="module")
def phrases() -> NounPhrases:
    return NounPhrases("the test", str(english_folder()))


def prompts_of(split: str) -> list[str]:
    return [line for line in (PROMPTS / f"{split}_val.txt").read_text("utf-8").split("\n") if line.strip()]


@with_prompts
@pytest.mark.parametrize("split", COUNTS)
def test_the_benchmarks_prompts_are_asked_as_many_questions_as_by_the_public_code(
    phrases: NounPhrases, split: str
) -> None:
    assert Counter(len(phrases.of(prompt)) for prompt in prompts_of(split)) == COUNTS[split]


@with_prompts
def test_what_is_asked_as_one_question_and_what_two_phrases_would_leave_out(phrases: NounPhrases) -> None:
    prompts = {split: prompts_of(split) for split in ATTRIBUTES}
    merged = [prompt for split in ATTRIBUTES for prompt in prompts[split] if phrases.merged(prompt)]
    assert len(merged) == 17
    assert {"a red apple and yellow bananas", "a green acorn and a brown leaf"} <= set(merged)
    assert not any(phrases.merged(prompt) for prompt in prompts_of("numeracy"))  # 73 of which name one thing
    cut = {split: sum(len(phrases.all_of(prompt)) > 2 for prompt in prompts[split]) for split in ATTRIBUTES}
    assert cut == {"color": 43, "shape": 84, "texture": 60}


@with_prompts
def test_every_prompt_of_the_spatial_split_has_two_nouns(phrases: NounPhrases) -> None:
    nouns = [sum(token.pos_ == "NOUN" for token in phrases.parsed(prompt)) for prompt in prompts_of("spatial")]
    assert len(nouns) == 300
    assert min(nouns) >= 2


def test_chunks_are_as_written_without_the_four_that_name_no_thing(phrases: NounPhrases) -> None:
    assert phrases.of("A green bench and a blue bowl.") == ["A green bench", "a blue bowl"]
    assert phrases.of("a cat on the left and a dog on the right") == ["a cat", "a dog"]
    assert phrases.of("a cat on the left side") == ["a cat", "the left side"]


def test_the_first_ones_are_kept() -> None:
    two = NounPhrases("the test", str(english_folder()), most=2)
    prompt = "a cat, a dog and a bird"
    assert two.all_of(prompt) == ["a cat", "a dog", "a bird"]
    assert two.of(prompt) == ["a cat", "a dog"]


def test_adjectives_are_left_out_token_by_token(phrases: NounPhrases) -> None:
    assert (
        phrases.without_adjectives("the green bench is near a round, wooden table.") == "the bench is near a , table ."
    )


def test_a_missing_model_is_named_with_the_remedy() -> None:
    with pytest.raises(CheckpointError, match=r"python -m spacy download en_core_web_sm"):
        NounPhrases("the test", "en_nonesuch").of("a cat")
