"""The priors on noise: equations, gradients, and that Gaussian noise satisfies them and pictures do not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from refcore.config.run import RunConfig
from refcore.engine.inversion import Inversion
from refcore.errors import RefcoreError
from refcore.moment import Moment
from refcore.rng import Rng
from refcore_plugins.priors.noise_statistics import (
    Concentration,
    Kl,
    Spectrum,
    concentration,
    divergence,
    moments_and_spectrum,
)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_bounds_are_those_of_the_paper_written_out_with_numpy() -> None:
    for scale, shift in ((1.0, 0.0), (1.3, 0.0), (1.0, 0.2)):
        x = scale * drawn(1, 1024) + shift
        vectors = x.numpy().reshape(256, 4)
        mean = np.linalg.norm(vectors.mean(0))
        spread = np.linalg.norm(vectors.T @ vectors / 256 - np.eye(4), 2)
        log_p1 = min(-256 * mean**2 / 8, -math.log(2))
        log_p2 = min(-256 * max(0.0, math.sqrt(1 + spread) - 1 - math.sqrt(4 / 256)) ** 2 / 2, -math.log(2))
        assert torch.allclose(concentration(x, 4), torch.tensor([-(log_p1 + log_p2)]).double())


def test_gaussian_noise_is_probable_and_shifted_noise_is_not() -> None:
    assert (concentration(drawn(20, 4096), 4) < 10).all()
    assert (concentration(1 + drawn(20, 4096), 4) > 100).all()


def test_moments_and_spectrum_of_white_noise_are_near_0_and_of_a_ramp_far() -> None:
    magnitude = math.sqrt(math.pi) / 2
    # The mean of 16 Rayleigh magnitudes is off by 0.463 / 4 * sqrt(2 / pi) = 0.092 on average.
    noise = moments_and_spectrum(drawn(4, 16384), 16, 1.0, magnitude)
    assert ((noise - 0.092).abs() < 0.04).all()
    ramp = torch.linspace(-1.7, 1.7, 16384).double()[None]
    assert moments_and_spectrum(ramp, 16, 1.0, magnitude) > 0.5


@pytest.mark.parametrize("prior", [Concentration(shuffles=3), Spectrum()])
def test_descent_brings_noise_that_is_none_back(prior: Concentration | Spectrum) -> None:
    """Noise that is too strong becomes less improbable, and each sample as it would alone."""
    x = {"noise": 2 * drawn(2, 4, 16, 16).float()}
    conditioning = prior.read(["a", "b"])
    first = None
    for step in range(30):
        gradient, value = prior.gradient(x, conditioning, Moment(step, 30), Rng([1, 2], step, "test"))
        first = value if first is None else first
        scale = gradient["noise"].flatten(1).norm(dim=1).view(-1, 1, 1, 1).clamp_min(1e-12)
        x = {"noise": x["noise"] - 0.5 * gradient["noise"] / scale}
    assert (value < 0.9 * first).all()
    alone, _ = prior.gradient({"noise": x["noise"][1:]}, prior.read(["b"]), Moment(0, 1), Rng([2], 0, "test"))
    both, _ = prior.gradient(x, conditioning, Moment(0, 1), Rng([1, 2], 0, "test"))
    assert torch.allclose(alone["noise"][0], both["noise"][1], atol=1e-6)


def test_they_act_on_a_run_whose_canvas_is_noise_and_refuse_another() -> None:
    settings = {
        "canvas": {"name": "noise", "config": {"steps": 2, "eta": 1.0}},
        "priors": [{"name": "concentration", "config": {"shuffles": 2}}, {"name": "spectrum"}],
        "prompts": ["a red circle"], "seeds": [0], "size": 32, "steps": 2,
    }  # fmt: skip
    inversion = Inversion(RunConfig.from_settings(settings))
    step = next(inversion)
    assert set(step.losses) == {"concentration", "spectrum"}
    assert set(inversion.params) == {"noise", "step_noise"}
    with pytest.raises(RefcoreError, match='the parameters of canvas "pixel" are none; use the canvas noise'):
        Inversion(RunConfig.from_settings({**settings, "canvas": {"name": "pixel"}}))


def test_noise_that_cannot_be_cut_is_refused() -> None:
    with pytest.raises(RefcoreError, match="no multiple of block 7"):
        Concentration(block=7).loss(drawn(1, 64))


def test_the_divergence_is_that_of_torch_and_its_gradient_is_right() -> None:
    mean, log_variance = 0.3 * drawn(3, 4, 8, 8), 0.5 * drawn(3, 4, 8, 8, seed=1)
    ours = divergence(mean, log_variance)
    normal = torch.distributions.Normal
    theirs = torch.distributions.kl_divergence(normal(mean, (log_variance / 2).exp()), normal(0.0, 1.0))
    assert torch.allclose(ours, theirs.flatten(1).mean(1))
    leaves = [mean.requires_grad_(), log_variance.requires_grad_()]
    expected = torch.autograd.grad(divergence(*leaves).sum(), leaves)
    x = {"noise": drawn(3, 4, 8, 8), "mean": mean.detach(), "log_variance": log_variance.detach()}
    prior = Kl()
    found, value = prior.gradient(x, prior.read(["a"] * 3), Moment(0, 1), Rng([0, 1, 2], 0, "kl"))
    assert torch.allclose(value, ours)
    assert not found["noise"].any()
    assert all(torch.allclose(found[name], e) for name, e in zip(("mean", "log_variance"), expected, strict=True))


def test_a_sample_within_the_threshold_is_left_alone() -> None:
    mean = torch.stack([torch.full((4, 8, 8), 0.01), torch.full((4, 8, 8), 0.5)])
    x = {"noise": mean, "mean": mean, "log_variance": torch.zeros_like(mean)}
    prior = Kl(threshold=1e-3)
    found, value = prior.gradient(x, prior.read(["a"] * 2), Moment(0, 1), Rng([0, 1], 0, "kl"))
    assert value[0] < 1e-3 < value[1]
    assert not found["mean"][0].any()
    assert found["mean"][1].all()


def test_mean_and_variance_of_noise_are_learned_and_the_drawn_noise_stays() -> None:
    """The picture of step 0 is that of the plain canvas; from then on noise is eps sigma + mu (InitNO)."""
    settings = {
        "prompts": ["a red circle"],
        "canvas": {"name": "noise", "config": {"parameters": "mean_variance"}},
        "size": 32,
        "referees": [{"name": "clip", "views": "clean"}],
        "priors": [{"name": "kl", "weight": 0.1}],
        "optimizer": {"name": "adam", "lr": 0.01, "eps": 1e-3},
        "steps": 2,
    }
    inversion = Inversion(RunConfig.from_settings(settings))
    plain = Inversion(RunConfig.from_settings({**settings, "priors": [], "canvas": {"name": "noise"}}))
    assert torch.equal(inversion.images(), plain.images())
    eps = inversion.params["noise"].detach().clone()
    for _ in inversion:
        pass
    learned = {name: value.detach() for name, value in inversion.params.items()}
    assert torch.equal(learned["noise"], eps)
    assert learned["mean"].abs().max() > 0
    assert learned["log_variance"].abs().max() > 0
    plain.params["noise"].data.copy_(eps * (learned["log_variance"] / 2).exp() + learned["mean"])
    assert torch.allclose(inversion.images(), plain.images(), atol=1e-6)


@pytest.mark.parametrize(
    ("prior", "parameters", "said"),
    [
        ("kl", "noise", "parameters: mean_variance"),
        ("spectrum", "mean_variance", "parameters: noise"),
        ("gaussian", "mean_variance", "has none"),
    ],
)
def test_a_prior_of_other_parameters_of_noise_is_refused(prior: str, parameters: str, said: str) -> None:
    settings = {
        "prompts": ["a red circle"],
        "canvas": {"name": "noise", "config": {"parameters": parameters}},
        "priors": [{"name": prior}],
    }
    with pytest.raises(RefcoreError, match=said):
        Inversion(RunConfig.from_settings(settings))
