"""The contract of a parser: what takes a prompt apart into things, how many of each, and relations between them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from refcore import registry
from refcore.errors import ParseError
from refcore.plugin import Plugin

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
"""How small counts are written; larger ones are written as digits."""
ARTICLES = ("a", "an")


@dataclass(frozen=True)
class Phrase:
    """One noun phrase of a prompt."""

    text: str
    """One of it: a singular noun phrase with its article and without a count, "a small dotted green star"."""
    count: int | None = 1
    """How many the prompt asks for; None where it leaves that open, as a bare plural does."""
    said: str = field(default="", compare=False)
    """The phrase with its count as the prompt says it, "two geese"; where it is "", the regular plural of `text`."""

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
    """What holds between two things: the subject is `name` the object."""

    subject: int
    """Index into the things."""
    name: str
    """"left of", "right of", "above", "below", or any other preposition as the prompt has it."""
    object: int
    """Index into the things."""


@dataclass(frozen=True)
class ParsedPrompt:
    """A prompt, taken apart.

    Raises:
        ParseError: there is no thing, a negative count, or a relation of a thing that is not there.
    """

    prompt: str
    things: tuple[Phrase, ...]
    relations: tuple[Relation, ...] = ()

    def __post_init__(self) -> None:
        if not self.things:
            raise ParseError(f'"{self.prompt}": no thing was found in it; expected a noun phrase')
        if any(part.count is not None and part.count < 1 for part in self.things):
            raise ParseError(f'"{self.prompt}": a count is below 1; expected 1 or more, or None where it is open')
        for relation in self.relations:
            if not {relation.subject, relation.object} <= set(range(len(self.things))):
                raise ParseError(
                    f'"{self.prompt}": the relation "{relation.name}" holds between things {relation.subject} and '
                    f"{relation.object}; expected indices of {len(self.things)} things, from 0"
                )

    def sentences(self) -> tuple[str, ...]:
        """The phrases as prompts of their own: each thing with its count, then each relation; none of them twice.

        >>> things = (Phrase("a red circle"), Phrase("a blue square", 2))
        >>> ParsedPrompt("...", things, (Relation(0, "left of", 1),)).sentences()
        ('a red circle', 'two blue squares', 'a red circle left of two blue squares')
        """
        said = [part.sentence() for part in self.things]
        related = [f"{said[r.subject]} {r.name} {said[r.object]}" for r in self.relations]
        return tuple(dict.fromkeys([*said, *related]))


class Parser(Plugin):
    """Takes prompts apart. Subclasses implement `parse`, and `load` where there is something to load."""

    kind = "parsers"
    oracle: ClassVar[bool] = False
    """True: it knows the grammar that wrote the prompts, so that every table of results must say so."""

    def load(self) -> None:
        """Loads what it needs, once, before the first prompt.

        Raises:
            RefcoreError: a library or a model is missing; the message names the remedy.
        """

    @abstractmethod
    def parse(self, prompt: str) -> ParsedPrompt:
        """The things and relations of a prompt, always the same for the same prompt, which is kept as it was given.

        Raises:
            ParseError: it cannot read the prompt.
        """


def load_parser(name: str, config: Mapping[str, Any] | None = None, where: str = "") -> Parser:
    """The registered parser of a name, loaded; arguments and errors as for `refcore.registry.create`."""
    parser: Parser = registry.create("parsers", name, config, where)
    parser.load()
    return parser


def plural(phrase: str) -> str:
    """The regular English plural of a phrase's last word.

    >>> plural("small red cross"), plural("grey city"), plural("toy")
    ('small red crosses', 'grey cities', 'toys')
    """
    if phrase.endswith(("s", "x", "z", "ch", "sh")):
        return phrase + "es"
    if phrase.endswith("y") and phrase[-2:-1] not in (*"aeiou", ""):
        return phrase[:-1] + "ies"
    return phrase + "s"
