"""Checks of a parser against `refcore.contracts.parser.Parser`."""

from __future__ import annotations

from refcore.contracts.parser import ParsedPrompt
from refcore.errors import ParseError
from refcore.testing.case import Case, Failed, global_randomness_untouched, require


def parsing(case: Case) -> None:
    """The parsed prompt is the one given, and its things and sentences are not empty."""
    for prompt in case.prompts:
        found = case.loaded().parse(prompt)
        require(isinstance(found, ParsedPrompt), f"parse returns {type(found).__name__}; expected refcore.ParsedPrompt")
        require(found.prompt == prompt, f'parse("{prompt}").prompt is "{found.prompt}"; expected the prompt as given')
        for part in found.things:
            require(
                part.text and part.text == part.text.strip(),
                f'a thing of "{prompt}" has the text "{part.text}"; expected a noun phrase',
            )
        sentences = found.sentences()
        require(all(sentences), f'a phrase of "{prompt}" is empty: {sentences}')


def repeatable(case: Case) -> None:
    """The same prompt is parsed alike in a second call and a second instance, whatever was parsed before."""
    first = {prompt: case.loaded().parse(prompt) for prompt in case.prompts}
    for who, other in (("a second call", case.loaded()), ("a second instance", case.fresh())):
        for prompt in reversed(case.prompts):
            again, found = other.parse(prompt), first[prompt]
            require(again == found, f'"{prompt}" is parsed as {found}, and as {again} in {who}; expected the same')


def refuses_what_it_cannot_read(case: Case) -> None:
    """An empty prompt is a ParseError."""
    try:
        found = case.loaded().parse("")
    except ParseError:
        return
    raise Failed(f"an empty prompt gives {found}; expected a ParseError that says what is expected")


def no_global_randomness(case: Case) -> None:
    """Nothing is drawn from Python's, numpy's or torch's global generators."""
    parser = case.loaded()
    with global_randomness_untouched(type(case.plugin).__name__):
        for prompt in case.prompts:
            parser.parse(prompt)
