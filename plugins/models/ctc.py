"""Connectionist temporal classification (Graves et al., ICML 2006): loss per character, greedy reading, texts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from refcore.errors import RefcoreError

LEAST = 1e-6
"""Smallest loss per character of which the complement is taken, so that -log(1 - p) stays below 14."""
_QUOTED = re.compile(r'"([^"]+)"|“([^“”]+)”')


def quoted(prompt: str) -> str:
    """The text that a prompt asks for: what it puts in double quotes, straight or curly; without any, all of it.

    Several quotations are joined by spaces, and any white space becomes one space.

    >>> quoted('a sign that says "open" on a door')
    'open'
    >>> quoted("hello  world")
    'hello world'
    """
    found = [straight or curly for straight, curly in _QUOTED.findall(prompt)]
    return " ".join(" ".join(found).split()) or " ".join(prompt.split())


def least_steps(text: str) -> int:
    """Steps that CTC needs for a text: one a character, and a blank between two equal ones.

    >>> least_steps("hello")
    6
    """
    return len(text) + sum(one == other for one, other in pairwise(text))


def encoded(texts: Sequence[str], index: Mapping[str, int], steps: int) -> tuple[Tensor, Tensor]:
    """Class indices [P, L], padded with 0, and lengths [P] of P texts, all int64.

    Args:
        texts: not empty.
        index: class of each character.
        steps: Number of steps of the network's output.

    Raises:
        RefcoreError: characters are not in the alphabet, or a text needs more steps; the message names them.
    """
    for text in texts:
        if not text:
            raise RefcoreError("the text to be read is empty; expected at least one character")
        if unknown := sorted(set(text) - index.keys()):
            listed = ", ".join(f'"{character}" (U+{ord(character):04X})' for character in unknown)
            raise RefcoreError(f'"{text}" has characters outside the recogniser\'s alphabet: {listed}')
        if (least := least_steps(text)) > steps:
            raise RefcoreError(f'"{text}" needs {least} steps, and the recogniser makes {steps}; choose a larger width')
    length = torch.tensor([len(text) for text in texts])
    target = torch.zeros(len(texts), max(map(len, texts)), dtype=torch.int64)
    for row, text in zip(target, texts, strict=True):
        row[: len(text)] = torch.tensor([index[character] for character in text])
    return target, length


def loss_per_character(logits: Tensor, target: Tensor, length: Tensor) -> Tensor:
    """[N] CTC loss, -log of the probability of the text, divided by its length; nats per character.

    Args:
        logits: [N, T, C] of T steps over C classes, class 0 the blank; float32 or float64.
        target: [N, L] class indices.
        length: [N] number of characters of each row of `target`.
    """
    log_p = logits.log_softmax(-1).transpose(0, 1)
    steps = torch.full_like(length, log_p.shape[0])
    return F.ctc_loss(log_p, target, steps, length, reduction="none") / length


def absent(loss: Tensor) -> Tensor:
    """-log(1 - p) for p = exp(-loss), between 0 and -log of about `LEAST`."""
    return -torch.log(-torch.expm1(-loss.clamp(min=LEAST)))


def greedy(logits: Tensor, classes: Sequence[str]) -> list[str]:
    """The text of each row of logits [N, T, C]: the most likely class of each step, repeats merged, blanks removed."""
    best = logits.argmax(-1).tolist()
    return ["".join(classes[now] for before, now in pairwise([0, *row]) if now not in (before, 0)) for row in best]
