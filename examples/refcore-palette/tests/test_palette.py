"""The referee `palette`: OKLab as published, transport as an exact solver has it, and the contract."""

from __future__ import annotations

import pytest
import torch
from refcore_palette.oklab import oklab
from refcore_palette.palette import Palette, parse
from refcore_palette.transport import transport
from scipy.optimize import linear_sum_assignment

from refcore import RefcoreError
from refcore.testing import suite

PALETTES = ("midnightblue 60%, #ffb703, ivory", "teal, coral", "black 20%, white 80%")
TestPalette = suite(Palette(), prompts=PALETTES)


def loaded(**fields: object) -> Palette:
    referee = Palette(**fields)
    referee.load(torch.device("cpu"), torch.float32)
    return referee


def test_colours_have_the_published_coordinates():
    """White, red, green and blue, from Ottosson's own implementation."""
    rgb = torch.tensor([[1.0, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]])[:, :, None, None]
    expected = [[1, 0, 0], [0.62796, 0.22486, 0.12585], [0.86644, -0.23389, 0.17950], [0.45201, -0.03246, -0.31153]]
    torch.testing.assert_close(oklab(rgb)[:, :, 0, 0], torch.tensor(expected), atol=2e-4, rtol=0)


def test_the_plan_is_as_cheap_as_an_exact_solvers():
    """12 points to 3, a third each; the exact plan is an assignment to four copies of each."""
    cost = torch.rand(1, 12, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    _, plain = transport(cost, torch.full((1, 3), 1 / 3, dtype=torch.float64), 0.002)
    copies = cost[0].repeat_interleave(4, dim=1).numpy()
    exact = copies[linear_sum_assignment(copies)].mean()
    assert float(plain) == pytest.approx(exact, rel=0.02)


def test_a_picture_in_the_wanted_shares_matches_and_others_do_not():
    referee = loaded()
    conditioning = referee.read(["navy 75%, gold 25%"] * 3)
    navy, gold = (torch.tensor(level).view(3, 1, 1) / 255 for level in ((0.0, 0.0, 128.0), (255.0, 215.0, 0.0)))
    images = navy.repeat(3, 1, 32, 32)
    images[0, :, :8] = gold  # a quarter
    images[1, :, :16] = gold  # half
    images[2] = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    score = referee.score(images, conditioning)
    assert score[0] > 0.98
    assert (score[1:] < 0.1).all()


def test_palettes_are_read_and_mistakes_named():
    assert parse("navy 75%, #FFD700") == [((0, 0, 128), 0.75), ((255, 215, 0), 0.25)]
    for wrong, told in (
        ("nvay, gold", 'did you mean "navy"'),
        ("a lighthouse", "give the term such a prompt"),
        ("navy 75%, gold 50%", "add up to 125%"),
        ("navy 40%, gold 50%", "add up to 90%"),
        ("navy 100%, gold", "add up to 100%; expected"),
    ):
        with pytest.raises(RefcoreError, match=told):
            parse(wrong)
