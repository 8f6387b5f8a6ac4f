"""Views: one resampling for a chain of geometry, a source as sharp as the zoom needs, gradients pulled back exactly."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from refcore.config.views import ViewGroup
from refcore.contracts.augmentation import Augmentation, Params
from refcore.engine.views import Group, coarsen, covered, resize
from refcore.moment import Moment
from refcore.rng import Rng


class Move(Augmentation):
    """A fixed affine map, to be told apart from any other."""

    geometric: ClassVar[bool] = True
    zoom = 1.0

    def __init__(self, rows: list[list[float]], zoom: float = 1.0) -> None:
        super().__init__()
        self.rows = torch.tensor([*rows, [0.0, 0.0, 1.0]])
        self.zoom = zoom  # type: ignore[misc]

    def draw(self, size: tuple[int, int], rng: Rng, at: Moment) -> Params:
        return {"matrix": self.rows.expand(rng.n, 3, 3)}

    def matrix(self, params: Params) -> Tensor:
        return params["matrix"]


class Double(Augmentation):
    def draw(self, size: tuple[int, int], rng: Rng, at: Moment) -> Params:
        return {}

    def apply(self, views: Tensor, params: Params) -> Tensor:
        return views * 2


FLIP = [[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
HALF = [[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]]
RIGHT = [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]  # the view's content comes from one half of the width to the right


def open_views(image: Tensor, size: tuple[int, int], *augment: Augmentation, **fields: Any) -> Any:
    return Group("g", ViewGroup(count=1, **fields), augment).open(image, size, [0] * len(image), Moment(0, 1))


def make(image: Tensor, size: tuple[int, int], *augment: Augmentation, **fields: Any) -> Tensor:
    return open_views(image, size, *augment, **fields).make(range(len(image)))


@pytest.fixture
def image() -> Tensor:
    return torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_a_view_without_geometry_is_the_image(image: Tensor) -> None:
    assert torch.equal(make(image, (8, 8)), image)


def test_geometry_composes_in_order(image: Tensor) -> None:
    moved = torch.cat([image[..., 4:], torch.zeros_like(image[..., :4])], -1)
    assert torch.allclose(make(image, (8, 8), Move(RIGHT)), moved)
    assert torch.allclose(make(image, (8, 8), Move(RIGHT), Move(FLIP)), moved.flip(-1))
    flipped_first = torch.cat([image.flip(-1)[..., 4:], torch.zeros_like(image[..., :4])], -1)
    assert torch.allclose(make(image, (8, 8), Move(FLIP), Move(RIGHT)), flipped_first)


def test_what_is_not_geometric_comes_after_wherever_it_stands(image: Tensor) -> None:
    assert torch.allclose(make(image, (8, 8), Double(), Move(FLIP)), image.flip(-1) * 2)


def test_the_source_is_as_sharp_as_the_zoom_needs_and_no_sharper() -> None:
    image = torch.rand(1, 3, 64, 64)
    assert open_views(image, (16, 16)).source.shape[-2:] == (16, 16)
    assert open_views(image, (16, 16), Move(HALF, zoom=2.0)).source.shape[-2:] == (32, 32)
    assert open_views(image, (16, 16), Move(HALF, zoom=9.0)).source.shape[-2:] == (64, 64)
    zoomed = make(image, (16, 16), Move(HALF, zoom=2.0))
    assert torch.allclose(zoomed, resize(image, (32, 32))[..., 8:24, 8:24], atol=1e-6)


@pytest.mark.parametrize(("padding", "edge"), [("zeros", 0.0), ("ones", 1.0), ("border", 0.7), ("reflection", 0.7)])
def test_outside_is_what_padding_says(padding: Any, edge: float) -> None:
    view = make(torch.full((1, 3, 8, 8), 0.7), (8, 8), Move(RIGHT), padding=padding)
    assert torch.allclose(view[..., 6:], torch.tensor(edge))


def test_fit_keeps_the_aspect_of_an_oblong_image() -> None:
    image = torch.rand(1, 3, 8, 16)
    assert torch.allclose(make(image, (8, 8), fit="crop"), image[..., 4:12], atol=1e-6)
    padded = make(image, (16, 16), fit="pad")
    assert torch.allclose(padded[..., 4:12, :], image, atol=1e-6)
    assert padded[..., :4, :].abs().max() < 1e-6
    assert covered((8, 16), (8, 8), "stretch") == (1, 1)


def test_pool_shrinks_by_the_mean_of_average_and_maximum() -> None:
    image = torch.rand(1, 3, 8, 8)
    expected = (F.avg_pool2d(image, 2) + F.max_pool2d(image, 2)) / 2
    assert torch.allclose(make(image, (4, 4), shrink="pool"), expected)


def test_the_gradient_through_the_cut_source_is_that_of_the_whole_graph(image: Tensor) -> None:
    leaf = image.clone().requires_grad_()
    views = open_views(leaf, (4, 4), Move(HALF))
    (at_source,) = torch.autograd.grad(views.make(range(2)).square().sum(), views.source)
    pulled = views.pull_back(at_source)
    again = open_views(leaf, (4, 4), Move(HALF))
    again.source = again.small
    (whole,) = torch.autograd.grad(again.make(range(2)).square().sum(), leaf)
    assert torch.allclose(pulled, whole)


def test_the_horizon_of_a_perspective_gives_no_nan(image: Tensor) -> None:
    tilted = Move([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    tilted.rows = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    leaf = image.clone().requires_grad_()
    views = open_views(leaf, (7, 7), tilted)
    made = views.make(range(2))
    assert made.isfinite().all()
    assert torch.autograd.grad(made.sum(), views.source)[0].isfinite().all()


def test_resize_is_pillows_bicubic() -> None:
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(0).random((40, 56), dtype=np.float32)
    theirs = np.asarray(Image.fromarray(pixels).resize((14, 10), Image.Resampling.BICUBIC)).clip(0, 1)
    ours = resize(torch.from_numpy(pixels).expand(1, 1, 40, 56), (10, 14))[0, 0].numpy()
    assert np.abs(ours - theirs).max() < 1e-5


def test_coarsen_keeps_the_aspect_and_never_enlarges() -> None:
    assert coarsen(torch.rand(1, 3, 60, 120), 24).shape[-2:] == (12, 24)
    assert coarsen(torch.rand(1, 3, 6, 12), 24).shape[-2:] == (6, 12)
