"""Geometric augmentations: matrices against kornia's and torch's own warps, and what every one of them promises."""

import kornia.geometry.transform as kornia_transform
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from refcore.config.schedule import Linear
from refcore.contracts.augmentation import select
from refcore.moment import Moment
from refcore.rng import Rng
from refcore_plugins.augmentations.geometric import Affine, Perspective, ResizedCrop, Shift, Window

SIZE = (16, 24)
AT = Moment(0, 1)
"""Of augmentations that are the same in every step."""
STRONG = [
    Affine(degrees=30, translate=0.1, scale=(0.8, 1.3), p=0.7),
    Perspective(distortion=0.5, p=0.7),
    ResizedCrop(scale=(0.2, 0.9), p=0.7),
    Shift(pixels=3, fraction=0.1, p=0.7),
]
IDLE = [
    Affine(degrees=0, translate=0),
    Perspective(distortion=0, p=1),
    ResizedCrop(scale=(1, 1), ratio=(1, 1)),
    Shift(),
]
NEVER = [Affine(p=0), Perspective(p=0), ResizedCrop(p=0), Shift(fraction=0.5, p=0)]


def by_name(augmentation):
    return augmentation.name


def rng(*seeds, count=5, step=3):
    return Rng(seeds, step, "views", count)


def grid(matrix, size):
    """[n, H, W, 2] source coordinates in [-1, 1] of every view pixel, and [n, H, W] the homogeneous denominators."""
    identity = torch.eye(3)[None, :2]
    view = F.affine_grid(identity, [1, 1, *size], align_corners=False)
    view = torch.cat([view, torch.ones_like(view[..., :1])], dim=-1).to(matrix.dtype)
    source = torch.einsum("nij,hwj->nhwi", matrix, view[0])
    return source[..., :2] / source[..., 2:], source[..., 2]


def warp(images, matrix):
    return F.grid_sample(images, grid(matrix, images.shape[-2:])[0], padding_mode="zeros", align_corners=False)


def photo(n=1, size=SIZE):
    image = torch.rand(n, 3, *size, generator=torch.Generator().manual_seed(0))
    return F.avg_pool2d(image, 3, 1, 1)


def test_an_affine_matrix_warps_as_kornia_does():
    augmentation = Affine(degrees=40, translate=0.2, scale=(0.7, 1.4))
    params = augmentation.draw(SIZE, rng(0, count=8), AT)
    height, width = SIZE
    forward = kornia_transform.get_rotation_matrix2d(
        torch.tensor([[(width - 1) / 2, (height - 1) / 2]]).expand(8, 2),
        params["angle"].rad2deg(),
        params["scale"][:, None].expand(8, 2).contiguous(),
    )
    forward[..., 2] += params["shift"] * torch.tensor([width / 2, height / 2])
    images = photo(8)
    theirs = kornia_transform.warp_affine(images, forward, SIZE, align_corners=True)
    torch.testing.assert_close(warp(images, augmentation.matrix(params)), theirs, atol=1e-4, rtol=0)


def test_a_perspective_matrix_is_the_inverse_of_kornias():
    augmentation = Perspective(distortion=0.6, p=1)
    params = augmentation.draw(SIZE, rng(0, 1), AT)
    corners = torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]]).expand(10, 4, 2)
    forward = kornia_transform.get_perspective_transform(corners, corners * (1 - params["inward"]))
    inverse = forward.double().inverse()
    torch.testing.assert_close(augmentation.matrix(params).double(), inverse / inverse[:, 2:, 2:], atol=1e-4, rtol=1e-4)


def test_a_perspective_matrix_warps_as_kornia_does():
    augmentation = Perspective(distortion=0.4, p=1)
    params = augmentation.draw(SIZE, rng(0, count=4), AT)
    height, width = SIZE
    edges = torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]]).expand(4, 4, 2)
    half = torch.tensor([width / 2, height / 2])
    pixels = half - 0.5  # the centre, in kornia's pixel coordinates
    forward = kornia_transform.get_perspective_transform(
        edges * half + pixels, edges * (1 - params["inward"]) * half + pixels
    )
    images = photo(4)
    theirs = kornia_transform.warp_perspective(images, forward, SIZE, align_corners=True)
    torch.testing.assert_close(warp(images, augmentation.matrix(params)), theirs, atol=1e-3, rtol=0)


def test_a_resized_crop_is_the_slice_resized():
    image = photo(1, (16, 16))
    params = {"extent": torch.tensor([[0.5, 0.75]]), "centre": torch.tensor([[-0.25, 0.125]])}  # columns 2-9, rows 3-14
    view = warp(image, ResizedCrop().matrix(params))
    cut = F.interpolate(image[:, :, 3:15, 2:10], (16, 16), mode="bilinear", align_corners=False)
    torch.testing.assert_close(view[..., 1:-1, 1:-1], cut[..., 1:-1, 1:-1], atol=1e-5, rtol=0)


def test_a_shift_of_whole_pixels_moves_them_exactly_and_fills_with_zero():
    image = photo()
    augmentation = Shift(pixels=3)
    params = augmentation.draw(SIZE, rng(1, count=6), AT)
    moved = warp(image.expand(6, 3, *SIZE), augmentation.matrix(params))
    steps = (params["shift"] * torch.tensor([SIZE[1] / 2, SIZE[0] / 2])).round().long()
    assert (steps.abs() <= 3).all()
    assert steps.abs().sum() > 0
    for view, (right, down) in zip(moved, steps.tolist(), strict=True):
        padded = F.pad(image[0], (3, 3, 3, 3))
        expected = padded[:, 3 - down : 3 - down + SIZE[0], 3 - right : 3 - right + SIZE[1]]
        torch.testing.assert_close(view, expected, atol=1e-5, rtol=0)


@pytest.mark.fault("1.9")
def test_translate_moves_along_both_axes():
    matrices = Affine(degrees=0, translate=0.2, scale=(1, 1), p=1)
    drawn = matrices.matrix(select(matrices.draw(SIZE, rng(0, count=50), AT), range(50)))
    assert (drawn[:, :2, 2].abs().amax(0) > 0.1).all()


def test_positive_degrees_turn_counter_clockwise():
    image = torch.zeros(1, 3, 9, 9)
    image[..., 4, 7] = 1  # right of the centre
    matrix = Affine().matrix(
        {
            "angle": torch.tensor([torch.pi / 2]),
            "shift": torch.zeros(1, 2),
            "scale": torch.ones(1),
            "aspect": torch.ones(1),
        }
    )
    turned = warp(image, matrix)
    assert turned[0, 0, 1, 4] == pytest.approx(1, abs=1e-4)  # above it


@pytest.mark.parametrize("augmentation", IDLE + NEVER, ids=by_name)
def test_zero_strength_and_zero_probability_are_the_identity_to_the_bit(augmentation):
    matrix = augmentation.matrix(augmentation.draw(SIZE, rng(0, 1), AT))
    assert torch.equal(matrix, torch.eye(3).expand(10, 3, 3))


@pytest.mark.parametrize("augmentation", STRONG, ids=by_name)
def test_draws_do_not_depend_on_batch_mates_and_repeat(augmentation):
    alone = augmentation.draw(SIZE, rng(7), AT)
    among = augmentation.draw(SIZE, rng(3, 7, 11), AT)
    again = augmentation.draw(SIZE, rng(7), AT)
    assert alone
    for name, value in alone.items():
        assert torch.equal(value, among[name][5:10])
        assert torch.equal(value, again[name])
    assert not torch.equal(augmentation.matrix(alone), augmentation.matrix(augmentation.draw(SIZE, rng(8), AT)))


@pytest.mark.parametrize("augmentation", STRONG, ids=by_name)
def test_selected_views_keep_their_matrices(augmentation):
    params = augmentation.draw(SIZE, rng(7, 8), AT)
    chosen = [6, 1]
    assert torch.equal(augmentation.matrix(select(params, chosen)), augmentation.matrix(params)[chosen])


@pytest.mark.parametrize("augmentation", STRONG, ids=by_name)
def test_matrices_never_fold_the_view_and_stay_within_their_zoom(augmentation):
    matrix = augmentation.matrix(augmentation.draw(SIZE, rng(*range(20)), AT))
    assert matrix.shape == (100, 3, 3)
    assert matrix.dtype == torch.float32
    source, denominator = grid(matrix, SIZE)
    assert (denominator > 0).all()
    if not isinstance(augmentation, Perspective):
        narrowest = (source[:, :, 1:] - source[:, :, :-1]).norm(dim=-1).min() / (2 / SIZE[1])
        if isinstance(augmentation, Affine):  # a turned side of a wide view is short in these coordinates
            narrowest = matrix[:, :2, :2].det().sqrt().min()
        assert narrowest >= 1 / augmentation.zoom - 1e-4


def test_draws_fill_their_ranges():
    views = rng(*range(100))
    affine = Affine(degrees=30, translate=0.1, scale=(0.5, 2)).draw(SIZE, views, AT)
    assert affine["angle"].abs().max() == pytest.approx(torch.pi / 6, rel=0.05)
    assert affine["shift"].abs().max() == pytest.approx(0.2, rel=0.05)
    assert affine["scale"].min() == pytest.approx(0.5, rel=0.05)
    assert affine["scale"].max() == pytest.approx(2, rel=0.05)
    crop = ResizedCrop(scale=(0.25, 0.5), ratio=(1, 1)).draw(SIZE, views, AT)
    area = crop["extent"].prod(-1)
    assert area.min() == pytest.approx(0.25, rel=0.05)
    assert area.max() == pytest.approx(0.5, rel=0.05)
    assert (crop["centre"].abs() + crop["extent"] <= 1 + 1e-6).all()
    share = (Perspective(p=0.4).draw(SIZE, views, AT)["inward"].flatten(1).sum(1) > 0).float().mean()
    assert share == pytest.approx(0.4, abs=0.08)


def test_gradients_reach_the_image_through_a_warp():
    image = photo(5).requires_grad_()
    for augmentation in STRONG:
        (gradient,) = torch.autograd.grad(
            warp(image, augmentation.matrix(augmentation.draw(SIZE, rng(0), AT))).sum(), image
        )
        assert gradient.isfinite().all()
        assert (gradient.flatten(1).abs().sum(1) > 0).all()


@pytest.mark.parametrize(
    ("kind", "fields", "said"),
    [
        (Affine, {"scale": (2, 1)}, "low <= high"),
        (Affine, {"degrees": -1}, "degrees"),
        (Perspective, {"distortion": 0.7}, "distortion"),
        (ResizedCrop, {"scale": (0, 1)}, "greater than 0"),
        (Shift, {"p": 1.5}, "p"),
        (Shift, {"pixel": 3}, "pixel"),
    ],
)
def test_a_bad_setting_is_refused_by_name(kind, fields, said):
    with pytest.raises(ValidationError, match=said):
        kind(**fields)


@pytest.mark.fault("4.14")
def test_rotation_shift_zoom_and_share_are_those_of_the_step():
    rising = Linear(start=0, end=40)
    moving = Affine(
        degrees=rising, translate=Linear(start=0.2, end=0), scale=(1, Linear(start=1, end=3)), p=Linear(start=0, end=1)
    )
    for step in range(5):  # the last is the end of the run
        still = Affine(degrees=10 * step, translate=0.2 - 0.05 * step, scale=(1, 1 + step / 2), p=step / 4)
        found, expected = (a.draw(SIZE, rng(0, count=8), Moment(step, 4)) for a in (moving, still))
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value)
    assert moving.zoom == 3
    growing = ResizedCrop(scale=(Linear(start=0.5, end=0.04), 1), ratio=(1, 1))
    assert growing.zoom == 5
    pixels = [Shift(pixels=Linear(start=0, end=6)).draw(SIZE, rng(0, count=99), Moment(step, 4)) for step in (0, 2, 4)]
    most = [(shift["shift"][:, 0].abs().max() * SIZE[1] / 2).round().item() for shift in pixels]
    assert most == [0, 3, 6]


@pytest.mark.fault("4.14")
@pytest.mark.parametrize(
    ("kind", "fields", "said"),
    [
        (Affine, {"degrees": Linear(start=0, end=181)}, "less than or equal to 180"),
        (Affine, {"scale": (Linear(start=2, end=3), 1)}, "low <= high"),
        (Perspective, {"p": Linear(start=-0.1, end=1)}, "greater than or equal to 0"),
    ],
)
def test_a_schedule_out_of_bounds_is_refused(kind, fields, said):
    with pytest.raises(ValidationError, match=said):
        kind(**fields)


def test_a_window_shows_its_part_of_the_image_in_every_view() -> None:
    image = torch.arange(8.0 * 12).view(1, 1, 8, 12).expand(1, 3, 8, 12) / 96
    window = Window(box=(0.25, 0.5, 0.75, 1.0))
    params = window.draw((4, 6), rng(0, 1, count=2), AT)
    views = F.grid_sample(image.expand(4, 3, 8, 12), grid(window.matrix(params), (4, 6))[0], align_corners=False)
    torch.testing.assert_close(views, image[..., 4:, 3:9].expand(4, 3, 4, 6))
    assert window.zoom == 2


def test_an_empty_window_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"expected \[left, top, right, bottom\] with left < right"):
        Window(box=(0.5, 0.0, 0.5, 1.0))
