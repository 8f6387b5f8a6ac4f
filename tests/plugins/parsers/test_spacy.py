"""Free text: rules on dependency parses written out by hand, and prompts read by a model where one is installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from refcore.contracts.parser import Phrase, Relation
from refcore.errors import CheckpointError, ParseError
from refcore_plugins.parsers.spacy import Spacy, phrases_of, plain_prepositions

spacy = pytest.importorskip("spacy", reason="spaCy is not installed: pip install 'refcore[spacy]'")
MODEL = "en_core_web_sm"
with_model = pytest.mark.skipif(
    not spacy.util.is_package(MODEL), reason=f"no model: python -m spacy download {MODEL}, which needs a network"
)


def doc(annotated: str, texts: dict[int, str] | None = None):
    """A parse from `word/POS/TAG/dep/head/lemma` (the lemma where it is not the word), heads counted from 0."""
    rows = [token.split("/") for token in annotated.split()]
    words, pos, tags, deps = (list(column) for column in list(zip(*(row[:4] for row in rows), strict=True)))
    return spacy.tokens.Doc(
        spacy.blank("en").vocab,
        words=words,
        pos=pos,
        tags=tags,
        deps=deps,
        heads=[int(row[4]) for row in rows],
        lemmas=[row[5] if len(row) > 5 else row[0] for row in rows],
    )


def test_counts_and_articles_leave_the_text() -> None:
    found = phrases_of(
        "two blue squares and a star",
        doc("two/NUM/CD/nummod/2 blue/ADJ/JJ/amod/2 squares/NOUN/NNS/ROOT/2/square "
            "and/CCONJ/CC/cc/2 a/DET/DT/det/5 star/NOUN/NN/conj/2"),
        {},
    )  # fmt: skip
    assert found.things == (Phrase("a blue square", 2), Phrase("a star"))
    assert found.sentences() == ("two blue squares", "a star")


def test_plurals_without_a_number_are_open_and_irregular_ones_are_said_as_they_were() -> None:
    found = phrases_of("many geese, grass", doc("many/ADJ/JJ/amod/1 geese/NOUN/NNS/ROOT/1/goose ,/PUNCT/,/punct/1 "
                                           "grass/NOUN/NN/conj/1"), {})  # fmt: skip
    assert found.things == (Phrase("a goose", None), Phrase("grass", None))
    assert found.sentences() == ("geese", "grass")


def test_a_preposition_belongs_to_its_noun_or_to_what_its_verb_is_about() -> None:
    sitting = doc("a/DET/DT/det/1 dog/NOUN/NN/ROOT/1 sitting/VERB/VBG/acl/1/sit on/ADP/IN/prep/2 a/DET/DT/det/5 "
                  "sofa/NOUN/NN/pobj/3")  # fmt: skip
    assert phrases_of("...", sitting, {}).relations == (Relation(0, "on", 1),)
    being = doc("the/DET/DT/det/1 cat/NOUN/NN/nsubj/2 is/AUX/VBZ/ROOT/2/be near/ADP/IN/prep/2 the/DET/DT/det/5 "
                "mat/NOUN/NN/pobj/3")  # fmt: skip
    start = being[3].idx
    assert phrases_of("...", being, {start: "left of"}).relations == (Relation(0, "left of", 1),)
    assert phrases_of("...", being, {}).things == (Phrase("a cat"), Phrase("a mat"))


def test_between_pronouns_and_what_is_not_there_are_left_out() -> None:
    found = phrases_of("it", doc("a/DET/DT/det/1 bird/NOUN/NN/ROOT/1 between/ADP/IN/prep/1 two/NUM/CD/nummod/4 "
                            "trees/NOUN/NNS/pobj/2/tree ,/PUNCT/,/punct/1 no/DET/DT/det/7 cars/NOUN/NNS/conj/1/car "
                            "near/ADP/IN/prep/1 it/PRON/PRP/pobj/8"), {})  # fmt: skip
    assert found.things == (Phrase("a bird"), Phrase("a tree", 2))
    assert found.relations == ()
    with pytest.raises(ParseError, match="no thing was found"):
        phrases_of("it rains", doc("it/PRON/PRP/nsubj/1 rains/VERB/VBZ/ROOT/1/rain"), {})


def test_prepositions_of_several_words_become_one_and_are_remembered() -> None:
    plain, names = plain_prepositions("An image of a cat on the left side of a dog, next to a bus.")
    assert plain == "a cat near a dog, near a bus"
    assert {plain[at : at + 4]: name for at, name in names.items()} == {"near": "next to"}
    assert list(names.values()) == ["left of", "next to"]
    assert plain_prepositions("a car left of a house")[1] == {6: "left of"}
    assert plain_prepositions("a couple of dogs")[0] == "two dogs"


def test_a_model_that_is_missing_or_no_model_is_refused_with_the_remedy(tmp_path: Path) -> None:
    for model in ("en_nonesuch", str(tmp_path)):
        with pytest.raises(CheckpointError, match=r"python -m spacy download en_core_web_sm") as told:
            Spacy(model=model).load()
        assert model in str(told.value)
    spacy.blank("en").to_disk(tmp_path / "blank")
    with pytest.raises(CheckpointError, match="has no tagger, parser, lemmatizer"):
        Spacy(model=str(tmp_path / "blank")).load()


@pytest.fixture(scope="module")
def parser() -> Spacy:
    found = Spacy(model=MODEL)
    found.load()
    return found


@with_model
@pytest.mark.parametrize(
    ("prompt", "sentences"),
    [
        ("a red circle to the left of a blue square",
         ("a red circle", "a blue square", "a red circle left of a blue square")),
        ("a photo of three cats under the table", ("three cats", "a table", "three cats under a table")),
        ("a dog sitting on a sofa near a window",
         ("a dog", "a sofa", "a window", "a dog on a sofa", "a dog near a window")),
        ("exactly two red apples on top of a book",
         ("two red apples", "a book", "two red apples on top of a book")),
        ("red car, blue house", ("red car", "blue house")),
    ],
)  # fmt: skip
def test_prompts_of_people(parser: Spacy, prompt: str, sentences: tuple[str, ...]) -> None:
    assert parser.parse(prompt).sentences() == sentences


@with_model
def test_it_agrees_with_the_grammar_on_most_of_its_prompts(parser: Spacy) -> None:
    from refcore_playground.draw import draw_prompts
    from refcore_playground.parser import GrammarParser

    prompts = draw_prompts(60, 3)
    oracle = GrammarParser()
    same = [parser.parse(prompt) == oracle.parse(prompt) for prompt in prompts]
    assert sum(same) / len(same) > 0.8
