"""Photometric augmentations: against torchvision's functionals, and what every one of them promises."""

import pytest
import torch
import torchvision.transforms.functional as torchvision_transform
from pydantic import ValidationError

from refcore.config.schedule import Linear
from refcore.contracts.augmentation import select
from refcore.moment import Moment
from refcore.rng import Rng
from refcore_plugins.augmentations.geometric import Affine, Perspective
from refcore_plugins.augmentations.photometric import Coarse, ColorJitter, Erasing, GaussianNoise, UniformNoise

SIZE = (12, 20)
AT = Moment(0, 1)
"""Of augmentations that are the same in every step."""
STRONG = [
    ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.3, p=0.7),
    Erasing(p=0.7, value=0.5),
    Erasing(shared=True),
    Coarse(side=2, p=0.7),
    GaussianNoise(std=(0.05, 0.2)),
    UniformNoise(),
]
IDLE = [
    ColorJitter(brightness=0, contrast=0, saturation=0, hue=0, p=1),
    ColorJitter(p=0),
    Erasing(p=0),
    Coarse(side=2, p=0),
    Coarse(side=20),
    GaussianNoise(std=0.0),
    UniformNoise(range=(0.0, 0.0), clamp=False),
]


def by_name(augmentation):
    return augmentation.name


def rng(*seeds, count=5, step=3):
    return Rng(seeds, step, "views", count)


def views(n, low=0.0, high=1.0):
    return torch.rand(n, 3, *SIZE, generator=torch.Generator().manual_seed(1)) * (high - low) + low


def drawn(augmentation, size, rng):
    return select(augmentation.draw(size, rng, AT), range(rng.n))


@pytest.mark.fault("1.9")
def test_kornia_draws_the_order_of_its_jitter_for_each_batch_and_here_it_is_fixed():
    import kornia.augmentation as kornia

    torch.manual_seed(0)
    theirs = kornia.ColorJitter(0.1, 0.1, 0.1, 0.1)
    orders = {tuple(theirs.generate_parameters(torch.Size([2, 3, 8, 8]))["order"].tolist()) for _ in range(400)}
    assert len(orders) == 24
    augmentation, images = ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.3, p=1), views(6)
    params = drawn(augmentation, SIZE, rng(0, count=6))
    assert "order" not in params
    assert torch.equal(augmentation.apply(images, params), augmentation.apply(images, params))


@pytest.mark.fault("1.9")
def test_colour_jitter_is_torchvisions_in_its_order():
    augmentation = ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.3, p=1)
    images = views(6)
    params = drawn(augmentation, SIZE, rng(0, count=6))
    out = augmentation.apply(images, params)
    for i, image in enumerate(images):
        expected = torchvision_transform.adjust_brightness(image, params["brightness"][i].item())
        expected = torchvision_transform.adjust_contrast(expected, params["contrast"][i].item())
        expected = torchvision_transform.adjust_saturation(expected, params["saturation"][i].item())
        expected = torchvision_transform.adjust_hue(expected, params["hue"][i].item() / (2 * torch.pi))
        torch.testing.assert_close(out[i], expected, atol=2e-3, rtol=0)  # their grey weights differ in the fourth digit


def test_colour_jitter_leaves_the_views_it_does_not_apply_to():
    augmentation = ColorJitter(p=0.5)
    images = views(40, -0.2, 1.2)
    params = drawn(augmentation, SIZE, rng(0, count=40))
    same = (augmentation.apply(images, params) == images).flatten(1).all(1)
    assert torch.equal(same, params["applied"] == 0)
    assert 5 < same.sum() < 35


@pytest.mark.parametrize(
    "colour", [(0.0, 0.0, 0.0), (0.5, 0.5, 0.5), (1.0, 1.0, 1.0), (1.0, 0.0, 0.0), (0.2, 0.2, 0.9)]
)
def test_colour_jitter_has_finite_gradients_on_flat_colours(colour):
    augmentation = ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.3, p=1)
    images = torch.tensor(colour).view(1, 3, 1, 1).expand(5, 3, *SIZE).clone().requires_grad_()
    (gradient,) = torch.autograd.grad(augmentation.apply(images, drawn(augmentation, SIZE, rng(0))).sum(), images)
    assert gradient.isfinite().all()
    assert gradient.abs().max() < 10


def test_erasing_fills_one_box_of_the_asked_area():
    augmentation = Erasing(area=(0.1, 0.4), ratio=(0.5, 2), value=0.25)
    size = (64, 96)
    images = torch.ones(50, 3, *size)
    params = drawn(augmentation, size, rng(0, count=50))
    erased = augmentation.apply(images, params) == 0.25
    assert torch.equal(erased[:, 0], erased[:, 2])
    area = erased[:, 0].flatten(1).float().mean(1)
    assert (area > 0.09).all()
    assert (area < 0.42).all()
    assert area.std() > 0.05
    for mask, (top, left, bottom, right) in zip(erased[:, 0], params["box"].tolist(), strict=True):
        assert mask[top:bottom, left:right].all()
        assert mask.sum() == (bottom - top) * (right - left)
    changed = torchvision_transform.erase(images[0], *_corner_and_sides(params["box"][0].tolist()), v=0.25)
    assert torch.equal(augmentation.apply(images, params)[0], changed)


def _corner_and_sides(box):
    top, left, bottom, right = box
    return top, left, bottom - top, right - left


def test_a_shared_box_is_one_per_sample():
    box = drawn(Erasing(shared=True), SIZE, rng(0, 1, 2))["box"].view(3, 5, 4)
    assert torch.equal(box, box[:, :1].expand_as(box))
    assert not torch.equal(box[0], box[1])
    own = drawn(Erasing(), SIZE, rng(0))["box"]
    assert len(own.unique(dim=0)) > 1


def test_a_coarse_view_has_the_means_and_none_of_the_detail():
    fine = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).repeat(6, 10).expand(5, 3, *SIZE)
    out = Coarse(side=10).apply(fine, drawn(Coarse(side=10), SIZE, rng(0)))
    torch.testing.assert_close(out, torch.full_like(out, 0.5))
    halves = torch.zeros(5, 3, *SIZE)
    halves[..., 10:] = 1
    out = Coarse(side=10).apply(halves, drawn(Coarse(side=10), SIZE, rng(0)))
    assert torch.equal(out[..., :9], halves[..., :9])
    assert torch.equal(out[..., 11:], halves[..., 11:])
    torch.testing.assert_close(out.mean((1, 2, 3)), torch.full((5,), 0.5))


def test_noise_has_the_std_that_was_drawn_and_may_leave_the_range():
    augmentation = GaussianNoise(std=(0.0, 0.1))
    size = (64, 64)
    params = drawn(augmentation, size, rng(0, count=20))
    out = augmentation.apply(torch.ones(20, 3, *size), params)
    torch.testing.assert_close((out - 1).flatten(1).std(1), params["std"], atol=2e-3, rtol=0.05)
    assert params["std"].min() < 0.02
    assert params["std"].max() > 0.08
    assert out.max() > 1
    fixed = drawn(GaussianNoise(std=0.2), SIZE, rng(0))["std"]
    torch.testing.assert_close(fixed, torch.full((5,), 0.2))


@pytest.mark.parametrize("augmentation", IDLE, ids=by_name)
def test_zero_strength_and_zero_probability_are_the_identity_to_the_bit(augmentation):
    images = views(5, -0.2, 1.2)
    assert torch.equal(augmentation.apply(images, drawn(augmentation, SIZE, rng(0))), images)


@pytest.mark.parametrize("augmentation", STRONG, ids=by_name)
def test_a_view_depends_neither_on_batch_mates_nor_on_being_applied_twice(augmentation):
    images = views(15)
    draws = augmentation.draw(SIZE, rng(3, 7, 11), AT)
    among = select(draws, range(15))
    alone = drawn(augmentation, SIZE, rng(7))
    for name, value in alone.items():
        assert torch.equal(value, among[name][5:10])
    whole = augmentation.apply(images, among)
    assert torch.equal(whole, augmentation.apply(images, among))
    torch.testing.assert_close(whole[5:10], augmentation.apply(images[5:10], alone), atol=1e-6, rtol=0)
    chosen = [12, 0]
    torch.testing.assert_close(
        whole[chosen], augmentation.apply(images[chosen], select(draws, chosen)), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("augmentation", STRONG, ids=by_name)
def test_gradients_agree_with_finite_differences(augmentation):
    params = drawn(augmentation, (3, 4), rng(0, count=2))
    images = torch.rand(2, 3, 3, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 0.4 + 0.3
    assert torch.autograd.gradcheck(lambda x: augmentation.apply(x, params), images.requires_grad_(), atol=1e-6)


@pytest.mark.parametrize("augmentation", STRONG, ids=by_name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_views_dtype_is_kept(augmentation, dtype):
    assert augmentation.apply(views(5).to(dtype), drawn(augmentation, SIZE, rng(0))).dtype == dtype


def test_uniform_noise_lies_between_its_two_numbers_and_is_clamped():
    for low, high, clamp in ((0.0, 0.2, True), (-0.5, 0.5, False), (-2.0, 2.0, True)):
        augmentation = UniformNoise(range=(low, high), clamp=clamp)
        params = drawn(augmentation, (40, 40), rng(0))
        grey = torch.full((5, 3, 40, 40), 0.5)
        noise = augmentation.apply(grey, params) - 0.5
        bottom, top = (max(low, -0.5), min(high, 0.5)) if clamp else (low, high)
        assert (noise.min(), noise.max()) == pytest.approx((bottom, top), abs=2e-3)
        assert noise.mean() == pytest.approx((low + high) / 2, abs=0.02)
        assert not torch.equal(noise[0], noise[1])


def test_the_papers_views_can_be_said():
    chain = [
        Affine(degrees=30, translate=0.1, p=1),
        Perspective(distortion=0.2, p=0.4),
        ColorJitter(brightness=0.1, contrast=0.1, saturation=0.1, hue=0.1, p=0.5),
        Erasing(area=[0.1, 0.4], p=1, shared=True),
        GaussianNoise(std=[0, 0.1]),
        GaussianNoise(std=0.2),
    ]
    for augmentation in chain:
        params = drawn(augmentation, SIZE, rng(0))
        assert all(len(value) == 5 for value in params.values())


@pytest.mark.parametrize(
    ("kind", "fields", "said"),
    [
        (Erasing, {"area": (0.5, 1.5)}, "less than or equal to 1"),
        (Erasing, {"ratio": (2, 1)}, "low <= high"),
        (GaussianNoise, {"std": (0.2, 0.1)}, "low <= high"),
        (GaussianNoise, {"std": -0.1}, "std"),
        (UniformNoise, {"range": (0.2, 0.1)}, "low <= high"),
        (Coarse, {"side": 0}, "side"),
        (ColorJitter, {"hue": 0.6}, "hue"),
        (ColorJitter, {"strength": 0.6}, "strength"),
    ],
)
def test_a_bad_setting_is_refused_by_name(kind, fields, said):
    with pytest.raises(ValidationError, match=said):
        kind(**fields)


@pytest.mark.fault("4.14")
@pytest.mark.parametrize(
    ("moving", "still"),
    [
        (
            ColorJitter(brightness=Linear(start=0, end=0.4), hue=Linear(start=0.2, end=0), p=Linear(start=0.5, end=1)),
            lambda now: ColorJitter(brightness=0.4 * now, hue=0.2 * (1 - now), p=0.5 + 0.5 * now),
        ),
        (
            Erasing(area=(0.1, Linear(start=0.1, end=0.5)), p=Linear(start=0, end=1)),
            lambda now: Erasing(area=(0.1, 0.1 + 0.4 * now), p=now),
        ),
        (Coarse(side=Linear(start=2, end=10)), lambda now: Coarse(side=round(2 + 8 * now))),
        (UniformNoise(range=(0, Linear(start=0.5, end=0))), lambda now: UniformNoise(range=(0, 0.5 - 0.5 * now))),
        (GaussianNoise(std=Linear(start=0.5, end=0)), lambda now: GaussianNoise(std=0.5 - 0.5 * now)),
        (GaussianNoise(std=(0, Linear(start=0.5, end=0))), lambda now: GaussianNoise(std=(0, 0.5 - 0.5 * now))),
    ],
)
def test_a_strength_is_that_of_the_step(moving, still):
    images, seen = views(5), []
    for step in range(5):  # the last is the end of the run
        at = Moment(step, 4)
        found, expected = (
            a.apply(images, select(a.draw(SIZE, rng(3), at), range(5))) for a in (moving, still(step / 4))
        )
        torch.testing.assert_close(found, expected)
        seen.append(found)
    assert not torch.allclose(seen[0], seen[-1])
