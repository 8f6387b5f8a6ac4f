"""Claims about the `strokes` canvas: starts, bounds, segments, mosaics, and SVG there and back."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor

from refcore.contracts.canvas import CanvasParams
from refcore.errors import RefcoreError
from refcore.moment import Moment
from refcore.rng import Rng
from refcore_plugins.canvases.strokes import Strokes, cells, circle, folded, rectangle

END = Moment.end(1)
CHROMIUM = Path("/usr/bin/chromium")


def load(size: tuple[int, int] = (48, 64), **fields: Any) -> Strokes:
    canvas = Strokes(**fields)
    canvas.load(torch.device("cpu"), torch.float32, size)
    return canvas


def start(canvas: Strokes, *seeds: int) -> CanvasParams:
    return canvas.init(Rng(seeds or (0,), 0, "init"))


def test_a_start_has_clipdraws_random_walks_colours_and_width() -> None:
    canvas = load(size=(100, 200), strokes=300, segments=(1, 3), radius=0.1, width=2.5)
    params = start(canvas, 0, 1)
    assert {name: list(value.shape) for name, value in params.items()} == {
        "points": [2, 300, 10, 2],
        "widths": [2, 300],
        "colours": [2, 300, 4],
    }
    steps = params["points"].diff(dim=2)
    assert steps[..., 0].abs().amax() <= 0.05 * 200 + 1e-4
    assert steps[..., 1].abs().amax() <= 0.05 * 100 + 1e-4
    assert steps[..., 0].std() == pytest.approx(0.1 * 200 / 12**0.5, rel=0.05)
    assert (params["widths"] == 2.5).all()
    assert params["colours"].mean() == pytest.approx(0.5, abs=0.02)
    assert not params["points"][0].equal(params["points"][1])


def test_strokes_have_the_numbers_of_segments_in_turn_and_ignore_points_beyond_their_own() -> None:
    canvas = load(strokes=3, segments=(1, 3))
    params = start(canvas)
    params["points"].requires_grad_()
    (slope,) = torch.autograd.grad(canvas.decode(params, END).square().sum(), params["points"])
    used = slope[0].abs().sum(-1) > 0
    assert not used[0, 4:].any()
    assert not used[1, 7:].any()
    assert used[2, 7:].any()


def test_color_and_opacity_are_those_of_every_path_where_they_are_given() -> None:
    params = start(load(strokes=4, shapes=3, color=[0.1, 0.2, 0.3], opacity=0.9))
    for name in ("colours", "shape_colours"):
        torch.testing.assert_close(params[name], torch.tensor([0.1, 0.2, 0.3, 0.9]).expand_as(params[name]))
    free = start(load(strokes=4, opacity=0.9))["colours"]
    assert (free[..., 3] == 0.9).all()
    assert free[..., :3].std() > 0.1


def test_shapes_start_as_circles_of_different_sizes() -> None:
    params = start(load(strokes=0, shapes=200, shape_segments=4, shape_radius=0.25))
    outline = params["shape_points"][0]
    on = outline[:, ::3]
    radius = (on - on.mean(1, keepdim=True)).norm(dim=-1)
    torch.testing.assert_close(radius, radius[:, :1].expand_as(radius))
    assert radius.min() >= 0.5 * 0.25 * 48 - 1e-3
    assert radius.max() <= 1.5 * 0.25 * 48 + 1e-3
    assert radius.std() > 1


@pytest.mark.parametrize("segments", [3, 4, 8])
def test_a_circle_of_curves_is_round(segments: int) -> None:
    points = circle(segments).double()
    p0, p1, p2 = points[0], points[1], points[2]
    p3 = points[3]
    middle = (p0 + 3 * p1 + 3 * p2 + p3) / 8
    assert float(middle.norm()) == pytest.approx(1, abs=1e-3 if segments == 4 else 5e-3)


def test_the_outline_of_a_square_has_its_corners_at_the_ends_of_segments() -> None:
    assert rectangle(4)[::3].tolist() == [[0, 0], [1, 0], [1, 1], [0, 1]]


@pytest.mark.parametrize(("count", "size"), [(1, (5, 9)), (7, (48, 64)), (256, (224, 224))])
def test_cells_cover_the_picture_once(count: int, size: tuple[int, int]) -> None:
    boxes = cells(count, size)
    assert len(boxes) == count
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1).sum()
    assert float(area) == pytest.approx(size[0] * size[1], rel=1e-5)


def test_what_leaves_its_bounds_is_folded_back_with_a_gradient_everywhere() -> None:
    x = torch.tensor([-0.25, 0.0, 0.25, 1.0, 1.25, 2.25], requires_grad=True)
    y = folded(x, 0.0, 1.0)
    assert y.tolist() == pytest.approx([0.25, 0, 0.25, 1, 0.75, 0.25], abs=1e-6)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert slope.tolist() == [-1, 1, 1, 1, -1, 1]


def test_an_optimiser_that_pushes_a_colour_over_its_bound_keeps_it_there() -> None:
    canvas = load(strokes=1, segments=(1, 1), width=20, radius=0.01, color=[0.5, 0.5, 0.5], opacity=1)
    params = start(canvas)
    colours = params["colours"].requires_grad_()
    optimizer = torch.optim.Adam([colours], lr=0.02)
    for _ in range(100):
        optimizer.zero_grad()
        (-canvas.decode({**params, "colours": colours}, END).sum()).backward()
        optimizer.step()
    assert (folded(colours, 0.0, 1.0)[..., :3] > 0.97).all()


def test_a_schedule_of_the_edge_is_that_of_the_moment() -> None:
    canvas = load(strokes=20, edge={"kind": "linear", "start": 6.0, "end": 1.2})
    params = start(canvas)
    pictures = [canvas.decode(params, at) for at in (Moment(0, 10), Moment.end(10))]
    assert pictures[1].equal(load(strokes=20).decode(params, END))
    soft, sharp = ((picture.diff(dim=-1).abs().amax()) for picture in pictures)
    assert soft < sharp


@pytest.mark.parametrize("fields", [{"strokes": 64}, {"strokes": 0, "shapes": 64}])
def test_a_start_from_an_image_is_a_mosaic_of_its_colours(fields: dict[str, int]) -> None:
    """Eight by eight areas of one colour each, on as many strokes or shapes."""
    blocks = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    images = blocks.repeat_interleave(8, -1).repeat_interleave(8, -2)
    canvas = load(size=(64, 64), **fields)
    shown = canvas.decode(canvas.encode(images), END)
    assert (shown - images)[..., 4::8, 4::8].abs().max() < 1e-5
    assert (shown - images).abs().mean() < 0.06


def test_an_image_of_another_size_cannot_start_it() -> None:
    with pytest.raises(RefcoreError, match=r"8x8.*48x64"):
        load().encode(torch.rand(1, 3, 8, 8))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"strokes": 0}, "strokes and shapes are both 0; expected at least one"),
        ({"segments": (3, 1)}, r"segments are \[3, 1\]; expected the smaller one first"),
        ({"widths": (5, 5)}, r"widths are \[5, 5\]; expected the smaller one first"),
        ({"width": 0.5}, "width is 0.5; expected 1 to 50, the bounds of `widths`"),
        ({"background": (0, 0, 2)}, "less than or equal to 1"),
        ({"strokes": 5000}, "less than or equal to 4096"),
    ],
)
def test_a_config_that_cannot_be_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Strokes(**fields)


def moved(canvas: Strokes, seed: int = 5) -> CanvasParams:
    """Parameters as a run leaves them, partly beyond their bounds."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: value + 0.4 * torch.randn(value.shape, generator=generator) for name, value in start(canvas, 1, 2).items()
    }


@pytest.mark.parametrize(
    "fields",
    [
        {"strokes": 30, "width": 3},
        {"strokes": 0, "shapes": 9},
        {"strokes": 7, "shapes": 5, "background": (0.9, 0, 0.25)},
    ],
)
def test_a_picture_written_as_svg_and_opened_again_is_the_same(fields: dict[str, Any]) -> None:
    canvas = load(**fields)
    params = moved(canvas)
    pictures = canvas.decode(params, END)
    for b, files in enumerate(canvas.files(params)):
        again = canvas.open(files[".svg"])
        assert {name: value.shape[1:] for name, value in again.items()} == {
            name: value.shape[1:] for name, value in params.items()
        }
        assert (canvas.decode(again, END)[0] - pictures[b]).abs().max() < 1e-3


def test_a_drawing_with_fewer_and_shorter_paths_leaves_the_spare_ones_unseen() -> None:
    small, large = load(strokes=3, segments=(1, 1), width=4), load(strokes=9, segments=(3, 3), shapes=2)
    params = start(small)
    opened = large.open(small.files(params)[0][".svg"])
    assert (large.decode(opened, END) - small.decode(params, END)).abs().max() < 0.05
    assert not opened["shape_colours"].any()
    assert not opened["colours"][0, 3:].any()


@pytest.mark.parametrize(
    ("inner", "said"),
    [
        ('<circle cx="9" cy="9" r="5"/>', r"1 filled shape, and canvas.config.shapes is 0; set canvas.config.shapes=1"),
        ('<line x2="9" stroke="red"/>' * 3, r"3 strokes, and canvas.config.strokes is 2; set canvas.config.strokes=3"),
        (
            '<polyline points="0 0 9 9 9 0 5 5 1 1" stroke="red" fill="none"/>',
            r"stroke 1 of the drawing has 4 segments, and that of the canvas 1; set canvas.config.segments=\[4, 4\]",
        ),
        ('<line x2="9" stroke="red" stroke-width="60"/>', r"60 pixels wide.*set canvas.config.widths=\[1, 60\]"),
    ],
)
def test_a_drawing_beyond_the_config_is_refused_with_the_remedy(inner: str, said: str) -> None:
    canvas = load(strokes=2, segments=(1, 3))
    with pytest.raises(RefcoreError, match=said):
        canvas.open(f'<svg viewBox="0 0 64 48">{inner}</svg>')


def rendered(texts: list[str], size: tuple[int, int]) -> list[Tensor]:
    """[3, H, W] of SVG texts by Chromium."""
    sync_api = pytest.importorskip("playwright.sync_api")
    found = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": size[1], "height": size[0]})
        for text in texts:
            page.set_content(f"<style>* {{margin: 0}} svg {{display: block}}</style>{text}")
            levels = np.array(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
            found.append(torch.from_numpy(levels).permute(2, 0, 1) / 255)
        browser.close()
    return found


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Chromium")
def test_a_browser_draws_the_same_picture_from_the_svg() -> None:
    texts, pictures = [], []
    for fields in (
        {"strokes": 64, "width": 4},
        {"strokes": 64, "width": 1.5},
        {"strokes": 16, "shapes": 16, "radius": 0.6},
    ):
        canvas = load(size=(224, 224), **fields)
        params = start(canvas, 3)
        texts.append(canvas.files(params)[0][".svg"])
        pictures.append(canvas.decode(params, END)[0])
    for theirs, ours in zip(rendered(texts, (224, 224)), pictures, strict=True):
        gap = (theirs - ours).abs()
        assert gap.mean() < 0.004
        assert gap.square().mean().sqrt() < 0.012
        assert (gap > 0.1).float().mean() < 0.005
