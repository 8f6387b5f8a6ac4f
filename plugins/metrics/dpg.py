"""The `dpg` metric: DPG-Bench's share of questions about a dense prompt that a model answers with yes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, field_validator

from refcore.contracts.metric import BenchmarkPrompt, Measurement
from refcore.errors import RefcoreError, shortened
from refcore.images import Levels
from refcore_plugins.metrics.question_answering_metric import QuestionAnsweringMetric, fact_of
from refcore_plugins.models.question_answering.answering import first_log_probabilities, first_tokens, spellings

NO_PARENT = 0
"""Number that stands for no parent in the public file."""
BARE, WITH_YES_OR_NO = "{}", "{} Please answer yes or no."
EXPECTED = "a list of {id, text, dependency: [ids], category}"


@dataclass(frozen=True)
class DpgQuestion:
    """A question about a prompt."""

    id: int
    text: str
    parents: tuple[int, ...]
    """Ids of the questions that must be answered with yes for this one to count."""
    category: str


class Dpg(QuestionAnsweringMetric):
    """DPG-Bench (ELLA, arXiv 2403.05135): mean over the questions of a prompt, each 1 if the answer is yes, else 0.

    A question counts 0 if one of its parents does. Published numbers are of mPLUG-large, which transformers lacks:
    values of another model can be compared with one another, and with no published one.
    """

    class Config(QuestionAnsweringMetric.Config):
        question: str | None = Field(
            None,
            description="What the model is asked; {} stands for the question of the prompt. null: the question itself "
            f'for BLIP, "{WITH_YES_OR_NO}" for other models.',
        )
        decision: Literal["written", "likelier"] = Field(
            "written",
            description="written: yes is the likeliest beginning of an answer, as the public code compares what the "
            "model writes with yes. likelier: yes is likelier than no.",
        )
        gated_categories: bool = Field(
            False,
            description="Whether a question whose parent counts 0 counts 0 in the means of the categories, too; as "
            "published, it does so in the value alone.",
        )

        @field_validator("question")
        @classmethod
        def _has_a_place(cls, question: str | None) -> str | None:
            if question is not None and question.count("{}") != 1:
                raise ValueError(f"expected one {{}} for the question; got {question!r}")
            return question

    name = "dpg"
    unit: ClassVar[str] = "share of questions, 0 to 1"
    needs: ClassVar[tuple[str, ...]] = ("questions",)
    config: Config

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """See `Metric.load`.

        Raises:
            CheckpointError: the checkpoint is missing or of another kind.
        """
        super().load(device, dtype)
        tokenizer = self._answering.tokenizer
        self._yes, self._no = (
            sorted(set(first_tokens(tokenizer, spellings(word), whole=True))) for word in ("yes", "no")
        )
        self._template = self.config.question or (BARE if self._is_blip else WITH_YES_OR_NO)

    def measure(self, images: Sequence[Levels], prompts: Sequence[BenchmarkPrompt]) -> list[Measurement]:
        """See `Metric.measure`. Parts: "ID. QUESTION" -> 0 or 1 as it counts, "category: NAME" -> mean.

        Raises:
            RefcoreError: a prompt has no `questions`, or one of them is not as `DpgQuestion` has it.
        """
        asked = [dpg_questions(self, prompt) for prompt in prompts]
        texts = [[self._template.replace("{}", question.text) for question in questions] for questions in asked]
        found: list[dict[int, bool]] = [{} for _ in prompts]
        for (i, j), log_p in self._ask(images, texts, first_log_probabilities):
            found[i][asked[i][j].id] = self._says_yes(log_p)
        return [
            counted(questions, answers, self.config.gated_categories)
            for questions, answers in zip(asked, found, strict=True)
        ]

    def remarks(self, prompts: Sequence[BenchmarkPrompt]) -> list[str]:
        """See `Metric.remarks`."""
        orphans = [prompt for prompt in prompts if missing_parents(dpg_questions(self, prompt))]
        if not orphans:
            return []
        return [
            f"{len(orphans)} of {len(prompts)} prompts have questions that depend on one that is missing, and gates "
            f"nothing here; the public code fails on such a prompt, and leaves it out of the mean: "
            f'"{shortened(orphans[0].text)}"'
        ]

    def _says_yes(self, log_p: torch.Tensor) -> bool:
        """Whether the answer is yes, by the log-probabilities [V] of its first token."""
        if self.config.decision == "written":
            return int(log_p.argmax()) in self._yes
        return float(log_p[self._yes].logsumexp(0)) > float(log_p[self._no].logsumexp(0))


def counted(questions: Sequence[DpgQuestion], answers: Mapping[int, bool], gated_categories: bool) -> Measurement:
    """The value and parts of an image, by the answer to each question.

    Questions are gone through in order, so that one that has lost its point to a parent takes it from those after it. A
    parent that is missing gates nothing.
    """
    counts = dict(answers)
    for question in questions:
        counts[question.id] = counts[question.id] and all(counts.get(parent, True) for parent in question.parents)
    parts = {f"{question.id}. {question.text}": float(counts[question.id]) for question in questions}
    by_category: dict[str, list[bool]] = {}
    for question in questions:
        own = (counts if gated_categories else answers)[question.id]
        by_category.setdefault(question.category, []).append(own)
    parts |= {f"category: {name}": sum(own) / len(own) for name, own in by_category.items() if name}
    return Measurement(sum(counts.values()) / len(counts), parts)


def dpg_questions(metric: Dpg, prompt: BenchmarkPrompt) -> list[DpgQuestion]:
    """The questions that a prompt's facts have.

    Raises:
        RefcoreError: there are none, they are of another form, or an id is there twice.
    """
    found = [_question(metric, prompt, row) for row in fact_of(metric, prompt, "questions", EXPECTED)]
    ids = [question.id for question in found]
    for question in found:
        if ids.count(question.id) > 1:
            raise RefcoreError(f'{metric.name}: "{shortened(prompt.text)}" has two questions of id {question.id}')
    return found


def missing_parents(questions: Sequence[DpgQuestion]) -> set[int]:
    """Ids that questions depend on, and that none of them has: the public reader drops the first row of its table."""
    return {parent for question in questions for parent in question.parents} - {question.id for question in questions}


def _question(metric: Dpg, prompt: BenchmarkPrompt, row: Any) -> DpgQuestion:
    try:
        parents = tuple(int(parent) for parent in row.get("dependency") or () if int(parent) != NO_PARENT)
        return DpgQuestion(int(row["id"]), str(row["text"]), parents, str(row.get("category") or ""))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RefcoreError(
            f'{metric.name}: "{shortened(prompt.text)}" has {row!r:.80} in questions; expected {EXPECTED}'
        ) from error
