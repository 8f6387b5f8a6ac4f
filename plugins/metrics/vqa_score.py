"""The `vqa-score` metric: VQAScore, with which GenAI-Bench compares generators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

from pydantic import Field, field_validator
from torch import Tensor

from refcore.contracts.metric import BenchmarkPrompt, Measurement
from refcore.images import Levels
from refcore_plugins.metrics.question_answering_metric import QuestionAnsweringMetric
from refcore_plugins.models.question_answering.answering import (
    first_log_probabilities,
    first_tokens,
    log_probabilities,
    spellings,
)

QUESTIONS: Mapping[str, str] = MappingProxyType(
    {
        "t2v_metrics": 'Does this figure show "{}"? Please answer Yes or No.',
        "vqascore": 'Does this figure show "{}"? Please answer yes or no.',
        "geneval2": 'Does this image show "{}"? Answer the question with Yes or No.',
    }
)
"""Name -> question: that of t2v_metrics 3.1, that of the paper's CLIP-FlanT5 and LLaVA, and that of GenEval 2."""
SUMMED = "geneval2"
"""The one whose answer is read in four spellings."""


class VqaScore(QuestionAnsweringMetric):
    """VQAScore (arXiv 2404.01291, eq. 2): p("Yes") when a model is asked if the figure shows the prompt.

    p is over the whole vocabulary, of the first token that the model writes. The paper's numbers are of CLIP-FlanT5,
    which transformers lacks; a value can be compared with others of the same model and question alone.
    """

    class Config(QuestionAnsweringMetric.Config):
        question: str = Field(
            "t2v_metrics",
            description="t2v_metrics: that of t2v_metrics 3.1 to every model. vqascore: that of the paper, and of "
            "version 3.0 to CLIP-FlanT5 and LLaVA, with yes and no in lower case. "
            "geneval2: that of GenEval 2, which sums the probabilities of four spellings of yes. Or a question, in "
            "which {} stands for the prompt.",
        )
        answer: str | None = Field(None, description='The answer; null: "yes" for BLIP, "Yes" for other models.')
        against: str | None = Field(
            None,
            description='Other answer, such as "No": p is p(answer) / (p(answer) + p(against)); null: as published.',
        )

        @field_validator("question")
        @classmethod
        def _has_a_place(cls, question: str) -> str:
            if question not in QUESTIONS and question.count("{}") != 1:
                raise ValueError(
                    f"expected one of {', '.join(QUESTIONS)}, or a question with one {{}} for the prompt; "
                    f"got {question!r}"
                )
            return question

    name = "vqa-score"
    unit: ClassVar[str] = "probability, 0 to 1"
    config: Config

    def _wanted(self) -> str | None:
        return self.config.answer

    def _other(self) -> str | None:
        return self.config.against

    def measure(self, images: Sequence[Levels], prompts: Sequence[BenchmarkPrompt]) -> list[Measurement]:
        """See `Metric.measure`. Parts: the question -> p."""
        config = self.config
        template = QUESTIONS.get(config.question, config.question)
        summed = config.question == SUMMED and config.answer is None and config.against is None
        yes = first_tokens(self._answering.tokenizer, spellings("yes")) if summed else []

        def probability(*inputs: Any) -> Tensor:
            if summed:
                return first_log_probabilities(*inputs)[:, yes].exp().sum(1)
            return log_probabilities(*inputs)[0].exp()

        asked = [[template.replace("{}", prompt.text)] for prompt in prompts]
        found: dict[int, float] = {}
        for (i, _), p in self._ask(images, asked, probability):
            found[i] = float(p)
        return [Measurement(found[i], {question: found[i]}) for i, (question,) in enumerate(asked)]
