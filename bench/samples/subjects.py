"""The tokens of a prompt that Attend-and-Excite attends to: those of its things."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from pydantic import Field

from refcore.config.section import Section
from refcore.config.terms import ParserUse
from refcore.contracts.parser import Parser, load_parser
from refcore.errors import RefcoreError


class Subjects(Section):
    """How the subjects of a prompt are found."""

    parser: ParserUse = Field(
        default=ParserUse(name="spacy"),
        description="Parser of the prompts: its name, or name and config. The last word of each thing is a subject.",
    )
    words: dict[str, list[str]] = Field(
        default_factory=dict, description="Prompt -> its subjects, in place of the parser's."
    )


def token_indices(tokenizer: Any, text: str, prompt: str, subjects: Subjects) -> list[int]:
    """Place of each subject's token in a text, the start token having place 0, in increasing order.

    A word of several tokens is its last one, which has read the others; a word that is there twice is both.

    Args:
        tokenizer: Of the pipeline; a fast one of transformers.
        text: What the pipeline is told.
        prompt: The prompt in it, which is parsed.
        subjects: How they are found.

    Raises:
        RefcoreError: the prompt has no things, or a subject is not in the text as the tokenizer truncates it.
    """
    words = subjects.words.get(prompt) or _parsed(subjects.parser.model_dump_json(), prompt)
    read = tokenizer(text, truncation=True, max_length=tokenizer.model_max_length, return_offsets_mapping=True)
    spans: Sequence[tuple[int, int]] = read["offset_mapping"]
    found = []
    for word in words:
        places = [match.span() for match in re.finditer(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE)]
        ends = [max((i for i, span in enumerate(spans) if _within(span, place)), default=None) for place in places]
        indices = [i for i in ends if i is not None]
        if not indices:
            raise RefcoreError(
                f'the subject "{word}" is not in what the text encoder reads of "{text}"; give the subjects of the '
                "prompt in `subjects.words`"
            )
        found += indices
    return sorted(set(found))


def _within(span: tuple[int, int], place: tuple[int, int]) -> bool:
    return place[0] <= span[0] < span[1] <= place[1]


@lru_cache(maxsize=1024)
def _parsed(use: str, prompt: str) -> tuple[str, ...]:
    """The last word of each thing that a parser finds in a prompt, in the prompt's own form."""
    words = []
    for thing in _parser(use).parse(prompt).things:
        said = [thing.said, thing.text, thing.sentence()]
        last = [re.findall(r"\w[\w'-]*", each)[-1] for each in said if re.search(r"\w", each)]
        own = [word for word in last if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", prompt, re.IGNORECASE)]
        words += (own or last)[:1]
    return tuple(dict.fromkeys(words))


@lru_cache(maxsize=1)
def _parser(use: str) -> Parser:
    """The loaded parser of a use, as JSON."""
    term: Mapping[str, Any] = ParserUse.model_validate_json(use).model_dump()
    return load_parser(term["name"], term["config"], "subjects.parser")
