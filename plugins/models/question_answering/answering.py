"""A question-answering model as referees and metrics use it, and the probability of its answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from refcore.errors import CheckpointError
from refcore_plugins.models.log_complement import log_complement, log_complement_of_product
from refcore_plugins.models.transformers_folder import TransformersFolder


class Answering(Protocol):
    """A question-answering model with a fixed answer, and maybe another that it is compared with."""

    input_size: tuple[int, int]
    fit: Callable[[Tensor], Tensor]
    """See `Referee.fit`."""
    tokenizer: Any
    context: int
    """Maximum number of tokens of a question, with the tokens around it."""

    def length(self, question: str) -> int:
        """Number of tokens of a question, with the tokens around it."""

    def tokens(self, questions: Sequence[str]) -> dict[str, Tensor]:
        """Model inputs of P questions, padded to the same length: tensors [P, L]."""

    answers: list[Tensor]
    """Tokens [K] of the answer, and of the one that it is compared with, if any."""

    def logits(self, views: Tensor, text: dict[str, Tensor], rows: Tensor | None = None) -> list[Tensor]:
        """[N, K, V] logits of the tokens of each answer, each given those before it, float32 or wider.

        Args:
            views: [M, 3, H, W] in [0, 1].
            text: the tokens of N questions.
            rows: [N] the view of each question; None: N views, one a question.
        """


def log_probabilities(
    answering: Answering, views: Tensor, text: dict[str, Tensor], rows: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """[N] log p and [N] log(1 - p) of the answer, for the arguments of `Answering.logits`.

    p is the geometric mean of the probabilities of the answer's tokens, each given those before it; with a second
    answer, p / (p + that of the second).
    """
    logits = answering.logits(views, text, rows)
    if len(logits) == 2:
        margin = torch.stack(
            [_token_log_probabilities(*pair).mean(1) for pair in zip(logits, answering.answers, strict=True)]
        )
        return F.logsigmoid(margin[0] - margin[1]), F.logsigmoid(margin[1] - margin[0])
    (own,), (answer,) = logits, answering.answers
    each = _token_log_probabilities(own, answer)
    missed = log_complement(own, answer.expand(len(own), -1))
    return each.mean(1), log_complement_of_product(each, missed, 1 / len(answer))


def first_log_probabilities(
    answering: Answering, views: Tensor, text: dict[str, Tensor], rows: Tensor | None = None
) -> Tensor:
    """[N, V] log-probabilities of the first token that is written, for the arguments of `Answering.logits`."""
    return answering.logits(views, text, rows)[0][:, 0].log_softmax(-1)


def first_tokens(tokenizer: Any, texts: Sequence[str], whole: bool = False) -> list[int]:
    """Id of the first token of each text that the tokenizer knows, in order; the same id may occur again.

    `whole`: only of the texts that are one token, where there are any: the first of several may begin other texts.
    """
    ids = [tokenizer(text, add_special_tokens=False).input_ids for text in texts]
    ids = [tokens for tokens in ids if tokens and tokens[0] != tokenizer.unk_token_id]
    single = [tokens for tokens in ids if len(tokens) == 1]
    return [int(tokens[0]) for tokens in (single if whole and single else ids)]


def spellings(word: str) -> list[str]:
    """A word in both cases, with and without a space before it: tokens that a model may begin its answer with.

    >>> spellings("yes")
    ['Yes', 'yes', ' yes', ' Yes']
    """
    low, capitalised = word[:1].lower() + word[1:], word[:1].upper() + word[1:]
    return [capitalised, low, f" {low}", f" {capitalised}"]


def answer_tokens(
    tokenizer: Any, answer: str, against: str | None, folder: TransformersFolder, device: torch.device
) -> list[Tensor]:
    """Tokens [K] of the answer, and of the one that it is compared with, if any."""
    return [_answer_ids(tokenizer, text, folder).to(device) for text in (answer, against) if text is not None]


def _answer_ids(tokenizer: Any, answer: str, folder: TransformersFolder) -> Tensor:
    ids = tokenizer(answer, add_special_tokens=False).input_ids
    if not ids or ids == [tokenizer.unk_token_id]:
        raise CheckpointError(
            f'{folder.plugin}: the tokenizer of model "{folder.model}" has no token for the answer "{answer}"; '
            "set `answer` to a word in its vocabulary"
        )
    return torch.tensor(ids)


def _token_log_probabilities(logits: Tensor, answer: Tensor) -> Tensor:
    """[N, K] log-probabilities of the answer's tokens [K], from logits [N, K, V]."""
    return logits.log_softmax(-1).gather(-1, answer.expand(len(logits), -1).unsqueeze(-1)).squeeze(-1)


def wide(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
