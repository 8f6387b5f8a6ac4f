"""The two things of a complex prompt, around its preposition, as T2I-CompBench's 2-D score finds them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from spacy.tokens import Doc, Token

PREPOSITIONS: Final = (
    ("on", "top", "of"),
    ("on", "bottom", "of"),
    ("on", "the", "left"),
    ("on", "the", "right"),
    ("next", "to"),
    ("on", "side", "of"),
    ("near",),
)
COMMON, PROPER = "NOUN", "PROPN"


def things_around(doc: Doc) -> tuple[str, str] | None:
    """The things of the relation that a parsed prompt states; None where there are not exactly two.

    Each preposition gives the nearest noun before it, common or proper, and the first common noun after it; where there
    is none, the last of the first proper nouns after it, unless the prompt ends with it. So a prompt with two
    prepositions has four things, and no score.
    """
    tokens = list(doc)
    around = [(_before(tokens[:start]), _after(tokens[end:])) for start, end in _prepositions(tokens)]
    things = [thing for pair in around for thing in pair if thing is not None]
    return (things[0], things[1]) if len(things) == 2 else None


def _prepositions(tokens: Sequence[Token]) -> Iterator[tuple[int, int]]:
    """(start, end) of every preposition."""
    words = [token.text for token in tokens]
    for start in range(len(words)):
        for preposition in PREPOSITIONS:
            end = start + len(preposition)
            if tuple(words[start:end]) == preposition:
                yield start, end


def _before(tokens: Sequence[Token]) -> str | None:
    return next((token.text for token in reversed(tokens) if token.pos_ in (COMMON, PROPER)), None)


def _after(tokens: Sequence[Token]) -> str | None:
    common = next((token.text for token in tokens if token.pos_ == COMMON), None)
    if common is not None:
        return common
    return next((token.text for token, next_ in pairwise(tokens) if token.pos_ == PROPER != next_.pos_), None)
