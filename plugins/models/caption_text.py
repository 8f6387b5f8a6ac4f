"""Captions and questions cleaned as the makers of BLIP and BLIP-2 clean them, before a tokenizer reads them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Cleaning = Literal["blip_caption", "as_given"]
"""Values of the field `text` of referees and priors."""
WORDS = 50
"""Words that `blip_caption` keeps by default, as LAVIS does (max_words)."""
WHAT_BLIP_CAPTION_DOES = (
    'blip_caption: as LAVIS cleans captions: lower case, each of . ! " ( ) * # : ; ~ replaced by a space, runs of '
    "spaces collapsed"
)
"""For descriptions of the field `text`."""


@dataclass(frozen=True)
class CleanedText:
    """Prompts as a model reads them. Every tuple has an entry for each prompt."""

    read: tuple[str, ...]
    """What is given to the tokenizer."""
    beyond: tuple[str, ...]
    """Words after the last one that is read, or ""."""
    notes: tuple[str, ...]
    """What is read, where it is not the prompt itself; otherwise ""."""

    def truncated(self, by_context: Sequence[str]) -> tuple[str, ...]:
        """Text at the end of each prompt that is not read, given the part of `read` that the model's context cuts."""
        return tuple(" ".join(filter(None, parts)) for parts in zip(by_context, self.beyond, strict=True))


def clean(prompts: Sequence[str], how: Cleaning, words: int = WORDS) -> CleanedText:
    """The prompts cleaned by `how`; `words` is the number that `blip_caption` keeps."""
    split = [blip_caption(prompt, words) if how == "blip_caption" else (prompt, "") for prompt in prompts]
    read = tuple(kept for kept, _ in split)
    notes = tuple("" if kept == prompt else f'read as "{kept}"' for kept, prompt in zip(read, prompts, strict=True))
    return CleanedText(read, tuple(beyond for _, beyond in split), notes)


def blip_caption(caption: str, words: int = WORDS) -> tuple[str, str]:
    """LAVIS's caption processor `blip_caption`: the cleaned caption's first `words` words, and the rest.

    >>> blip_caption("A red circle, left of a (blue) square.")
    ('a red circle, left of a blue square', '')
    """
    text = re.sub(r'[.!"()*#:;~]', " ", caption.lower())
    text = re.sub(r"\s{2,}", " ", text).rstrip("\n").strip(" ")
    parts = text.split(" ")
    return " ".join(parts[:words]), " ".join(parts[words:])


def blip_question(question: str, words: int = WORDS) -> str:
    """A question as BLIP's code cleans it (`pre_question`): as a caption, but nothing takes the place of a mark.

    >>> blip_question("A (red) circle: 3.5 pt?")
    'a red circle 35 pt?'
    """
    text = re.sub(r'[.!"()*#:;~]', "", question.lower()).rstrip(" ")
    return " ".join(text.split(" ")[:words])
