"""The grammar of prompts: their structure (`Request`), written as text in several forms and parsed back."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from refcore.errors import shortened
from refcore_playground.world import COLOURS, MAX_THINGS, RADII, RELATIONS, SHAPES, TEXTURES, is_unseen

COUNTS: dict[str, int] = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3}
PLURALS: dict[str, str] = {shape: "crosses" if shape == "cross" else shape + "s" for shape in SHAPES}
LEADS: tuple[str, ...] = ("", "", "", "a picture of ", "an image of ", "a drawing of ")
RELATION_FORMS: dict[str, tuple[str, ...]] = {
    "left of": ("left of", "to the left of", "on the left of"),
    "right of": ("right of", "to the right of", "on the right of"),
    "above": ("above",),
    "below": ("below",),
}


class GrammarError(ValueError):
    """A prompt outside the playground's grammar; the message names the part and what is allowed."""


@dataclass(frozen=True)
class Phrase:
    """A noun phrase: `count` identical things. `None`: the prompt leaves it open."""

    colour: str
    shape: str
    texture: str | None = None
    size: str | None = None
    count: int = 1

    @property
    def unseen(self) -> bool:
        return is_unseen(self.colour, self.shape, self.texture)

    def __str__(self) -> str:
        words = [w for w in (self.size, self.texture, self.colour) if w]
        noun = self.shape if self.count == 1 else PLURALS[self.shape]
        article = ("an" if words[0][0] in "aeiou" else "a") if self.count == 1 else {2: "two", 3: "three"}[self.count]
        return " ".join([article, *words, noun])


@dataclass(frozen=True)
class Request:
    """The structure of a prompt: its phrases, and the relation of the first phrase to the second, if any."""

    phrases: tuple[Phrase, ...]
    relation: str | None = None

    @property
    def total(self) -> int:
        return sum(p.count for p in self.phrases)

    @property
    def unseen(self) -> bool:
        return any(p.unseen for p in self.phrases)

    def __str__(self) -> str:
        return write(self)


def write(request: Request, rng: random.Random | None = None) -> str:
    """The request as a caption: in a form drawn by `rng`, or without it in the plainest form."""
    lead = rng.choice(LEADS) if rng else ""
    parts = [str(p) for p in request.phrases]
    if request.relation:
        form = rng.choice(RELATION_FORMS[request.relation]) if rng else request.relation
        head = f"{parts[0]} {form} {parts[1]}"
        return lead + head + "".join(f", and {p}" for p in parts[2:])
    if len(parts) == 1:
        return lead + parts[0]
    return lead + ", ".join(parts[:-1]) + " and " + parts[-1]


_LEAD = re.compile(r"^(an? )?(picture|image|drawing|photo) (of|with) ")
_RELATION = re.compile(r"\s+(?:is\s+)?(?:to the |on the )?(left of|right of|above|below)\s+")
_SINGULAR = {plural: shape for shape, plural in PLURALS.items()}


def parse(prompt: str) -> Request:
    """The structure of a caption.

    Raises:
        GrammarError: the prompt is outside the grammar.
    """
    text = _LEAD.sub("", " ".join(prompt.lower().strip().rstrip(".").split()))
    if not text:
        raise GrammarError("empty prompt")
    head, *tail = _RELATION.split(text, maxsplit=1)
    if tail:
        relation, rest = tail
        if _RELATION.search(rest):
            raise GrammarError(f"{shortened(prompt)!r}: more than one relation; a prompt can have one")
        phrases = [_phrase(head, prompt), *(_phrase(p, prompt) for p in _split(rest))]
        if any(p.count != 1 for p in phrases[:2]):
            raise GrammarError(f"{shortened(prompt)!r}: a relation holds between single things")
    else:
        relation, phrases = None, [_phrase(p, prompt) for p in _split(text)]
    request = Request(tuple(phrases), relation)
    if request.total > MAX_THINGS:
        raise GrammarError(
            f"{shortened(prompt)!r}: asks for {request.total} things; a scene holds at most {MAX_THINGS}"
        )
    return request


def _split(text: str) -> list[str]:
    return [p for p in re.split(r"\s*,\s*and\s+|\s*,\s*|\s+and\s+", text) if p]


def _phrase(text: str, prompt: str) -> Phrase:
    words = text.split()
    if words and words[0] in COUNTS:
        count = COUNTS[words.pop(0)]
    else:
        raise GrammarError(f"{shortened(prompt)!r}: {shortened(text)!r} does not start with one of {', '.join(COUNTS)}")
    size = words.pop(0) if words and words[0] in RADII else None
    texture = words.pop(0) if words and words[0] in TEXTURES else None
    if not words or words[0] not in COLOURS:
        raise GrammarError(f"{shortened(prompt)!r}: {shortened(text)!r} needs a colour of {', '.join(COLOURS)}")
    colour = words.pop(0)
    noun = " ".join(words)
    shape = _SINGULAR.get(noun, noun)
    if shape not in SHAPES or (noun in _SINGULAR) != (count > 1):
        raise GrammarError(
            f"{shortened(prompt)!r}: {shortened(noun)!r} is not a shape ({', '.join(SHAPES)}) in the right number"
        )
    return Phrase(colour, shape, texture, size, count)


def words() -> list[str]:
    """Every word of the grammar, sorted: the vocabulary of the embedded text models."""
    found = {w for lead in LEADS for w in lead.split()} | {"and", ",", *COUNTS, *RADII, *TEXTURES, *COLOURS}
    found |= {*SHAPES, *PLURALS.values()}
    found |= {w for forms in RELATION_FORMS.values() for form in forms for w in form.split()}
    found |= {w for r in RELATIONS for w in r.split()} | {"photo", "with", "is", "exactly", "contains"}
    return sorted(found)
