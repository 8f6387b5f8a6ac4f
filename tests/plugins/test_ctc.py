"""CTC: its loss is the sum over all alignments, greedy reading merges repeats, and prompts quote what is to be read."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from refcore.errors import RefcoreError
from refcore_plugins.models.ctc import _evenly, absent, encoded, greedy, loss_per_character, places, quoted

CLASSES = ("", "a", "b", " ")
INDEX = {"a": 1, "b": 2, " ": 3}


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("hello", "hello"),
        ('a sign that says "open door"', "open door"),
        ("a sign that says “open”", "open"),
        ('"open" above "now"', "open now"),
        ('an empty quotation "" is none', 'an empty quotation "" is none'),
        ("don't stop", "don't stop"),
        ("  two \n words ", "two words"),
    ],
)
def test_the_text_is_what_a_prompt_quotes_or_all_of_it(prompt: str, text: str) -> None:
    assert quoted(prompt) == text


@pytest.mark.parametrize("text", ["ab", "aa", "b"])
def test_the_loss_is_the_probability_of_all_alignments_per_character(text: str) -> None:
    logits = torch.randn(1, 4, len(CLASSES), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p = logits[0].softmax(-1)
    total = 0.0
    for path in itertools.product(range(len(CLASSES)), repeat=4):
        merged = "".join(CLASSES[k] for k, _ in itertools.groupby(path))
        if merged == text:
            total += math.prod(p[step, k].item() for step, k in enumerate(path))
    target, length = encoded([text], INDEX, 4)
    loss = loss_per_character(logits, target, length)
    assert loss.item() == pytest.approx(-math.log(total) / len(text), abs=1e-12)


def test_texts_of_different_lengths_share_a_batch() -> None:
    logits = torch.randn(2, 6, len(CLASSES), generator=torch.Generator().manual_seed(0))
    together = loss_per_character(logits, *encoded(["abba", "b"], INDEX, 6))
    alone = [loss_per_character(logits[i : i + 1], *encoded([text], INDEX, 6)) for i, text in enumerate(["abba", "b"])]
    torch.testing.assert_close(together, torch.cat(alone))


def test_without_a_preference_the_weighted_sum_over_alignments_is_torchs_loss_with_its_gradient() -> None:
    logits = torch.randn(3, 12, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    target, length = encoded(["abba", "aaa", "b"], INDEX, 12)
    torchs = loss_per_character(logits, target, length)
    ours = _evenly(logits.log_softmax(-1), target, length, 0.0) / length
    torch.testing.assert_close(ours, torchs)
    gradients = [torch.autograd.grad(loss.sum(), logits, retain_graph=True)[0] for loss in (ours, torchs)]
    torch.testing.assert_close(*gradients)


def test_a_preference_for_even_spread_weighs_each_alignment_by_the_places_of_its_characters() -> None:
    logits = torch.randn(1, 4, len(CLASSES), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target, length = encoded(["ab"], INDEX, 4)
    p, away = logits[0].softmax(-1), places(4, 2, length)[0].double()
    total = 0.0
    for path in itertools.product(range(3), repeat=4):
        if "".join(CLASSES[k] for k, _ in itertools.groupby(path)) == "ab":
            weight = math.exp(-3 * sum(away[step, k - 1].item() for step, k in enumerate(path) if k))
            total += weight * math.prod(p[step, k].item() for step, k in enumerate(path))
    assert loss_per_character(logits, target, length, 3.0).item() == pytest.approx(-math.log(total) / 2, abs=1e-6)


def test_crowded_letters_cost_more_than_spread_ones() -> None:
    crowded, spread = (
        torch.nn.functional.one_hot(torch.tensor([path]), len(CLASSES)).float() * 12
        for path in ([1, 2, 0, 0, 0, 0, 0, 0], [0, 0, 1, 0, 0, 2, 0, 0])
    )
    target, length = encoded(["ab"], INDEX, 8)
    free = [loss_per_character(one, target, length).item() for one in (crowded, spread)]
    assert free[0] == pytest.approx(free[1], abs=1e-3)
    even = [loss_per_character(one, target, length, 2.0).item() for one in (crowded, spread)]
    assert even[0] > even[1] + 0.1
    assert even[1] == pytest.approx(free[1], abs=1e-3)


def test_a_character_is_at_its_place_within_half_of_its_part_of_the_line() -> None:
    away = places(8, 3, torch.tensor([3]))[0]
    assert (away == 0).sum(0).tolist() == [2, 2, 2]
    assert not away[1:3, 0].any()
    assert not away[3:5, 1].any()


def test_greedy_reading_merges_repeats_and_removes_blanks() -> None:
    path = torch.tensor([[1, 1, 0, 1, 2, 2, 3, 0], [0, 0, 0, 0, 0, 0, 0, 0]])
    logits = torch.nn.functional.one_hot(path, len(CLASSES)).float()
    assert greedy(logits, CLASSES) == ["aab ", ""]


def test_the_unwanted_loss_falls_with_the_probability_and_stays_finite() -> None:
    loss = torch.tensor([0.0, 1e-3, 1.0, 20.0], requires_grad=True)
    unwanted = absent(loss)
    assert (unwanted.diff() < 0).all()
    assert 0 <= unwanted.min() <= unwanted.max() < 14
    assert unwanted[2].item() == pytest.approx(-math.log(1 - math.exp(-1)), rel=1e-5)
    (gradient,) = torch.autograd.grad(unwanted.sum(), loss)
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ax", r'"ax" has characters outside the recogniser\'s alphabet: "x" \(U\+0078\)'),
        ("", "the text to be read is empty"),
        ("aab", '"aab" needs 4 steps, and the recogniser makes 3; choose a larger width'),
    ],
)
def test_a_text_that_cannot_be_read_is_refused(text: str, message: str) -> None:
    with pytest.raises(RefcoreError, match=message):
        encoded([text], INDEX, 3)
