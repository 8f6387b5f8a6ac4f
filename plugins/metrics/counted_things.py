"""The things that a prompt counts: from a vocabulary in the benchmark's format, or from the parse of the prompt."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from refcore.errors import RefcoreError

if TYPE_CHECKING:
    from spacy.tokens import Doc, Token

NUMBERS: Final[Mapping[str, int]] = MappingProxyType(
    {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8}
)
"""Number words of T2I-CompBench++'s prompts."""
LEMMAS: Final[Mapping[str, str]] = MappingProxyType({"vas": "vase"})
"""Singulars that spaCy's lemmatizer misses in the public prompts."""
NOUNS: Final = ("NOUN", "PROPN")


def read_vocabulary(path: Path) -> dict[str, str]:
    """Singular or plural -> singular, from lines "singular - plural".

    Raises:
        RefcoreError: the file cannot be read, or a line has another form.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RefcoreError(f'the vocabulary "{path}" cannot be read: {error}') from error
    words: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        singular, dash, plural = (part.strip().lower() for part in line.partition(" - "))
        if not (singular and dash and plural):
            raise RefcoreError(f'line {number} of the vocabulary "{path}" is "{line}"; expected "singular - plural"')
        words |= {singular: singular, plural: singular}
    return words


def counted_by_vocabulary(text: str, words: Mapping[str, str]) -> dict[str, int]:
    """Singular -> number, for the words of a vocabulary that stand behind a number word, or one further word.

    >>> counted_by_vocabulary("Two red boats, and a dog.", {"boats": "boat", "dog": "dog"})
    {'boat': 2, 'dog': 1}
    """
    known = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    pattern = rf"\b({'|'.join(NUMBERS)})\s+(?:[\w-]+\s+)?({known})\b"
    found = re.finditer(pattern, text.lower())
    return {words[match[2]]: NUMBERS[match[1]] for match in found}


def counted_by_parse(doc: Doc) -> dict[str, int]:
    """Singular -> number, for every number word of a parsed prompt and the noun that it counts."""
    things: dict[str, int] = {}
    for token in doc:
        if token.lower_ in NUMBERS and (noun := _counted(token)) is not None:
            things[_singular(noun, after=token.i)] = NUMBERS[token.lower_]
    return things


def _counted(number: Token) -> Token | None:
    """The noun that a number word counts: its head in the parse, or where that is none the next noun of the phrase."""
    head = number.head
    if head.i > number.i and head.pos_ in NOUNS:
        return head
    for token in number.doc[number.i + 1 :]:
        if token.pos_ in NOUNS:
            return token
        if token.is_punct or token.lower_ == "and" or token.lower_ in NUMBERS:
            return None
    return None


def _singular(noun: Token, after: int) -> str:
    """A noun in the singular, with the nouns before it that belong to its name: "traffic light"."""
    compound = [child.lower_ for child in noun.children if child.dep_ == "compound" and after < child.i < noun.i]
    lemma = noun.lemma_.lower()
    return " ".join([*compound, LEMMAS.get(lemma, lemma)])
