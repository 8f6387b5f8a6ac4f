"""Noun phrases of a prompt as T2I-CompBench's public code takes them from spaCy, and the prompt without adjectives."""

from __future__ import annotations

import re
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from refcore_plugins.models.spacy_pipeline import ENGLISH, load_pipeline

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

DROPPED = frozenset({"top", "the side", "the left", "the right"})
"""Noun chunks that name no thing; since 28 January 2024 the public code leaves them out."""
MOST = 8
"""Phrases of a prompt that are kept; 2 by default before 2 December 2023."""
PARSES_KEPT = 4096
"""Prompts whose parse is remembered: a benchmark measures several images of each."""


class NounPhrases:
    """spaCy's noun chunks, with the chunker's mistakes, and what else is read off the same parse.

    Args:
        plugin: The plugin as errors name it, such as 'the metric "blip-vqa"'.
        model: An English pipeline of spaCy, or its folder. Published numbers are of en_core_web_sm.
        most: Number of phrases that are kept of a prompt, the first ones.
    """

    def __init__(self, plugin: str, model: str = ENGLISH, most: int = MOST) -> None:
        self._plugin, self._model, self._most = plugin, model, most
        self.parsed = lru_cache(PARSES_KEPT)(self._parse)

    @cached_property
    def pipeline(self) -> Language:
        """Loaded when it is first needed.

        Raises:
            CheckpointError: spaCy or the pipeline is missing.
        """
        return load_pipeline(self._plugin, self._model, ("tagger", "parser", "attribute_ruler"), ("ner", "senter"))

    def all_of(self, prompt: str) -> list[str]:
        """Every noun phrase of the prompt but those of `DROPPED`, as written.

        "a green bench and a blue bowl" has "a green bench" and "a blue bowl".
        """
        return [chunk.text for chunk in self.parsed(prompt).noun_chunks if chunk.text not in DROPPED]

    def of(self, prompt: str) -> list[str]:
        """The first `most` of them."""
        return self.all_of(prompt)[: self._most]

    def merged(self, prompt: str) -> bool:
        """Whether the parse makes one phrase of a prompt that seems to name several things.

        Either it joins two nouns in one phrase, or it takes a noun for a verb or an adjective; for the second, the word
        "and" is the only sign.
        """
        if len(self.all_of(prompt)) != 1:
            return False
        nouns = [t for t in self.parsed(prompt) if t.pos_ in ("NOUN", "PROPN") and t.dep_ != "compound"]
        return len(nouns) > 1 or re.search(r"\band\b", prompt) is not None

    def without_adjectives(self, prompt: str) -> str:
        """The prompt's tokens but its adjectives (ADJ), with a space between each two.

        "a green bench and a blue bowl" becomes "a bench and a bowl".
        """
        return " ".join(token.text for token in self.parsed(prompt) if token.pos_ != "ADJ")

    def _parse(self, prompt: str) -> Doc:
        return self.pipeline(prompt)
