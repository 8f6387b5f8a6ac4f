"""The `spacy` parser: noun chunks, numerals and prepositions of free text, by spaCy's dependency parse."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from refcore.contracts.parser import ARTICLES, NUMBERS, ParsedPrompt, Parser, Phrase, Relation
from refcore.errors import ParseError
from refcore.plugin import PluginConfig
from refcore_plugins.models.spacy_pipeline import ENGLISH, REQUIRES, load_pipeline, refuse_missing

if TYPE_CHECKING:
    from spacy.tokens import Doc, Span, Token


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


PICTURES = _words(
    "art artwork cartoon closeup depiction doodle drawing illustration image painting photo photograph picture "
    "portrait render rendering rendition scene screenshot shot sketch snapshot view watercolor watercolour"
)
"""Nouns of an opening that only says that it is a picture: "a 3D render of", "a black and white photo of"."""
SHOWS = frozenset({"of", "with", "showing", "depicting", "featuring"})
"""Words after such a noun."""
PHRASES = {
    r"(?:to|on|at)\s+the\s+left(?:(?:-|\s+)hand)?(?:\s+side)?\s+of|left\s+of": "left of",
    r"(?:to|on|at)\s+the\s+right(?:(?:-|\s+)hand)?(?:\s+side)?\s+of|right\s+of": "right of",
    r"(?:on|at)\s+(?:the\s+)?top\s+of": "on top of",
    r"in\s+front\s+of": "in front of",
    r"next\s+to": "next to",
    r"close\s+to": "close to",
    r"hidden\s+by": "hidden by",
    r"surrounded\s+by": "surrounded by",
    r"inside\s+of": "inside",
    r"outside\s+of": "outside",
    **{
        rf"{preposition}\s+(?:the\s+)?{place}\s+of": f"{preposition} the {place} of"
        for preposition in ("on", "at", "in", "to", "by")
        for place in ("side", "bottom", "middle", "center", "centre", "edge", "back", "corner", "end", "foot")
    },
}
"""Prepositions of several words -> their canonical form. Small models parse them inconsistently, `PLAIN` reliably."""
PLAIN = "near"
"""The preposition that replaces them while the text is parsed."""
GROUPS = _words(
    "array assortment bunch collection crowd family flock gang group handful herd lot multitude number plenty "
    "school series set swarm team variety"
)
"""Nouns that say "many" of what follows them and are no things of their own: "a group of people"."""
SINGLE_PAIRS = _words(
    "binoculars glasses goggles headphones jeans leggings pajamas pants pliers pyjamas scissors shears shorts "
    "sunglasses tights tongs trousers tweezers"
)
"""What a pair of is one thing."""
PARTS = frozenset({"bar", "bit", "loaf", "pair", "piece", "sheet", "slice"})
"""Nouns that are one thing with what follows them: "a slice of pizza"."""
PEOPLE = {"people": "person"}
"""Singulars that a lemmatizer misses."""
WITHOUT = re.compile(
    r"\b(?:except(?:ing)?(?:\s+for)?|apart\s+from|aside\s+from|other\s+than|instead\s+of|rather\s+than|excluding|"
    r"sans|devoid\s+of|free\s+of|with\s+no|but\s+(?:no|not)|(?:and|with)\s+neither|"
    r"(?<=everything\s)but|(?<=anything\s)but|(?<=all\s)but|"
    r"(?:minus|lacking|missing)(?=\s+(?:an?|the|any|his|her|its|their)\b))(?=\s)",
    re.IGNORECASE,
)
"""Words that say that what follows is absent."""
ABSENT = "without"
"""The preposition that replaces them while the text is parsed."""
AFFIRMED = re.compile(r"\bnot\s+(?:only|just|merely)\s+", re.IGNORECASE)
TIMES = {"pair": 2, "couple": 2, "duo": 2, "trio": 3, "quartet": 4, "dozen": 12}
NUMERALS = {word: value for value, word in enumerate(NUMBERS) if value}
COUNTED = re.compile(
    rf"\b(half\s+an?|an?|[0-9]{{1,3}}|{'|'.join(NUMERALS)})\s+"
    rf"(?:(dozen)s?(?:\s+of)?|({'|'.join(TIMES)})s?\s+of)\s+(?!(?:\w+\s+){{0,3}}?(?:{'|'.join(sorted(SINGLE_PAIRS))})\b)",
    re.IGNORECASE,
)
"""Numbers of several words: "a dozen", "two pairs of"."""
MANY = re.compile(
    rf"\b(?:(?:an?|the)\s+(?:\w+\s+)?(?:{'|'.join(sorted(GROUPS))})|lots|plenty|tons|dozens|scores|hundreds|thousands)\s+of\s+"
    rf"(?P<counted>(?=(?:{'|'.join(NUMERALS)}|[0-9]+)\b))?",
    re.IGNORECASE,
)
"""Words for a large number that nobody counts."""
OPEN = frozenset({"some", "many", "several", "few", "various", "numerous", "multiple"})
"""Words for an open number of things."""
NEGATIONS = frozenset({"no", "not", "neither", "nor"})
LACKING = frozenset({"lack", "exclude", "omit"})
"""Verbs whose object is absent."""
PLACES = _words("back background bottom center centre corner distance foreground front left middle right side top")
"""Nouns that name a part of the picture, "on the left", and no thing."""
SKIPPED = frozenset({"between"})
"""Prepositions that relate more than two things."""
PLURAL_TAGS = frozenset({"NNS", "NNPS"})


class Spacy(Parser):
    """Phrases and relations of free English text: noun chunks, and the prepositions between them.

    A statistical parser makes mistakes. Verbs ("a dog chasing a cat") and "between" give no relation. Absent things
    ("no cars", "without a hat", "except a chair"), parts of the picture ("on the left") and words for a number ("a
    group of") are no things. An opening such as "a 3D render of" is skipped.
    """

    class Config(PluginConfig):
        model: str = Field(
            ENGLISH, description="An installed spaCy pipeline with a tagger and a parser, or its folder."
        )

    name = "spacy"
    requires = REQUIRES
    config: Config

    def check(self, prompts: Sequence[str] = ()) -> None:
        """See `Plugin.check`: the model is looked for, too, and not loaded."""
        super().check(prompts)
        refuse_missing(self.config.model)

    def load(self) -> None:
        """See `Parser.load`."""
        self._nlp = load_pipeline(
            'the parser "spacy"', self.config.model, ("tagger", "parser", "lemmatizer"), exclude=("ner", "senter")
        )

    def parse(self, prompt: str) -> ParsedPrompt:
        """See `Parser.parse`."""
        if not prompt.strip():
            raise ParseError('the parser "spacy" cannot read an empty prompt; expected a noun phrase')
        if not hasattr(self, "_nlp"):
            self.load()
        text = tidy(prompt)
        plain, names = plain_prepositions(text[opening(self._nlp(text)) :])
        # A sentence ends with a stop: without one a small model takes a last noun for a verb in 5 % of captions.
        return phrases_of(prompt, self._nlp(f"{plain}."), names)


def tidy(prompt: str) -> str:
    """The prompt on one line, with one word for numbers and for absence, which small models parse inconsistently.

    >>> tidy("two dozen eggs and a pair of shoes, except for a group of people.")
    '24 eggs and two shoes, without many people'
    """
    text = re.sub(
        r"\bclose[- ]up(?=\s+(?:of|photo|shot))", "closeup", " ".join(prompt.split()).rstrip(". "), flags=re.I
    )
    text = WITHOUT.sub(ABSENT, AFFIRMED.sub("", text))
    text = COUNTED.sub(_number_word, text)
    return MANY.sub(lambda found: "many " if found["counted"] is None else "", text)


def opening(doc: Doc) -> int:
    """Where the text begins after an opening that only says that it is a picture; 0 without one."""
    chunk = next(iter(doc.noun_chunks), None)
    if chunk is None or chunk.start or chunk.end + 1 >= len(doc) or chunk.root.lemma_.lower() not in PICTURES:
        return 0
    is_subject = chunk.root.dep_ in ("nsubj", "nsubjpass")  # "a painting of a cat hangs on a wall"
    return 0 if is_subject or doc[chunk.end].lower_ not in SHOWS else int(doc[chunk.end + 1].idx)


def plain_prepositions(text: str) -> tuple[str, dict[int, str]]:
    """The text with PLAIN for each preposition of `PHRASES`; and character -> preposition.

    >>> plain_prepositions("a cat to the left of a dog")
    ('a cat near a dog', {6: 'left of'})
    """
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
    """Phrases and relations of a prompt.

    Args:
        prompt: The original prompt.
        doc: Its text from `plain_prepositions`, with tags, lemmas and dependencies.
        names: Character in that text -> the preposition for which PLAIN stands there.

    Raises:
        ParseError: the prompt has no noun phrase.
    """
    things: list[Phrase] = []
    heads: dict[int, int] = {}
    chunks = {chunk.root.i: chunk for chunk in doc.noun_chunks}
    for chunk in chunks.values():
        whole = _whole(chunk, chunks)
        if chunk.root.pos_ == "PRON" or whole is not None or _is_place(chunk) or _is_absent(chunk, chunks):
            continue
        heads[chunk.root.i] = len(things)
        things.append(_phrase(chunk, _part(chunk, chunks)))
    relations = []
    for token in doc:
        object_ = next((child for child in token.children if child.dep_ == "pobj" and child.i in heads), None)
        if token.dep_ != "prep" or object_ is None or token.lower_ in SKIPPED:
            continue
        subject = _subject(token, heads)
        if subject is not None and subject != heads[object_.i]:
            relations.append(Relation(subject, names.get(token.idx, token.lower_), heads[object_.i]))
    return ParsedPrompt(prompt, tuple(things), tuple(relations))


def _object(preposition: Token, chunks: Mapping[int, Span]) -> Token | None:
    return next((child for child in preposition.children if child.dep_ == "pobj" and child.i in chunks), None)


def _part(chunk: Span, chunks: Mapping[int, Span]) -> str:
    """Words that belong to a noun of PARTS, " of pizza" to "a slice"; "" otherwise."""
    if chunk.root.lemma_.lower() not in PARTS:
        return ""
    of = next((child for child in chunk.root.children if child.lower_ == "of"), None)
    inner = _object(of, chunks) if of is not None else None
    return "" if inner is None else f" of {' '.join(token.text for token in chunks[inner.i])}"


def _whole(chunk: Span, chunks: Mapping[int, Span]) -> Span | None:
    """The chunk of PARTS that a chunk belongs to: to "pizza", "a slice"."""
    of = chunk.root.head
    whole = chunks.get(of.head.i) if chunk.root.dep_ == "pobj" and of.lower_ == "of" else None
    return whole if whole is not None and _part(whole, chunks) else None


def _is_place(chunk: Span) -> bool:
    """Whether a chunk names a part of the picture, as in "on the left" or "on one side", with no word of a thing."""
    placed = chunk.root.dep_ in ("pobj", "conj")
    return placed and all(token.lower_ in PLACES or token.pos_ in ("DET", "NUM") for token in chunk)


def _is_absent(chunk: Span, chunks: Mapping[int, Span]) -> bool:
    """Whether a prompt says that a thing is not there, or the one that it is joined to by "and" or "or"."""
    root = chunk.root
    before = chunk.doc[chunk.start - 1] if chunk.start else None
    if any(token.lower_ in NEGATIONS for token in chunk) or (before is not None and before.lower_ in NEGATIONS):
        return True
    if any(child.dep_ == "neg" and child.i < root.i for child in root.children):
        return True
    head = root.head
    if root.dep_ == "conj" and head.i in chunks and not _contrasted(root, head):
        return _is_absent(chunks[head.i], chunks)
    if root.dep_ == "pobj":
        outer = chunks.get(head.head.i) if head.lower_ == "of" else None
        return head.lower_ == ABSENT or (outer is not None and outer.root != root and _is_absent(outer, chunks))
    if root.dep_ in ("dobj", "attr") and head.pos_ in ("VERB", "AUX"):
        return head.lemma_ in LACKING or any(child.dep_ == "neg" for child in head.children)
    return False


def _contrasted(root: Token, head: Token) -> bool:
    """Whether a joined thing stands against the one before it: "no hat but a scarf", "not a car but a bus"."""
    return any(token.lower_ in ("but", ",", ";") for token in root.doc[head.i + 1 : root.i])


def _phrase(chunk: Span, part: str = "") -> Phrase:
    """Phrase of a noun chunk: without determiner and numeral in the singular, its count, and its original words.

    Args:
        chunk: of a thing.
        part: what follows it as a part of its name, " of pizza".
    """
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
    lemma = PEOPLE.get(chunk.root.lemma_, chunk.root.lemma_)
    singular = [lemma if plural and token == chunk.root else token.text for token in words]
    as_said = _joined([token.text for token in words]) + part
    text = _joined(singular) + part
    # "the Eiffel Tower", but "a Ferrari", and "a cyan cross", whose words a small model takes for names
    named = chunk.root.pos_ == "PROPN" and chunk[0].lower_ not in ARTICLES
    determined = len(words) < len(chunk)
    if plural:
        number = " ".join(token.text for token in chunk if token.i in numerals)
        return Phrase(text if named else with_article(text), count, f"{number} {as_said}".strip())
    if determined and not said_open:  # "a cat", "the cat", "one cat"
        text = text if named else with_article(text)
        return Phrase(text, 1, text)
    return Phrase(text, None, text)


def _subject(preposition: Token, heads: dict[int, int]) -> int | None:
    """Index of the thing that a preposition modifies: its head, or the subject of the verb above it."""
    head = preposition.head
    if head.i in heads:
        return heads[head.i]
    if head.pos_ not in ("VERB", "AUX"):
        return None
    if head.dep_ in ("acl", "relcl") and head.head.i in heads:
        return heads[head.head.i]
    return next((heads[c.i] for c in head.children if c.dep_ in ("nsubj", "nsubjpass") and c.i in heads), None)


def _joined(words: Sequence[str]) -> str:
    """Words as a text writes them, from a tokenizer that cuts "dog's" and "T-shirt"."""
    return " ".join(words).replace(" 's", "'s").replace(" - ", "-").replace(" ,", ",")


def _number_word(found: re.Match[str]) -> str:
    """The number that a match of COUNTED says, as a word or digits, with a space after it."""
    first = " ".join(found[1].lower().split())
    factor = NUMERALS.get(first) or (int(first) if first.isdecimal() else 1)
    unit = TIMES[(found[2] or found[3]).lower()]
    number = unit // 2 if first.startswith("half") else factor * unit
    return f"{NUMBERS[number] if number < len(NUMBERS) else number} "


def _number(token: Token) -> int | None:
    word = token.lower_
    return int(word) if word.isdecimal() and int(word) else NUMERALS.get(word)


def with_article(phrase: str) -> str:
    """The phrase with "a" or "an" before it, by its first letters.

    >>> with_article("orange cat"), with_article("uniform"), with_article("hourglass")
    ('an orange cat', 'a uniform', 'an hourglass')
    """
    low = phrase.lower()
    sounds_open = low.startswith(("a", "e", "i", "o", "u", "hour", "honest", "heir", "8"))
    return f"{'an' if sounds_open and not low.startswith(('uni', 'use', 'eu', 'one')) else 'a'} {phrase}"
