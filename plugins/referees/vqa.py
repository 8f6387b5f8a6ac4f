"""The `vqa` referee: VQAScore, the probability of "yes" when a model is asked if the image shows the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from refcore.contracts.conditioning import Conditioning
from refcore.contracts.referee import Referee
from refcore.plugin import PluginConfig
from refcore_plugins.models.caption_text import WHAT_BLIP_CAPTION_DOES, WORDS, Cleaning, clean
from refcore_plugins.models.question_answering.answering import log_probabilities
from refcore_plugins.models.question_answering.blip import BLIP
from refcore_plugins.models.question_answering.opening import MODELS, folder_of, open_answering
from refcore_plugins.models.truncated_text import truncated_text


class Vqa(Referee):
    """VQAScore (arXiv 2404.01291, eq. 2): p("yes" | image, 'Does this figure show "PROMPT"?').

    p is the probability of the answer's token given the question, or the geometric mean if the answer has several
    tokens, each given those before it. Wanted, the loss is -log p; not wanted, -log(1 - p). Both are bounded below by
    0, and computed from the logits. With `against`, p is p(answer) / (p(answer) + p(against)).

    The model reads a sentence with its relations and counts, where a CLIP reads little more than a bag of words.
    """

    class Config(PluginConfig):
        model: str = Field(
            "Salesforce/blip-vqa-base",
            description=f"Hub id or folder of transformers: {MODELS}.",
        )
        question: str = Field(
            'Does this figure show "{}"? Please answer yes or no.',
            description="The question; {} stands for the prompt.",
        )
        answer: str | None = Field(None, description='The answer; null: "yes" for BLIP, "Yes" for other models.')
        against: str | None = Field(
            None,
            description='Other answer, such as "no": p is p(answer) / (p(answer) + p(against)); null: p is over the '
            "whole vocabulary.",
        )
        size: int | None = Field(
            None,
            ge=32,
            description="Side of the views in pixels. BLIP: positions are interpolated (its authors: 480); null: the "
            "checkpoint's own. Qwen-VL: a multiple of 28 (Qwen3-VL: 32); null: 448. Other models have one size.",
        )

        loss: Literal["log", "linear"] = Field(
            "log",
            description="log: -log p. linear: 1 - p, as CARINOX (arXiv 2509.17458) has it; flat where p is 0 or 1.",
        )
        text: Cleaning | None = Field(
            None,
            description=f"Cleaning of the prompt that the question quotes. {WHAT_BLIP_CAPTION_DOES}, at most {WORDS} "
            "words. as_given: none. null: blip_caption for a BLIP, as_given for other models.",
        )

        @field_validator("question")
        @classmethod
        def _has_a_place(cls, question: str) -> str:
            if question.count("{}") != 1:
                raise ValueError(f"expected a question with one {{}} for the prompt; got {question!r}")
            return question

    name = "vqa"
    score_unit: ClassVar[str] = "probability"

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """See `Referee.load`. The model is in `dtype`; probabilities are float32 (float64 with float64)."""
        config = self.config
        folder = folder_of(self.name, config.model)
        self._cleaning: Cleaning = config.text or ("blip_caption" if folder.kind == BLIP else "as_given")
        self.towers = open_answering(folder, config.answer, config.against, config.size, device, dtype)
        self.input_size, self.device, self.dtype = self.towers.input_size, device, dtype
        self.fit = self.towers.fit

    def read(self, prompts: Sequence[str]) -> Conditioning:
        """Model inputs of the questions, each [P, L]. Prompts are truncated until their questions fit the context."""
        cleaned = clean(prompts, self._cleaning)
        ends = [self._truncated(read) for read in cleaned.read]
        kept = [read.removesuffix(end).strip() for read, end in zip(cleaned.read, ends, strict=True)]
        tensors = {
            name: value.to(self.device)
            for name, value in self.towers.tokens([self._ask(prompt) for prompt in kept]).items()
        }
        return Conditioning(tuple(prompts), tensors, cleaned.truncated(ends), cleaned.notes)

    def judge(self, views: Tensor, conditioning: Conditioning, prompt_index: Tensor, wanted: bool = True) -> Tensor:
        """See `Referee.judge`."""
        log_p, log_not_p = log_probabilities(self.towers, views, conditioning.select(prompt_index))
        if self.config.loss == "linear":
            return 1 - log_p.exp() if wanted else log_p.exp()
        return -log_p if wanted else -log_not_p

    @torch.no_grad()
    def score(self, images: Tensor, conditioning: Conditioning) -> Tensor:
        """The probability of the answer for each image, in [0, 1]."""
        return log_probabilities(self.towers, images, conditioning.tensors)[0].exp()

    def _ask(self, prompt: str) -> str:
        return str(self.config.question).replace("{}", prompt)

    def _truncated(self, prompt: str) -> str:
        """Text at the end of the prompt that is truncated for its question to fit into the context; "" if none."""
        towers: Any = self.towers
        excess = towers.length(self._ask(prompt)) - towers.context
        if excess <= 0:
            return ""
        room = towers.length(prompt) - excess
        while room > 0:
            rest = truncated_text(towers.tokenizer, prompt, room)
            if towers.length(self._ask(prompt.removesuffix(rest).strip())) <= towers.context:
                return rest
            room -= 1
        return prompt
