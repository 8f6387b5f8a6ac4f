"""Claims about the prior `statistics`: it tells photographs from noise and grey, and its gradient is its value's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

pytest.importorskip("efficientnet_lite_pytorch", reason="extra `natural` is not installed")

from refcore.errors import RefcoreError
from refcore.moment import Moment
from refcore.rng import Rng
from refcore_plugins.priors.statistics import Statistics

CPU = torch.device("cpu")


def loaded(dtype: torch.dtype = torch.float32, **fields: object) -> Statistics:
    prior = Statistics(**fields)
    prior.load(CPU, dtype)
    return prior


@pytest.fixture(scope="module")
def small() -> Statistics:
    return loaded(size=64, smallest=16)


def crops(size: int) -> Tensor:
    """[2, 3, size, size]: the middles of scikit-learn's two photographs."""
    images = pytest.importorskip("sklearn.datasets").load_sample_images().images
    photographs = torch.stack([torch.from_numpy(image.copy()) for image in images]).permute(0, 3, 1, 2).float() / 255
    return torch.nn.functional.interpolate(
        photographs[..., :427, 106:533], (size, size), mode="bilinear", antialias=True
    )


def noise(n: int, size: int) -> Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(3))


def test_photographs_are_nearer_than_noise_and_grey() -> None:
    prior = loaded(size=96)
    with torch.no_grad():
        photographs = prior.distance(crops(96))
        others = prior.distance(torch.cat([noise(1, 96), torch.full((1, 3, 96, 96), 0.5)]))
    assert photographs.max() < 0.7 * others.min()


def test_the_gradient_is_that_of_the_value() -> None:
    prior = loaded(torch.float64, size=32, smallest=8)
    image = noise(1, 32).double()  # as large as the crop, which is then the whole image
    conditioning = prior.read(["anything"])
    gradient, value = prior.gradient(image, conditioning, Moment(0, 10), Rng([0], 0, "prior"))
    assert value is not None
    direction = torch.randn(image.shape, generator=torch.Generator().manual_seed(4)).double()
    step = 1e-6
    there = prior.gradient(image + step * direction, conditioning, Moment(0, 10), Rng([0], 0, "prior"))[1]
    back = prior.gradient(image - step * direction, conditioning, Moment(0, 10), Rng([0], 0, "prior"))[1]
    assert there is not None
    assert back is not None
    torch.testing.assert_close((there - back) / (2 * step), (gradient * direction).sum()[None], rtol=1e-3, atol=1e-6)


def test_a_step_along_the_gradient_comes_nearer(small: Statistics) -> None:
    image = noise(1, 64)
    gradient, before = small.gradient(image, small.read([""]), Moment(0, 10), Rng([0], 0, "prior"))
    after = small.gradient(
        image - 0.5 * gradient / gradient.norm(), small.read([""]), Moment(0, 10), Rng([0], 0, "prior")
    )[1]
    assert before is not None
    assert after is not None
    assert after < before


@pytest.mark.parametrize("size", [(64, 64), (70, 150), (200, 90), (40, 50)])
def test_samples_never_meet_and_any_size_will_do(small: Statistics, size: tuple[int, int]) -> None:
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(5))
    together, values = small.gradient(images, small.read(["", ""]), Moment(7, 10), Rng([4, 5], 7, "prior"))
    alone, value = small.gradient(images[1:], small.read([""]), Moment(7, 10), Rng([5], 7, "prior"))
    assert together.shape == images.shape
    assert together.isfinite().all()
    assert values is not None
    assert value is not None
    torch.testing.assert_close(value, values[1:], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(alone[0], together[1], rtol=1e-3, atol=1e-5 * together[1].abs().max().item())


def test_maps_larger_than_any_are_refused() -> None:
    with pytest.raises(
        RefcoreError, match="smallest is 20 px, but no feature map of a 32 px crop is that large; expected at most 16"
    ):
        loaded(size=32)


def test_noise_on_the_crop_is_keyed_and_drowns_faint_patterns() -> None:
    plain, noisy = loaded(size=32, smallest=8), loaded(size=32, smallest=8, noise=0.2)
    smooth = torch.nn.functional.interpolate(crops(4)[:1], (32, 32), mode="bicubic").clamp(0, 1)
    checks = torch.ones(32, 32)
    checks[::2, ::2] = checks[1::2, 1::2] = -1
    faint = (smooth + 0.02 * checks).clamp(0, 1)
    values = {}
    for name, prior in (("plain", plain), ("noisy", noisy)):
        conditioning = prior.read(["anything"])
        values[name] = [
            prior.gradient(x, conditioning, Moment(0, 10), Rng([0], 0, "prior"))[1] for x in (smooth, faint, faint)
        ]
    assert torch.equal(values["noisy"][1], values["noisy"][2])
    change = {name: (a - b).abs().item() for name, (a, b, _) in values.items()}
    assert change["noisy"] < change["plain"]
