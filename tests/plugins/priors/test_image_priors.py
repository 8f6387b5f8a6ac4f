"""The image priors: exact values and gradients, sample by sample, at any size."""

import pytest
import torch

from refcore.contracts.conditioning import Conditioning
from refcore.moment import Moment
from refcore.rng import Rng
from refcore_plugins.priors.l2 import L2
from refcore_plugins.priors.tv import TotalVariation

PRIORS = [TotalVariation(power=1), TotalVariation(power=2), L2(), L2(target=0.2)]
CONDITIONING = Conditioning(("a", "b"))


def by_settings(prior):
    return repr(prior.config)


def gradient(prior, images):
    return prior.gradient(images, CONDITIONING, Moment(0, 10), Rng((0, 1), 0, "prior"))


def images(n=2, height=5, width=7):
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("prior", PRIORS, ids=by_settings)
def test_the_gradient_is_that_of_the_value(prior):
    x, step = images(), 1e-6
    exact, value = gradient(prior, x)
    assert value.shape == (2,)
    for place in ((0, 0, 0, 0), (0, 1, 2, 3), (1, 2, 4, 6)):
        moved = x.clone()
        moved[place] += step
        numeric = (gradient(prior, moved)[1] - value) / step
        assert exact[place] == pytest.approx(numeric[place[0]].item(), abs=1e-6)
        assert numeric[1 - place[0]] == 0


@pytest.mark.parametrize("prior", PRIORS, ids=by_settings)
def test_a_sample_is_judged_alone(prior):
    whole, values = gradient(prior, images())
    alone, value = gradient(prior, images()[1:])
    assert torch.equal(whole[1:], alone)
    assert torch.equal(values[1:], value)


@pytest.mark.parametrize(("power", "value"), [(1, 0.5 / 3), (2, 0.25 / 3)])
def test_total_variation_of_an_edge(power, value):
    x = torch.zeros(1, 3, 4, 4)
    x[..., 2:] = 0.5  # one of the three steps to the right is 0.5
    assert gradient(TotalVariation(power=power), x)[1].item() == pytest.approx(value)


def test_total_variation_of_a_flat_or_tiny_image_is_zero_with_zero_gradient():
    for size in ((4, 4), (1, 4), (1, 1)):
        g, value = gradient(TotalVariation(), torch.full((1, 3, *size), 0.3))
        assert value.item() == 0
        assert (g == 0).all()


def test_l2_is_the_mean_squared_distance_from_its_grey():
    x = torch.full((1, 3, 2, 2), 0.9)
    assert gradient(L2(), x)[1].item() == pytest.approx(0.16)
    assert gradient(L2(target=0.9), x)[1].item() == 0


@pytest.mark.parametrize("prior", PRIORS, ids=by_settings)
def test_the_result_is_float32_and_detached(prior):
    x = images().float().requires_grad_()
    with torch.no_grad():
        g, value = gradient(prior, x)
    assert g.shape == x.shape
    assert g.dtype == value.dtype == torch.float32
    assert not g.requires_grad
    assert not value.requires_grad
    assert x.grad is None
