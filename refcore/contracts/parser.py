"""The contract of a parser: prompts split into things, their counts, and the relations between them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from refcore import registry
from refcore.errors import ParseError
from refcore.plugin import Kind, Plugin

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
"""Counts as words; larger ones are written in digits."""
ARTICLES = ("a", "an")


@dataclass(frozen=True)
class Phrase:
    """One noun phrase of a prompt."""

    text: str
    """A singular noun phrase with its article and without a count: "a small dotted green star"."""
    count: int | None = 1
    """Number that the prompt asks for; None if it leaves that open, as a bare plural does."""
    said: str = field(default="", compare=False)
    """The phrase with its count in the prompt's own words, "two geese"; "" for the regular plural of `text`."""

    def sentence(self) -> str:
        """The phrase as a prompt of its own.

        >>> Phrase("a blue square", 2).sentence(), Phrase("a cross", None).sentence(), Phrase("a star").sentence()
        ('two blue squares', 'crosses', 'a star')
        """
        if self.said or self.count == 1:
            return self.said or self.text
        article, _, bare = self.text.partition(" ")
        phrase = plural(bare if article in ARTICLES and bare else self.text)
        if self.count is None:
            return phrase
        return f"{NUMBERS[self.count] if self.count < len(NUMBERS) else self.count} {phrase}"


@dataclass(frozen=True)
class Relation:
    """A relation between two things: the subject is `name` the object."""

    subject: int
    """Index into `things`."""
    name: str
    """"left of", "right of", "above", "below", or any other preposition in the prompt's words."""
    object: int
    """Index into `things`."""


@dataclass(frozen=True)
class ParsedPrompt:
    """A prompt as things and relations.

    Raises:
        ParseError: there are no things, a count is below 1, or a relation has an index out of range.
    """

    prompt: str
    things: tuple[Phrase, ...]
    relations: tuple[Relation, ...] = ()

    def __post_init__(self) -> None:
        if not self.things:
            raise ParseError(f'no thing was found in "{self.prompt}"; expected a noun phrase')
        if any(part.count is not None and part.count < 1 for part in self.things):
            raise ParseError(f'"{self.prompt}": a count is below 1; expected 1 or more, or None if it is open')
        for relation in self.relations:
            if not {relation.subject, relation.object} <= set(range(len(self.things))):
                raise ParseError(
                    f'"{self.prompt}": the relation "{relation.name}" holds between things {relation.subject} and '
                    f"{relation.object}; expected indices of {len(self.things)} things, from 0"
                )

    def sentences(self) -> tuple[str, ...]:
        """The phrases as prompts of their own, without repeats: each thing with its count, then each relation.

        >>> things = (Phrase("a red circle"), Phrase("a blue square", 2))
        >>> ParsedPrompt("...", things, (Relation(0, "left of", 1),)).sentences()
        ('a red circle', 'two blue squares', 'a red circle left of two blue squares')
        """
        said = [part.sentence() for part in self.things]
        related = [f"{said[r.subject]} {r.name} {said[r.object]}" for r in self.relations]
        return tuple(dict.fromkeys([*said, *related]))


class Parser(Plugin):
    """Splits prompts into phrases. Subclasses implement `parse`, and `load` if there is something to load."""

    kind: ClassVar[Kind] = "parsers"
    facts: ClassVar[tuple[str, ...]] = ("oracle",)
    usage: ClassVar[str] = "referees:\n  - name: clip\n    phrases: {parser: {name: NAME, config: {}}}"
    oracle: ClassVar[bool] = False
    """Whether it knows the grammar that generated the prompts; tables of results then say so."""

    def load(self) -> None:
        """Loads libraries and models, once, before the first prompt.

        Raises:
            RefcoreError: a library or model is missing; the message names the remedy.
        """

    @abstractmethod
    def parse(self, prompt: str) -> ParsedPrompt:
        """The things and relations of a prompt, deterministically; the result's `prompt` is the one given.

        Raises:
            ParseError: the prompt cannot be parsed.
        """


def load_parser(name: str, config: Mapping[str, Any] | None = None, where: str = "") -> Parser:
    """A new, loaded parser of a registered name; arguments and errors as for `refcore.registry.create`."""
    parser: Parser = registry.create("parsers", name, config, where)
    parser.load()
    return parser


def plural(phrase: str) -> str:
    """The phrase with its last word in the regular English plural.

    >>> plural("small red cross"), plural("grey city"), plural("toy")
    ('small red crosses', 'grey cities', 'toys')
    """
    if phrase.endswith(("s", "x", "z", "ch", "sh")):
        return phrase + "es"
    if phrase.endswith("y") and phrase[-2:-1] not in (*"aeiou", ""):
        return phrase[:-1] + "ies"
    return phrase + "s"
