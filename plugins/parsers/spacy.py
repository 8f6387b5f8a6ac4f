"""The parser `spacy`: noun chunks, numerals and prepositions of free text, through spaCy's dependency parse."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pydantic import Field

from refcore.contracts.parser import NUMBERS, ParsedPrompt, Parser, Phrase, Relation
from refcore.errors import CheckpointError, ParseError, RefcoreError
from refcore.plugin import PluginConfig

if TYPE_CHECKING:
    from spacy.tokens import Doc, Span, Token

LEAD = re.compile(
    r"^\s*(?:an?\s+)?(?:photo|photograph|picture|image|drawing|painting|illustration|rendering|sketch)\s+"
    r"(?:of|with|showing)\s+",
    re.IGNORECASE,
)
"""What only says that it is a picture."""
PHRASES = {
    r"(?:to|on|at)\s+the\s+left(?:\s+side)?\s+of|left\s+of": "left of",
    r"(?:to|on|at)\s+the\s+right(?:\s+side)?\s+of|right\s+of": "right of",
    r"(?:on|at)\s+(?:the\s+)?top\s+of": "on top of",
    r"in\s+front\s+of": "in front of",
    r"at\s+the\s+bottom\s+of": "at the bottom of",
    r"next\s+to": "next to",
    r"close\s+to": "close to",
}
"""Prepositions of several words -> their canonical form. Small models parse them in many ways, and `PLAIN` in one."""
PLAIN = "near"
"""The preposition that stands for each of them while the text is parsed."""
PAIRS = re.compile(r"\ba\s+couple\s+of\b", re.IGNORECASE)
NUMERALS = {word: value for value, word in enumerate(NUMBERS) if value}
OPEN = frozenset({"some", "many", "several", "few", "various", "numerous", "multiple"})
"""Words that say more than one, and not how many."""
NEGATIONS = frozenset({"no"})
SKIPPED = frozenset({"between"})
"""Prepositions that hold between more than two things."""
REMEDY = "python -m spacy download en_core_web_sm, or set `model` to the folder of an English pipeline"
PLURAL_TAGS = frozenset({"NNS", "NNPS"})


class Spacy(Parser):
    """Parts of free English text: each noun chunk is a thing, and each preposition between two of them a relation.

    It is a statistical parser and makes mistakes. Verbs ("a dog chasing a cat") and "between" give no relation, and
    what a prompt says is not there ("no cars") is no part. Pictures of ("a photo of ...") are left out.
    """

    class Config(PluginConfig):
        model: str = Field(
            "en_core_web_sm", description="An installed spaCy pipeline with a tagger and a parser, or its folder."
        )

    name = "spacy"
    requires = MappingProxyType({"spacy": 'pip install "refcore[spacy]"'})
    config: Config

    def check(self, prompts: Sequence[str] = ()) -> None:
        """See `Plugin.check`: the model is looked for, too, and not loaded."""
        super().check(prompts)
        model = self.config.model
        if not Path(model).expanduser().exists() and ("/" in model or find_spec(model) is None):
            raise CheckpointError(f'the spaCy model "{model}" is not installed: {REMEDY}')

    def load(self) -> None:
        """See `Parser.load`."""
        try:
            import spacy
        except ImportError as error:
            raise RefcoreError(f'the parser "spacy" needs spaCy ({error}): pip install "refcore[spacy]"') from error
        model = self.config.model
        try:
            self._nlp = spacy.load(model, exclude=["ner", "senter"])
        except Exception as error:  # what is no pipeline fails in many ways: OSError, KeyError, msgpack's own
            raise CheckpointError(f'spaCy cannot load the model "{model}" ({_line(error)}): {REMEDY}') from error
        missing = [need for need in ("tagger", "parser", "lemmatizer") if need not in self._nlp.pipe_names]
        if missing:
            raise CheckpointError(f'the spaCy model "{model}" has no {", ".join(missing)}; use en_core_web_sm')

    def parse(self, prompt: str) -> ParsedPrompt:
        """See `Parser.parse`."""
        if not prompt.strip():
            raise ParseError('the parser "spacy" cannot read an empty prompt; expected a noun phrase')
        if not hasattr(self, "_nlp"):
            self.load()
        plain, names = plain_prepositions(prompt)
        return phrases_of(prompt, self._nlp(plain), names)


def plain_prepositions(prompt: str) -> tuple[str, dict[int, str]]:
    """The prompt without its lead, each preposition of `PHRASES` as PLAIN; and where -> which it was.

    >>> plain_prepositions("a photo of a cat to the left of a dog")
    ('a cat near a dog', {6: 'left of'})
    """
    text = PAIRS.sub("two", LEAD.sub("", " ".join(prompt.strip().rstrip(".").split())))
    names: dict[int, str] = {}
    plain, last = "", 0
    pattern = "|".join(f"({phrase})" for phrase in PHRASES)
    for found in re.finditer(rf"\b(?:{pattern})\b", text, re.IGNORECASE):
        plain += text[last : found.start()]
        assert found.lastindex is not None
        names[len(plain)] = list(PHRASES.values())[found.lastindex - 1]
        plain, last = plain + PLAIN, found.end()
    return plain + text[last:], names


def phrases_of(prompt: str, doc: Doc, names: dict[int, str]) -> ParsedPrompt:
    """The parts of a parsed prompt.

    Args:
        prompt: as it was given.
        doc: its text of `plain_prepositions`, with tags, lemmas and dependencies.
        names: character in that text -> the preposition that PLAIN stands for there.

    Raises:
        ParseError: it has no noun phrase.
    """
    things: list[Phrase] = []
    heads: dict[int, int] = {}
    for chunk in doc.noun_chunks:
        if chunk.root.pos_ == "PRON" or any(token.lower_ in NEGATIONS for token in chunk):
            continue
        heads[chunk.root.i] = len(things)
        things.append(_phrase(chunk))
    relations = []
    for token in doc:
        object_ = next((child for child in token.children if child.dep_ == "pobj" and child.i in heads), None)
        if token.dep_ != "prep" or object_ is None or token.lower_ in SKIPPED:
            continue
        subject = _subject(token, heads)
        if subject is not None and subject != heads[object_.i]:
            relations.append(Relation(subject, names.get(token.idx, token.lower_), heads[object_.i]))
    return ParsedPrompt(prompt, tuple(things), tuple(relations))


def _phrase(chunk: Span) -> Phrase:
    """A noun chunk without determiners and numerals: singular, counted, and as it was said."""
    numerals = {token.i for token in chunk if token.dep_ == "nummod" and token.head == chunk.root}
    count: int | None = None
    said_open = False
    words: list[Token] = []
    for token in chunk:
        if token.i in numerals:
            count = _number(token)
        elif not words and (token.pos_ == "DET" or token.tag_ in ("DT", "PRP$") or token.lower_ in OPEN):
            said_open = said_open or token.lower_ in OPEN
        elif not (not words and token.dep_ in ("advmod", "quantmod")):  # "exactly two", "about ten"
            words.append(token)
    words = words or [chunk.root]
    plural = chunk.root.tag_ in PLURAL_TAGS or (count or 0) > 1
    singular = [token.lemma_ if plural and token == chunk.root else token.text for token in words]
    as_said = " ".join(token.text for token in words).replace(" 's", "'s").replace(" - ", "-")
    text = " ".join(singular).replace(" 's", "'s").replace(" - ", "-")
    named = chunk.root.pos_ == "PROPN"
    determined = len(words) < len(chunk)
    if plural:
        number = " ".join(token.text for token in chunk if token.i in numerals)
        return Phrase(text if named else with_article(text), count, f"{number} {as_said}".strip())
    if determined and not said_open:  # "a cat", "the cat", "one cat"
        text = text if named else with_article(text)
        return Phrase(text, 1, text)
    return Phrase(text, None, text)


def _subject(preposition: Token, heads: dict[int, int]) -> int | None:
    """The thing that a preposition says something of: its head, or the one that the verb above it is about."""
    head = preposition.head
    if head.i in heads:
        return heads[head.i]
    if head.pos_ not in ("VERB", "AUX"):
        return None
    if head.dep_ in ("acl", "relcl") and head.head.i in heads:
        return heads[head.head.i]
    return next((heads[c.i] for c in head.children if c.dep_ in ("nsubj", "nsubjpass") and c.i in heads), None)


def _number(token: Token) -> int | None:
    word = token.lower_
    return int(word) if word.isdecimal() and int(word) else NUMERALS.get(word)


def with_article(phrase: str) -> str:
    """With "a" or "an" before it, by its first letters.

    >>> with_article("orange cat"), with_article("uniform"), with_article("hourglass")
    ('an orange cat', 'a uniform', 'an hourglass')
    """
    low = phrase.lower()
    sounds_open = low.startswith(("a", "e", "i", "o", "u", "hour", "honest", "heir"))
    return f"{'an' if sounds_open and not low.startswith(('uni', 'use', 'eu', 'one')) else 'a'} {phrase}"


def _line(error: Any) -> str:
    return " ".join(str(error).split())[:120]
