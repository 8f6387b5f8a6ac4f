"""The `soft-tifa` metric: GenEval 2's mean probability of the right answers to a prompt's questions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from refcore.contracts.metric import BenchmarkPrompt, Measurement
from refcore.contracts.parser import NUMBERS
from refcore.errors import RefcoreError, shortened
from refcore.images import Levels
from refcore_plugins.metrics.question_answering_metric import QuestionAnsweringMetric, fact_of
from refcore_plugins.models.question_answering.answering import first_log_probabilities, first_tokens, spellings

COUNTING = "How many"
"""Beginning of questions whose answer is a number."""
AM, GM = "AM", "GM"


class SoftTifa(QuestionAnsweringMetric):
    """Soft-TIFA (GenEval 2): how probable a model finds the right answer to each question about a prompt's atoms.

    p of a question sums the probabilities of the first tokens of the answer's spellings. AM, the arithmetic mean, is
    the score at the level of atoms; GM, the geometric mean, at that of the prompt. Tables show both times 100. They are
    of Qwen3-VL-8B-Instruct. GenEval 2's prompts and questions may not be used commercially (CC BY-NC 4.0).
    """

    class Config(QuestionAnsweringMetric.Config):
        model: str = Field(
            "Qwen/Qwen3-VL-8B-Instruct", description="Hub id or folder; published numbers are of this one."
        )
        question: str = Field(
            "{} Answer in one word.", description="What the model is asked; {} stands for the question of the prompt."
        )
        mean: Literal["gm", "am"] = Field("gm", description="The mean that is the value; the parts have both.")
        spellings: Literal["published", "mended"] = Field(
            "published",
            description="published: the probability of a token is counted once for each spelling that begins with it, "
            "so that p can exceed 1, and is that of all words that begin with it. mended: once, and only of spellings "
            "that are one token, if the answer has any.",
        )

        @field_validator("question")
        @classmethod
        def _has_a_place(cls, question: str) -> str:
            if question.count("{}") != 1:
                raise ValueError(f"expected one {{}} for the question; got {question!r}")
            return question

    name = "soft-tifa"
    unit: ClassVar[str] = "mean probability, 0 to 1"
    needs: ClassVar[tuple[str, ...]] = ("vqa_list",)
    config: Config

    def measure(self, images: Sequence[Levels], prompts: Sequence[BenchmarkPrompt]) -> list[Measurement]:
        """See `Metric.measure`. Parts: AM, GM, and question -> p.

        Raises:
            RefcoreError: a prompt has no `vqa_list`, or its answer has no token.
        """
        pairs = [self._pairs(prompt) for prompt in prompts]
        tokens = [[self._tokens(*pair) for pair in asked] for asked in pairs]
        questions = [[self.config.question.replace("{}", question) for question, _ in asked] for asked in pairs]
        found = [[0.0] * len(asked) for asked in pairs]
        for (i, j), log_p in self._ask(images, questions, first_log_probabilities):
            found[i][j] = float(log_p[tokens[i][j]].exp().sum())
        return [self._measured(asked, each) for asked, each in zip(pairs, found, strict=True)]

    def _measured(self, asked: Sequence[tuple[str, str]], probabilities: Sequence[float]) -> Measurement:
        mean = math.fsum(probabilities) / len(probabilities)
        geometric = math.prod(p ** (1 / len(probabilities)) for p in probabilities)
        parts = {AM: mean, GM: geometric}
        for number, ((question, answer), p) in enumerate(zip(asked, probabilities, strict=True), 1):
            parts[f"{number}. {question} {answer}"] = p
        return Measurement(geometric if self.config.mean == "gm" else mean, parts)

    def _tokens(self, question: str, answer: str) -> list[int]:
        """First tokens of an answer's spellings."""
        mended = self.config.spellings == "mended"
        ids = first_tokens(self._answering.tokenizer, answers_of(question, answer), whole=mended)
        if not ids:
            raise RefcoreError(f'{self.name}: the model\'s tokenizer has no token for the answer "{answer}"')
        return list(dict.fromkeys(ids)) if mended else ids

    def _pairs(self, prompt: BenchmarkPrompt) -> list[tuple[str, str]]:
        expected = "a list of [question, answer]"
        found = []
        for pair in fact_of(self, prompt, "vqa_list", expected):
            if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
                raise RefcoreError(
                    f'{self.name}: "{shortened(prompt.text)}" has {pair!r:.60} in vqa_list; expected {expected}'
                )
            found.append((str(pair[0]), str(pair[1])))
        return found


def answers_of(question: str, answer: str) -> list[str]:
    """Spellings of an answer whose probabilities are summed; a number has its digits, too.

    >>> answers_of("Is the dog red?", "Yes")
    ['Yes', 'yes', ' yes', ' Yes']
    >>> answers_of("How many dogs are there?", "two")
    ['Two', 'two', ' two', ' Two', '2', ' 2']
    """
    if not question.startswith(COUNTING):
        return spellings(answer)
    if answer.isdecimal() and int(answer) < len(NUMBERS):
        answer = NUMBERS[int(answer)]
    digits = str(NUMBERS.index(answer.lower())) if answer.lower() in NUMBERS else answer
    return [*spellings(answer), digits, f" {digits}"]
