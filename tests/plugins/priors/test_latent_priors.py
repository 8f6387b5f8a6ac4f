"""Priors on the latent: the values and gradients of their formulas, where they are lowest, what they refuse."""

import math

import pytest
import torch
from pydantic import ValidationError

from refcore.calibration import Calibration
from refcore.contracts.canvas import LatentSpace
from refcore.contracts.conditioning import Conditioning
from refcore.errors import RefcoreError
from refcore.moment import Moment
from refcore.rng import Rng
from refcore_plugins.canvases.pixel import Pixel
from refcore_plugins.priors.gaussian import Gaussian
from refcore_plugins.priors.moments import Moments

X = torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 1.7 + 0.3


class LatentCanvas(Pixel):
    name = "latent"
    latent_space = LatentSpace("x", 4, 1.0)

    def latent_name(self):
        return "latent"


def ask(prior, x=X):
    prior.accept(LatentCanvas())
    return prior.gradient(x, Conditioning(("",) * len(x)), Moment(0, 10), Rng(range(len(x)), 0, "prior"))


def test_gaussian_is_its_formula():
    gradient, value = ask(Gaussian())
    n, d = X.flatten(1).norm(dim=1), 120
    torch.testing.assert_close(value, 0.5 * n**2 - (d - 1) * n.log())
    torch.testing.assert_close(gradient, X * (1 - (d - 1) / n**2).view(-1, 1, 1, 1))


def test_gaussian_is_the_likelihood_of_the_norm_up_to_a_constant():
    """n of d independent standard normals follows the chi distribution."""
    chi = torch.distributions.Chi2(torch.tensor(120.0, dtype=torch.float64))
    n = X.flatten(1).norm(dim=1)
    exact = -(chi.log_prob(n**2) + (2 * n).log())
    _, value = ask(Gaussian())
    torch.testing.assert_close(value - value[0], exact - exact[0])


def test_moments_is_its_formula_written_out():
    mean, std = [0.1, -0.2, 0.0, 0.4], [0.5, 1.0, 2.0, 1.5]
    gradient, value = ask(Moments(mean=mean, std=std))
    for b in range(3):
        terms = []
        for c in range(4):
            channel = X[b, c]
            terms.append(((channel.mean() - mean[c]) / std[c]) ** 2 + math.log(channel.std(correction=0) / std[c]) ** 2)
        assert float(value[b]) == pytest.approx(float(sum(terms)) / 4, rel=1e-6)
    assert gradient.shape == X.shape


@pytest.mark.parametrize(("prior", "reached"), [(Gaussian(), "norm"), (Moments(mean=0.5, std=0.7), "moments")])
def test_descending_reaches_what_it_asks_for(prior, reached):
    x = X.clone()
    for _ in range(3000):
        x = x - (0.1 if reached == "norm" else 5.0) * ask(prior, x)[0]
    if reached == "norm":
        torch.testing.assert_close(x.flatten(1).norm(dim=1), torch.full((3,), math.sqrt(119), dtype=x.dtype))
    else:
        torch.testing.assert_close(x.mean((2, 3)), torch.full((3, 4), 0.5, dtype=x.dtype), atol=1e-3, rtol=0)
        torch.testing.assert_close(
            x.std((2, 3), correction=0), torch.full((3, 4), 0.7, dtype=x.dtype), atol=1e-3, rtol=0
        )


def test_a_constant_channel_and_a_zero_latent_have_finite_gradients():
    for prior in (Gaussian(), Moments()):
        gradient, value = ask(prior, torch.zeros(1, 4, 5, 6))
        assert gradient.isfinite().all()
        assert value.isfinite().all()


@pytest.mark.parametrize("prior", [Gaussian(), Moments()])
def test_samples_do_not_meet(prior):
    whole, values = ask(prior)
    alone, value = ask(prior, X[1:2])
    torch.testing.assert_close(alone, whole[1:2], atol=1e-12, rtol=0)
    torch.testing.assert_close(value, values[1:2])


def test_moments_reads_a_calibration(tmp_path):
    (tmp_path / "c.json").write_text(Calibration((), {}, {"mean": [0.1] * 4, "std": [2.0] * 4}).to_json())
    (tmp_path / "none.json").write_text(Calibration((), {}).to_json())
    found = ask(Moments(calibration=str(tmp_path / "c.json")))[1]
    torch.testing.assert_close(found, ask(Moments(mean=0.1, std=2.0))[1])
    with pytest.raises(RefcoreError, match="has no statistics of latents"):
        ask(Moments(calibration=str(tmp_path / "none.json")))


def test_what_does_not_fit_is_refused():
    with pytest.raises(RefcoreError, match='prior "gaussian" is about latents, and canvas "pixel" has none'):
        Gaussian().accept(Pixel())
    with pytest.raises(RefcoreError, match=r"mean has 3 numbers, but the latents of canvas .* have 4 channels"):
        ask(Moments(mean=[0.0, 0.0, 0.0]))
    with pytest.raises(ValidationError, match="expected numbers above 0"):
        Moments(std=0.0)
    with pytest.raises(ValidationError, match="expected either it or them"):
        Moments(std=2.0, calibration="c.json")
