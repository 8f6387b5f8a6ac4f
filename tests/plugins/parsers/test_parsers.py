"""Prompts are taken apart as they are meant, and parts are prompts again."""

from __future__ import annotations

import json

import pytest

import refcore
from refcore import registry
from refcore.contracts.parser import ParsedPrompt, Phrase, Relation, load_parser, plural
from refcore.errors import ParseError, RefcoreError
from refcore_bench.labels import ORACLE, labels
from refcore_playground.draw import draw_prompts
from refcore_playground.grammar import write
from refcore_playground.parser import GrammarParser

LEFT = "a small dotted green star left of a blue square, and an orange ring"


def test_the_grammar_tells_things_counts_and_relations() -> None:
    found = load_parser("grammar").parse(f"a picture of {LEFT}.")
    assert found.things == (Phrase("a small dotted green star"), Phrase("a blue square"), Phrase("an orange ring"))
    assert found.relations == (Relation(0, "left of", 1),)
    assert found.sentences()[-1] == "a small dotted green star left of a blue square"
    assert load_parser("grammar").parse("two red crosses").things == (Phrase("a red cross", 2),)
    assert load_parser("grammar").parse("two red crosses and a star".replace("a star", "a pink star")).sentences() == (
        "two red crosses",
        "a pink star",
    )


def test_every_sentence_of_the_grammar_is_a_prompt_of_the_grammar() -> None:
    from refcore_playground.grammar import parse

    parser = GrammarParser()
    for prompt in draw_prompts(60, 3):
        for sentence in parser.parse(prompt).sentences():
            assert write(parse(sentence)) == sentence


def test_what_is_not_in_the_grammar_is_refused_with_the_other_parser() -> None:
    for prompt in ("", "a dog", "three red circles and a blue square"):
        with pytest.raises(ParseError, match='the parser "grammar" cannot read'):
            GrammarParser().parse(prompt)
    with pytest.raises(ValueError, match='use the parser "spacy"'):
        GrammarParser().parse("a dog")


def test_parts_that_cannot_be_are_refused() -> None:
    with pytest.raises(ParseError, match="no thing was found"):
        ParsedPrompt("it rains", ())
    with pytest.raises(ParseError, match="count is below 1"):
        ParsedPrompt("no cat", (Phrase("a cat", 0),))
    with pytest.raises(ParseError, match="between things 0 and 1; expected indices of 1 things"):
        ParsedPrompt("a cat on it", (Phrase("a cat"),), (Relation(0, "on", 1),))


def test_a_sentence_says_a_count_once_and_twice_the_same_thing_is_one_sentence() -> None:
    assert Phrase("a city", 13).sentence() == "13 cities"
    assert Phrase("a goose", 2, "two geese").sentence() == "two geese"
    assert Phrase("grass", None, "grass").sentence() == "grass"
    assert ParsedPrompt("...", (Phrase("a cat"), Phrase("a cat"))).sentences() == ("a cat",)
    assert plural("a bush") == "a bushes"
    assert Phrase("a goose", 2, "two geese") == Phrase("a goose", 2)


def test_a_parser_is_found_by_name_and_told_where_it_is_wrong() -> None:
    assert load_parser("grammar").oracle
    assert not registry.get("parsers", "spacy").oracle
    with pytest.raises(RefcoreError, match=r'unknown parser "gramar" in referees\.0.*did you mean "grammar"'):
        load_parser("gramar", where="referees.0")
    with pytest.raises(RefcoreError, match="modle: unknown field"):
        load_parser("spacy", {"modle": "en"})
    assert (refcore.Phrase, refcore.Relation) == (Phrase, Relation)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"referees": [{"name": "clip", "phrases": None}]}, []),
        ({"referees": [{"name": "clip", "phrases": {"parser": {"name": "grammar", "config": {}}}}]}, [ORACLE]),
        ({"referees": [{"name": "owl", "config": {"parser": "grammar"}}, {"config": {"parser": "grammar"}}]}, [ORACLE]),
        ({"referees": [{"name": "owl", "config": {"parser": "spacy"}}]}, []),
        ({"referees": [{"name": "owl", "config": {"parser": "gone"}}]}, ['parser "gone", not installed']),
    ],
)
def test_a_config_with_an_oracle_is_labelled(settings: object, told: list[str]) -> None:
    assert labels(settings) == told


def test_the_label_stands_in_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    from refcore_bench.showing import tables

    assert tables.named({"variant": "mine", "labels": [ORACLE]}) == "mine (oracle parser)"
    assert tables.named(json.loads('{"variant": "mine", "labels": []}')) == "mine"
