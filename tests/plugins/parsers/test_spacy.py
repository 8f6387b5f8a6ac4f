"""Free text: rules on dependency parses written out by hand, and prompts read by a real model."""

from __future__ import annotations

from pathlib import Path

import pytest
from english_model import english_folder, with_model

from refcore.contracts.parser import Phrase, Relation
from refcore.errors import CheckpointError, ParseError
from refcore_plugins.parsers.spacy import Spacy, opening, phrases_of, plain_prepositions, tidy

spacy = pytest.importorskip("spacy", reason="spaCy is not installed: pip install 'refcore[spacy]'")


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
    plain, names = plain_prepositions("a cat on the left side of a dog, next to a bus")
    assert plain == "a cat near a dog, near a bus"
    assert [(plain[at : at + 4], name) for at, name in names.items()] == [("near", "left of"), ("near", "next to")]
    assert plain_prepositions("a car left of a house")[1] == {6: "left of"}


@pytest.mark.fault("3.5")
@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("on the side of", "on the side of"), ("on side of", "on the side of"), ("by the side of", "by the side of"),
        ("on the bottom of", "on the bottom of"), ("at the bottom of", "at the bottom of"),
        ("on the top of", "on top of"), ("at the top of", "on top of"), ("hidden by", "hidden by"),
        ("in the middle of", "in the middle of"), ("on the right-hand side of", "right of"),
    ],
)  # fmt: skip
def test_a_place_is_a_preposition_and_no_thing(said: str, name: str) -> None:
    plain, names = plain_prepositions(f"a mouse {said} a key")
    assert (plain, list(names.values())) == ("a mouse near a key", [name])


@pytest.mark.fault("3.5")
@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ("a dozen eggs", "twelve eggs"), ("two dozen eggs", "24 eggs"), ("half a dozen of eggs", "six eggs"),
        ("a couple of dogs", "two dogs"), ("a pair of shoes.", "two shoes"), ("3 pairs of red shoes", "six red shoes"),
        ("a pair of glasses", "a pair of glasses"), ("a pair of black sunglasses", "a pair of black sunglasses"),
        ("a group of people", "many people"), ("a large group of five people", "five people"),
        ("dozens of birds", "many birds"), ("a lot of water", "many water"),
        ("a room, except for a chair", "a room, without a chair"), ("all but a chair", "all without a chair"),
        ("a dog with no collar", "a dog without collar"), ("a man missing his hat", "a man without his hat"),
        ("a missing cat", "a missing cat"), ("not only a cat but a dog", "a cat but a dog"),
        ("a close-up of a bee", "a closeup of a bee"), ("a zoo\n with\ta  cat. ", "a zoo with a cat"),
    ],
)  # fmt: skip
def test_numbers_and_absence_of_several_words_become_one(prompt: str, told: str) -> None:
    assert tidy(prompt) == told


@pytest.mark.fault("3.5")
def test_an_opening_is_skipped_unless_the_picture_is_a_thing() -> None:
    photo = doc("black/ADJ/JJ/amod/3 and/CCONJ/CC/cc/0 white/ADJ/JJ/conj/0 photo/NOUN/NN/ROOT/3 of/ADP/IN/prep/3 "
                "a/DET/DT/det/6 cat/NOUN/NN/pobj/4")  # fmt: skip
    assert str(photo)[opening(photo) :].strip() == "a cat"
    hung = doc("a/DET/DT/det/1 painting/NOUN/NN/nsubj/5 of/ADP/IN/prep/1 a/DET/DT/det/4 cat/NOUN/NN/pobj/2 "
               "hangs/VERB/VBZ/ROOT/5/hang")  # fmt: skip
    assert opening(hung) == 0
    assert opening(doc("a/DET/DT/det/2 picture/NOUN/NN/compound/2 frame/NOUN/NN/ROOT/2")) == 0
    assert opening(doc("a/DET/DT/det/1 photo/NOUN/NN/ROOT/1")) == 0


@pytest.mark.fault("3.5")
def test_what_is_absent_is_no_thing_nor_what_is_joined_to_it() -> None:
    bare = doc("a/DET/DT/det/1 man/NOUN/NN/ROOT/1 without/ADP/IN/prep/1 a/DET/DT/det/4 hat/NOUN/NN/pobj/2 "
               "or/CCONJ/CC/cc/4 gloves/NOUN/NNS/conj/4/glove")  # fmt: skip
    assert phrases_of("...", bare, {}).sentences() == ("a man",)
    worn = doc("a/DET/DT/det/1 man/NOUN/NN/ROOT/1 not/PART/RB/neg/3 wearing/VERB/VBG/acl/1/wear a/DET/DT/det/5 "
               "hat/NOUN/NN/dobj/3")  # fmt: skip
    assert phrases_of("...", worn, {}).sentences() == ("a man",)
    street = doc("a/DET/DT/det/1 street/NOUN/NN/ROOT/1 ,/PUNCT/,/punct/1 not/PART/RB/neg/1 a/DET/DT/det/5 "
                 "car/NOUN/NN/appos/1")  # fmt: skip
    assert phrases_of("...", street, {}).sentences() == ("a street",)


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
    found = Spacy(model=str(english_folder()))
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
         ("a dog", "a sofa", "a window", "a dog on a sofa", "a sofa near a window")),  # or the dog: both are English
        ("a pink cross", ("a pink cross",)),
        ("a cyan circle and an orange cross", ("a cyan circle", "an orange cross")),
        ("a checkered green cross below a small pink cross",
         ("a checkered green cross", "a small pink cross", "a checkered green cross below a small pink cross")),
        ("exactly two red apples on top of a book",
         ("two red apples", "a book", "two red apples on top of a book")),
        ("red car, blue house", ("red car", "blue house")),
    ],
)  # fmt: skip
def test_prompts_of_people(parser: Spacy, prompt: str, sentences: tuple[str, ...]) -> None:
    assert parser.parse(prompt).sentences() == sentences


@with_model
@pytest.mark.fault("3.5")
@pytest.mark.parametrize(
    ("prompt", "sentences"),
    [
        ("a cat on the side of a dog", ("a cat", "a dog", "a cat on the side of a dog")),
        ("a cat on the bottom of a dog", ("a cat", "a dog", "a cat on the bottom of a dog")),
        ("a man without a hat", ("a man",)),
        ("a room with everything except a chair", ("a room",)),
        ("a room without tables or chairs", ("a room",)),
        ("a street, not a car", ("a street",)),
        ("a man who is not wearing a hat", ("a man",)),
        ("not only a cat but also a dog", ("a cat", "a dog")),
        ("a bowl of fruit but no apples", ("a bowl", "fruit", "a bowl of fruit")),
        ("a dozen eggs", ("twelve eggs",)),
        ("two dozen eggs in a basket", ("24 eggs", "a basket", "24 eggs in a basket")),
        ("a pair of shoes", ("two shoes",)),
        ("a pair of glasses on a table",
         ("a pair of glasses", "a table", "a pair of glasses on a table")),
        ("a slice of pizza", ("a slice of pizza",)),
        ("a group of people", ("people",)),
        ("a flock of seven birds above a lake", ("seven birds", "a lake", "seven birds above a lake")),
        ("a 3D render of a castle", ("a castle",)),
        ("black and white photo of a cat", ("a cat",)),
        ("a highly detailed, beautiful oil painting of a ship", ("a ship",)),
        ("a close-up photo of a bee on a flower", ("a bee", "a flower", "a bee on a flower")),
        ("a cat on the left and a dog on the right", ("a cat", "a dog")),
        ("a statue of a man", ("a statue", "a man", "a statue of a man")),
    ],
)  # fmt: skip
def test_what_a_reader_means(parser: Spacy, prompt: str, sentences: tuple[str, ...]) -> None:
    assert parser.parse(prompt).sentences() == sentences


@with_model
@pytest.mark.fault("3.5")
@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("a {} next to a {}", "next to"), ("a {} near a {}", "near"), ("a {} on side of a {}", "on the side of"),
        ("a {} on the left of a {}", "left of"), ("a {} on the right of a {}", "right of"),
        ("a {} on the top of a {}", "on top of"), ("a {} on the bottom of a {}", "on the bottom of"),
        ("a {} in front of a {}", "in front of"), ("a {} behind a {}", "behind"), ("a {} hidden by a {}", "hidden by"),
    ],
)  # fmt: skip
def test_the_templates_of_t2i_compbench_give_two_things_and_one_relation(
    parser: Spacy, template: str, name: str
) -> None:
    """The prompts of the 2-D and 3-D spatial categories: T2I-CompBench++ (arXiv 2307.06350)."""
    for first, second in [("girl", "horse"), ("phone", "sheep"), ("bee", "refrigerator"), ("bicycle", "sofa")]:
        found = parser.parse(template.format(first, second))
        assert found.things == (Phrase(f"a {first}"), Phrase(f"a {second}"))
        assert found.relations == (Relation(0, name, 1),)


@with_model
def test_it_agrees_with_the_grammar_on_most_of_its_prompts(parser: Spacy) -> None:
    from refcore_playground.draw import draw_prompts
    from refcore_playground.parser import GrammarParser

    prompts = draw_prompts(60, 3)
    oracle = GrammarParser()
    same = [parser.parse(prompt) == oracle.parse(prompt) for prompt in prompts]
    assert sum(same) / len(same) > 0.8
