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
UNREACHABLE = -1e9
"""Log-probability of what no alignment reaches; finite, so that its gradient is 0 and not undefined."""
MARGIN = 0.5
"""Width of the margin at either end of an evenly spread line, in characters."""
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


def loss_per_character(logits: Tensor, target: Tensor, length: Tensor, even: float = 0.0) -> Tensor:
    """[N] CTC loss, -log of the probability of the text, divided by its length; nats per character.

    Args:
        logits: [N, T, C] of T steps over C classes, class 0 the blank; float32 or float64.
        target: [N, L] class indices.
        length: [N] number of characters of each row of `target`.
        even: Strength of the preference for evenly spread characters, see `places`; 0: every alignment counts alike.
    """
    log_p = logits.log_softmax(-1)
    if even:
        return _evenly(log_p, target, length, even) / length
    steps = torch.full_like(length, log_p.shape[1])
    return F.ctc_loss(log_p.transpose(0, 1), target, steps, length, reduction="none") / length


def places(steps: int, characters: int, length: Tensor) -> Tensor:
    """[N, T, L] squared distances of each of T steps from each of L characters' place, in characters, beyond a half.

    The line has n equal parts for n characters, and half a part as a margin at either end. The place of a character is
    the middle of its part.
    """
    along = (torch.arange(steps, device=length.device) + 0.5) / steps
    middle = torch.arange(characters, device=length.device) + 0.5 + MARGIN
    away = (along[None, :, None] * (length[:, None, None] + 2 * MARGIN) - middle).abs()
    return (away - 0.5).clamp(min=0).square()


def _evenly(log_p: Tensor, target: Tensor, length: Tensor, even: float) -> Tensor:
    """[N] -log of CTC's sum over alignments, each weighted by exp(-even * `places`) at the steps of its characters.

    The forward recursion of Graves et al., eq. 6 to 8. torch's own loss takes no weights: its gradient is that of
    normalised probabilities.
    """
    n, steps, _ = log_p.shape
    states = torch.zeros(n, 2 * target.shape[1] + 1, dtype=target.dtype, device=target.device)
    states[:, 1::2] = target
    emitted = log_p.gather(2, states[:, None].expand(n, steps, -1))
    weight = torch.zeros_like(emitted)
    weight[..., 1::2] = -even * places(steps, target.shape[1], length).to(weight)
    emitted = emitted + weight
    never = torch.full_like(emitted[:, 0], UNREACHABLE)
    may_skip = F.pad((states[:, 2:] != states[:, :-2]) & (states[:, 2:] != 0), (2, 0))
    reached = torch.where(torch.arange(states.shape[1], device=log_p.device) < 2, emitted[:, 0], never)
    for step in range(1, steps):
        from_before = F.pad(reached, (1, 0), value=UNREACHABLE)[:, :-1]
        skipped = torch.where(may_skip, F.pad(reached, (2, 0), value=UNREACHABLE)[:, :-2], never)
        reached = torch.stack([reached, from_before, skipped]).logsumexp(0) + emitted[:, step]
    ends = torch.stack([2 * length - 1, 2 * length], 1)
    return -reached.gather(1, ends).logsumexp(1)


def absent(loss: Tensor) -> Tensor:
    """-log(1 - p) for p = exp(-loss), between 0 and -log of about `LEAST`."""
    return -torch.log(-torch.expm1(-loss.clamp(min=LEAST)))


def greedy(logits: Tensor, classes: Sequence[str]) -> list[str]:
    """The text of each row of logits [N, T, C]: the most likely class of each step, repeats merged, blanks removed."""
    best = logits.argmax(-1).tolist()
    return ["".join(classes[now] for before, now in pairwise([0, *row]) if now not in (before, 0)) for row in best]
