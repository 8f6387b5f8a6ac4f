"""The parser `grammar`: an oracle, which uses the grammar that writes the playground's prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from refcore.contracts.parser import ParsedPrompt, Parser, Phrase, Relation
from refcore.errors import ParseError
from refcore_playground.grammar import GrammarError, parse


class GrammarParser(Parser):
    """Parses the playground's prompts without mistakes, unlike any parser of free text, and no other prompts."""

    name = "grammar"
    oracle: ClassVar[bool] = True

    def check(self, prompts: Sequence[str] = ()) -> None:
        """See `Plugin.check`: every prompt is parsed, which takes no time."""
        super().check(prompts)
        for prompt in prompts:
            self.parse(prompt)

    def parse(self, prompt: str) -> ParsedPrompt:
        """See `Parser.parse`; a relation holds between the first two things."""
        try:
            request = parse(prompt)
        except GrammarError as error:
            message = f'the parser "grammar" cannot read {error}; use the parser "spacy"'
            raise ParseError(message, str(error)) from error
        things = tuple(Phrase(str(replace(p, count=1)), p.count, str(p)) for p in request.phrases)
        return ParsedPrompt(prompt, things, (Relation(0, request.relation, 1),) if request.relation else ())
