"""Claims about the rasteriser of strokes: coverage, order, gradients, tiles and samples."""

from __future__ import annotations

import math
import time
from statistics import median

import pytest
import torch
from torch import Tensor

from refcore_plugins.models.stroke_raster import (
    Paths,
    bezier_polyline,
    by_level,
    fill_coverage,
    line_distance,
    over,
    paint,
    stroke_coverage,
)

WHITE = torch.ones(3)
EDGE = 1.2


def drawn(
    samples: int = 1,
    strokes: int = 6,
    shapes: int = 3,
    size: int = 40,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Points of shapes and strokes with 12 points, half widths and colours, in float64 with a gradient for checks."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(samples, *shape, generator=generator, dtype=torch.float64)

    count = shapes + strokes
    points = size * (uniform(count, 1, 2) + 0.4 * (uniform(count, 13, 2) - 0.5))
    half = 0.3 + 3 * uniform(count)
    half[:, :shapes] = 0
    return {
        name: value.to(dtype).requires_grad_()
        for name, value in {"points": points, "half": half, "colours": uniform(count, 4)}.items()
    }


def picture(given: dict[str, Tensor], shapes: int = 3, size: tuple[int, int] = (40, 40), tile: int = 16) -> Tensor:
    samples, count = given["half"].shape
    closed = torch.arange(count) < shapes
    points = torch.where(
        closed[:, None, None] & (torch.arange(13)[:, None] == 12), given["points"][:, :, :1], given["points"]
    )
    lines = bezier_polyline(points.flatten(0, 1), 5).unflatten(0, (samples, count))
    paths = Paths(lines, torch.full((count,), 20), closed, given["half"], given["colours"])
    return paint(paths, WHITE, size, EDGE, tile)


def test_a_polyline_lies_on_its_curve_and_passes_through_the_ends_of_segments() -> None:
    points = torch.tensor([[[0.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0], [1.0, -1.0], [2.0, -1.0], [2.0, 0.0]]])
    line = bezier_polyline(points, 2)[0]
    torch.testing.assert_close(line, torch.tensor([[0, 0], [0.5, 0.75], [1, 0], [1.5, -0.75], [2, 0]]))


@pytest.mark.parametrize("width", [0.2, 1.0, 7.0])
def test_a_stroke_puts_down_ink_in_proportion_to_its_width(width: float) -> None:
    distance = torch.linspace(0, 8, 80_001, dtype=torch.float64)
    ink = 2 * torch.trapezoid(stroke_coverage(distance, torch.tensor(width / 2), EDGE), distance)
    assert float(ink) == pytest.approx(width, rel=1e-6)


def test_a_fill_covers_half_of_a_pixel_on_its_outline_and_all_or_nothing_beyond_the_edge() -> None:
    distance = torch.tensor([0.0, 0.0, EDGE / 2, EDGE / 2])
    inside = torch.tensor([True, False, True, False])
    assert fill_coverage(distance, inside, EDGE).tolist() == [0.5, 0.5, 1, 0]


def test_a_distance_is_that_of_the_nearest_point_of_the_piece_also_where_it_has_no_length() -> None:
    at = torch.tensor([[1.0, 2.0], [-3.0, 4.0], [5.0, 0.0]])
    start = torch.tensor([[0.0, 0.0], [0.0, 0.0], [2.0, 0.0]])
    end = torch.tensor([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0]])
    torch.testing.assert_close(line_distance(at, start, end), torch.tensor([2.0, 5.0, 3.0]))


def test_paths_over_each_other_are_the_sum_with_cumulative_products() -> None:
    generator = torch.Generator().manual_seed(0)
    alpha = torch.rand(5, 1, 7, generator=generator, dtype=torch.float64)
    alpha[2] = 1
    colour = torch.rand(5, 1, 3, 1, generator=generator, dtype=torch.float64)
    below = torch.rand(1, 3, 7, generator=generator, dtype=torch.float64)
    shown = over(below, alpha.unbind(), colour.unbind())
    left = torch.cat([(1 - alpha[1:]).flip(0).cumprod(0).flip(0), torch.ones(1, 1, 7, dtype=torch.float64)])
    wanted = (colour * (alpha * left)[:, :, None]).sum(0) + below * (1 - alpha).prod(0)
    torch.testing.assert_close(shown, wanted)


def test_an_opaque_path_has_a_gradient_in_its_opacity_and_hides_what_is_below() -> None:
    below, alpha = torch.zeros(1, 3, 1), torch.ones(1, 1, requires_grad=True)
    hidden = torch.full((1, 3, 1), 0.5, requires_grad=True)
    over(below, (torch.ones(1, 1), alpha), (hidden, torch.ones(1, 3, 1))).sum().backward()
    assert alpha.grad is not None
    assert hidden.grad is not None
    assert float(alpha.grad) == pytest.approx(3 * 0.5)
    assert not hidden.grad.any()


def test_levels_go_through_groups_item_by_item() -> None:
    group = torch.tensor([0, 2, 2, 2, 3, 3])
    order, ranking, sizes = by_level(group, 4)
    assert ranking.tolist() == [2, 3, 0, 1]
    assert sizes == [3, 2, 1]
    assert [group[order].tolist(), order.tolist()] == [[2, 3, 0, 2, 3, 2], [1, 4, 0, 2, 5, 3]]


def test_a_later_path_is_painted_over_an_earlier_one() -> None:
    line = torch.tensor([[[2.0, 8.0], [14.0, 8.0]], [[8.0, 2.0], [8.0, 14.0]]])[None]
    colours = torch.tensor([[[1.0, 0, 0, 1], [0, 0, 1.0, 1]]])
    half = torch.full((1, 2), 2.0)
    one, none = torch.tensor([1, 1]), torch.tensor([False, False])
    crossing = paint(Paths(line, one, none, half, colours), WHITE, (16, 16), EDGE)[0, :, 8, 8]
    swapped = paint(Paths(line.flip(1), one, none, half, colours.flip(1)), WHITE, (16, 16), EDGE)[0, :, 8, 8]
    assert crossing.tolist() == [0, 0, 1]
    assert swapped.tolist() == [1, 0, 0]


def test_a_shape_is_filled_by_the_even_odd_rule() -> None:
    """A five-pointed star drawn in one go: its middle is crossed twice, and stays empty."""
    angle = torch.arange(6) * (4 * math.pi / 5)
    star = 32 + 30 * torch.stack([angle.sin(), -angle.cos()], -1)
    paths = Paths(
        star[None, None], torch.tensor([5]), torch.tensor([True]), torch.zeros(1, 1), torch.tensor([[[0.0, 0, 0, 1]]])
    )
    shown = paint(paths, WHITE, (64, 64), EDGE)[0, 0]
    assert float(shown[32, 32]) == 1
    assert float(shown[12, 32]) == 0
    assert float(shown[2, 2]) == 1


def test_a_disc_covers_its_area() -> None:
    angle = torch.linspace(0, 2 * math.pi, 201)
    disc = torch.stack([30 + 20.3 * angle.cos(), 33 + 20.3 * angle.sin()], -1)
    disc[-1] = disc[0]
    paths = Paths(
        disc[None, None], torch.tensor([200]), torch.tensor([True]), torch.zeros(1, 1), torch.tensor([[[0.0, 0, 0, 1]]])
    )
    area = float((1 - paint(paths, WHITE, (60, 64), EDGE)[0, 0]).sum())
    assert area == pytest.approx(math.pi * 20.3**2, rel=2e-3)


@pytest.mark.parametrize("tile", [1, 5, 8, 64])
def test_the_picture_and_its_gradient_do_not_depend_on_the_size_of_tiles(tile: int) -> None:
    given = drawn(samples=2)
    pictures = [picture(given, tile=size) for size in (16, tile)]
    weights = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(1))
    slopes = [torch.autograd.grad((shown * weights).sum(), list(given.values())) for shown in pictures]
    torch.testing.assert_close(pictures[0], pictures[1], atol=1e-6, rtol=0)
    for first, second in zip(*slopes, strict=True):
        torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-4)


def test_the_gradient_is_that_of_finite_differences() -> None:
    given = drawn(strokes=4, shapes=2, size=20, dtype=torch.float64)
    weights = torch.rand(1, 3, 20, 20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def loss(moved: dict[str, Tensor]) -> Tensor:
        return (picture(moved, shapes=2, size=(20, 20)) * weights).sum()

    slopes = dict(zip(given, torch.autograd.grad(loss(given), list(given.values())), strict=True))
    generator = torch.Generator().manual_seed(2)
    for name, value in given.items():
        way = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        way = way if name != "half" else way * (value > 0)
        step = 1e-6
        with torch.no_grad():
            above, below = (loss({**given, name: value + sign * step * way}) for sign in (1, -1))
        found = float((slopes[name] * way).sum())
        assert float(above - below) / (2 * step) == pytest.approx(found, rel=1e-5, abs=1e-6), name


def test_a_sample_is_the_same_to_the_last_bit_whoever_is_beside_it() -> None:
    given = drawn(samples=3)
    together = picture(given)
    slopes = torch.autograd.grad(together[1].square().sum(), list(given.values()))
    own = {name: value[1:2].detach().requires_grad_() for name, value in given.items()}
    alone = picture(own)
    assert together[1].equal(alone[0])
    for slope, wanted in zip(slopes, torch.autograd.grad(alone.square().sum(), list(own.values())), strict=True):
        assert slope[1].equal(wanted[0])
        assert not slope[0].any()
        assert not slope[2].any()


@pytest.mark.parametrize("size", [(1, 1), (7, 33), (40, 16)])
def test_a_picture_of_any_size_is_a_part_of_a_larger_one(size: tuple[int, int]) -> None:
    given = drawn()
    assert picture(given, size=size).equal(picture(given, size=(40, 48))[..., : size[0], : size[1]])


def test_paths_outside_the_picture_leave_the_background_and_a_gradient_of_zero() -> None:
    given = drawn()
    far = {**given, "points": (given["points"].detach() + 1000).requires_grad_()}
    shown = picture(far)
    assert (shown == 1).all()
    (slope,) = torch.autograd.grad(shown.sum(), far["colours"])
    assert not slope.any()


@pytest.mark.slow
def test_256_strokes_at_224_pixels_take_less_than_three_seconds_of_one_core() -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.rand(1, 256, 1, 2, generator=generator)
    steps = 0.1 * (torch.rand(1, 256, 9, 2, generator=generator) - 0.5)
    points = (224 * torch.cat([start, start + steps.cumsum(2)], 2)).requires_grad_()
    half = torch.full((1, 256), 2.0).requires_grad_()
    colours = torch.rand(1, 256, 4, generator=generator).requires_grad_()
    seconds = []
    for _ in range(5):
        began = time.process_time()
        lines = bezier_polyline(points.flatten(0, 1), 12).unflatten(0, (1, 256))
        paths = Paths(lines, torch.full((256,), 36), torch.zeros(256, dtype=torch.bool), half, colours)
        torch.autograd.grad(paint(paths, WHITE, (224, 224), EDGE).sum(), [points, half, colours])
        seconds.append(time.process_time() - began)
    assert median(seconds) < 3
