"""The shipped transforms: each is its equation, and keeps the contract."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from refcore import registry
from refcore.errors import RefcoreError
from refcore.moment import Moment
from refcore.testing import suite
from refcore_plugins.transforms.elements import Clamp, Sign
from refcore_plugins.transforms.norms import Clip, Normalize, Renormalize
from refcore_plugins.transforms.spectral import Spectral, amplitudes, spectrally_scaled
from refcore_plugins.transforms.white_noise import (
    WhiteNoise,
    compact_spectrum,
    from_compact_spectrum,
    projected_magnitudes,
    white,
)

TestClip, TestNormalize, TestRenormalize = suite(Clip), suite(Normalize), suite(Renormalize)
TestClamp, TestSign, TestSpectral, TestWhiteNoise = suite(Clamp), suite(Sign), suite(Spectral), suite(WhiteNoise)
AT = Moment(0, 2)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_every_shipped_transform_is_registered() -> None:
    for cls in (Clip, Normalize, Renormalize, Clamp, Sign, Spectral, WhiteNoise):
        assert registry.get("transforms", cls.name) is cls


def test_a_clipped_gradient_has_at_most_that_norm_over_all_tensors_and_a_shorter_one_stays() -> None:
    x = {"a": torch.tensor([[3.0, 0.0], [0.3, 0.0]]), "b": torch.tensor([[4.0], [0.4]])}
    clipped = Clip(norm=1.0).apply(x, x, AT)
    assert torch.allclose(clipped["a"], torch.tensor([[0.6, 0.0], [0.3, 0.0]]))
    assert torch.allclose(clipped["b"], torch.tensor([[0.8], [0.4]]))


def test_a_clip_follows_its_schedule() -> None:
    falling = Clip(norm={"kind": "linear", "start": 2.0, "end": 1.0})
    x = {"a": torch.full((1, 1), 5.0)}
    assert [falling.apply(x, x, Moment(step, 2))["a"].item() for step in (0, 1)] == [2.0, 1.5]


def test_a_normalised_gradient_has_that_norm_over_all_tensors() -> None:
    x = {"a": drawn(2, 3, 4), "b": 10 * drawn(2, 5)}
    changed = Normalize(norm=3.0).apply(x, x, AT)
    norms = torch.cat([value.flatten(1) for value in changed.values()], 1).norm(dim=1)
    assert torch.allclose(norms, torch.full_like(norms, 3.0))
    assert torch.allclose(changed["a"] / x["a"], (changed["b"][:, :1] / x["b"][:, :1])[..., None])


def test_renormalised_parameters_have_the_norm_of_before_tensor_by_tensor() -> None:
    x, before = {"a": drawn(2, 4), "b": drawn(2, 3)}, {"a": drawn(2, 4, seed=1), "b": torch.zeros(2, 3).double()}
    changed = Renormalize().apply(x, before, AT)
    assert torch.allclose(changed["a"].norm(dim=1), before["a"].norm(dim=1))
    assert torch.equal(changed["b"], x["b"])


def test_elements_are_clamped_or_become_their_signs() -> None:
    x = {"a": torch.tensor([[-3.0, 0.0, 0.0005]])}
    assert torch.equal(Clamp(limit=0.001).apply(x, x, AT)["a"], torch.tensor([[-0.001, 0.0, 0.0005]]))
    assert torch.equal(Sign().apply(x, x, AT)["a"], torch.tensor([[-1.0, 0.0, 1.0]]))


@pytest.mark.parametrize("size", [(8, 8), (7, 9)])
def test_the_compact_spectrum_is_orthonormal_and_goes_back(size: tuple[int, int]) -> None:
    x = drawn(3, 2 * size[0] * size[1])
    y = compact_spectrum(x)
    assert y.shape == (3, size[0] * size[1])
    assert torch.allclose(2 * y.abs().square().sum(1), x.square().sum(1))
    assert torch.allclose(from_compact_spectrum(y), x)


def test_projected_blocks_have_the_sums_of_white_noise() -> None:
    for block in (4, 16, 64):
        for scale in (1e-9, 1.0, 1e6):
            found = projected_magnitudes(scale * drawn(200, block).abs())
            assert torch.allclose(found.sum(-1), torch.full((200,), math.sqrt(math.pi) / 2 * block).double())
            assert torch.allclose(found.square().sum(-1), torch.full((200,), float(block)).double())


def test_no_other_magnitudes_with_these_sums_are_nearer() -> None:
    """Points of the set near the one that was found are no nearer to the magnitudes."""
    block = 16
    m = drawn(50, block).abs()
    found = projected_magnitudes(m)
    generator = np.random.default_rng(0)
    for own, near in zip(m, found, strict=True):
        distance = (own - near).square().sum()
        for _ in range(200):
            other = projected_magnitudes((near + torch.from_numpy(generator.normal(0, 0.3, block))).abs())
            assert (own - other).square().sum() >= distance - 1e-9


@pytest.mark.parametrize("seed", range(5))
def test_white_noise_hardly_changes(seed: int) -> None:
    """GPER's figure: a Gaussian latent of SD-Turbo's size and its projection have a cosine of at least .988."""
    x = drawn(4, 4 * 64 * 64, seed=seed)
    cosine = torch.nn.functional.cosine_similarity(x, white(x, 16))
    assert cosine.min() >= 0.988
    assert cosine.max() < 1


def test_a_smooth_gradient_gets_a_white_spectrum_and_keeps_its_phases() -> None:
    ramp = torch.linspace(-1, 1, 4096, dtype=torch.float64).cumsum(0)[None]
    found = compact_spectrum(white(ramp, 16))
    blocks = found.abs().view(1, -1, 16)
    assert torch.allclose(blocks.square().sum(-1), torch.full_like(blocks[..., 0], 16.0))
    before = compact_spectrum(ramp)
    turned = (found / before).angle()[0, 1:-1]
    assert turned[found[0, 1:-1].abs() > 1e-6].abs().max() < 1e-6
    assert torch.allclose(white(ramp, 16).norm(), torch.tensor(64.0).double())


def test_a_projection_projected_again_stays() -> None:
    once = white(drawn(2, 512), 16)
    assert torch.allclose(white(once, 16), once, atol=1e-9)


def test_a_tensor_that_no_block_divides_is_refused_by_name() -> None:
    x = {"latent": drawn(1, 3, 5, 5)}
    with pytest.raises(RefcoreError, match='"latent" has 75 elements a sample, no multiple of twice the block, 32'):
        WhiteNoise().apply(x, x, AT)


def test_a_step_with_spectral_scaling_is_one_of_the_images_scaled_fourier_coefficients() -> None:
    """`x = F^-1 s z`: a step of z against the gradient of <g, x> moves x by the scaled gradient."""
    g = drawn(2, 3, 8, 12)
    half = amplitudes(8, 12, 1.0, g)
    s = torch.cat([half, half[:, 1:-1].flip(1)], dim=1)  # negative frequencies are as far from 0 as positive ones
    z = torch.zeros(2, 3, 8, 12, dtype=torch.complex128, requires_grad=True)
    (slope,) = torch.autograd.grad((torch.fft.ifft2(z * s, norm="ortho").real * g).sum(), z)
    assert torch.allclose(torch.fft.ifft2(slope * s, norm="ortho").real, spectrally_scaled(g, 1.0))
    assert half[0, 0] == 1
    assert half.min() < 0.2


def test_spectral_scaling_needs_rows_and_columns() -> None:
    x = {"points": drawn(1, 5)}
    with pytest.raises(RefcoreError, match=r"no tensor of the canvas has channels, rows and columns \(points \[5\]\)"):
        Spectral().apply(x, x, AT)
