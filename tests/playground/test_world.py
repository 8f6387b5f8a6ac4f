"""Claims about scenes, captions and facts: what is written is read back, and what is drawn is true."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refcore_playground import world
from refcore_playground.draw import (
    CATEGORIES,
    NEGATIVES,
    SPLITS,
    categorise,
    draw_negative,
    draw_pair,
    draw_prompts,
    draw_request,
    draw_scene,
)
from refcore_playground.facts import check, satisfies
from refcore_playground.grammar import GrammarError, Phrase, Request, parse, words, write
from refcore_playground.render import render, render_batch, sprite
from refcore_playground.world import COLOURS, GAP, SHAPES, SIZE, TEXTURES, Scene, Thing

seeds = st.integers(0, 2**32)


@given(seeds, st.sampled_from(CATEGORIES), st.sampled_from(SPLITS))
def test_every_form_of_a_caption_is_read_back_to_what_it_says(seed: int, category: str, split: str) -> None:
    rng = random.Random(seed)
    request = draw_request(rng, category, split)
    assert parse(write(request)) == request
    assert parse(write(request, rng)) == request


@given(seeds, st.sampled_from(CATEGORIES), st.sampled_from(SPLITS))
def test_a_drawn_scene_satisfies_its_request_and_keeps_things_apart(seed: int, category: str, split: str) -> None:
    scene, request = draw_pair(random.Random(seed), category, split)
    assert satisfies(request, scene.things)
    for i, a in enumerate(scene.things):
        assert a.radius <= a.x < SIZE - a.radius
        assert a.radius <= a.y < SIZE - a.radius
        for b in scene.things[:i]:
            assert max(abs(a.x - b.x), abs(a.y - b.y)) >= a.radius + b.radius + GAP


@given(seeds, st.sampled_from(NEGATIVES))
def test_a_wrong_caption_is_false_of_the_scene_and_has_no_held_out_combination(seed: int, kind: str) -> None:
    rng = random.Random(seed)
    scene, request = draw_pair(rng)
    try:
        wrong, drawn = draw_negative(scene, request, rng, kind)
    except ValueError:
        return  # this kind does not apply to this request: no size to change, say
    assert drawn == kind
    assert not satisfies(wrong, scene.things)
    assert not wrong.unseen


@given(seeds)
def test_splits_are_disjoint(seed: int) -> None:
    assert not draw_request(random.Random(seed), split="seen").unseen
    assert draw_request(random.Random(seed), split="unseen").unseen


def test_every_colour_shape_and_texture_is_still_seen_somewhere() -> None:
    for shape in SHAPES:
        assert any(not world.is_unseen(c, shape, None) for c in COLOURS)
        assert any(not world.is_unseen("", shape, t) for t in TEXTURES if t != "solid")
    for colour in COLOURS:
        assert any(not world.is_unseen(colour, s, None) for s in SHAPES)


@pytest.mark.parametrize(
    ("prompt", "request_"),
    [
        ("a red circle left of a blue square", Request((Phrase("red", "circle"), Phrase("blue", "square")), "left of")),
        (
            "A picture of a small dotted green star above a red ring.",
            Request((Phrase("green", "star", "dotted", "small"), Phrase("red", "ring")), "above"),
        ),
        (
            "two blue squares and a yellow heart",
            Request((Phrase("blue", "square", count=2), Phrase("yellow", "heart"))),
        ),
    ],
)
def test_captions_by_hand(prompt: str, request_: Request) -> None:
    assert parse(prompt) == request_


@pytest.mark.parametrize(
    ("prompt", "names"),
    [
        ("", "empty"),
        ("a red elephant", "elephant"),
        ("a mauve circle", "colour"),
        ("two red circle", "circle"),
        ("red circle", "start"),
        ("three red circles and two blue squares", "5 things"),
        ("a red ring above a blue ring below a pink heart", "more than one relation"),
        ("two red rings above a blue ring", "single things"),
    ],
)
def test_a_prompt_outside_the_grammar_says_what_is_wrong(prompt: str, names: str) -> None:
    with pytest.raises(GrammarError, match=names):
        parse(prompt)


def test_facts_find_the_best_assignment_and_count_what_nobody_asked_for() -> None:
    request = parse("a red circle and a blue square")
    red, blue = Thing("red", "circle", "solid", 9, 15, 15), Thing("blue", "square", "striped", 14, 40, 40)
    assert satisfies(request, [blue, red])
    assert not satisfies(request, [blue, red, Thing("pink", "ring", "solid", 9, 50, 10)])
    facts = check(request, [red])
    assert [f.ok for f in facts] == [False, True, True, False, False]
    assert facts[-1].found == "nothing"


def test_the_relation_is_the_axis_of_the_larger_offset() -> None:
    assert world.relation(-10, 9) == "left of"
    assert world.relation(3, -9) == "above"


def test_a_render_shows_the_colour_at_the_thing_and_the_ground_elsewhere() -> None:
    image = render(Scene((Thing("red", "circle", "solid", 14, 20, 20),), (240, 241, 242)))
    assert image.shape == (64, 64, 3)
    assert np.allclose(image[20, 20] * 255, COLOURS["red"], atol=0.5)
    assert np.allclose(image[60, 60] * 255, (240, 241, 242), atol=0.5)


def test_every_texture_of_every_shape_looks_different() -> None:
    for shape in SHAPES:
        shades = [sprite(shape, t, 9)[1] * sprite(shape, t, 9)[0] for t in TEXTURES]
        for i, a in enumerate(shades):
            assert all(abs(a - b).mean() > 0.02 for b in shades[:i]), shape


def test_batches_are_channels_first() -> None:
    scene = draw_scene(parse("a red circle"), random.Random(0))
    assert render_batch([scene, scene]).shape == (2, 3, 64, 64)


def test_prompt_sets_are_fixed_by_their_seed_and_go_round_the_categories() -> None:
    prompts = draw_prompts(24, 7)
    assert prompts == draw_prompts(24, 7)
    assert prompts != draw_prompts(24, 8)
    assert len(set(prompts)) == 24
    assert all(parse(p).relation for i, p in enumerate(prompts) if categorise(i) == "spatial")


def test_the_vocabulary_covers_the_grammar() -> None:
    rng = random.Random(0)
    vocabulary = set(words())
    for _ in range(300):
        caption = write(draw_request(rng, split=rng.choice(SPLITS)), rng)
        assert set(caption.replace(",", " ,").split()) <= vocabulary


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="split"):
        draw_request(random.Random(0), split="test")
    with pytest.raises(ValueError, match="category"):
        draw_request(random.Random(0), "counting")
