"""Claims about the canvases `multires` and `fourier`: any size, gradients everywhere, round trips, samples apart."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F

from refcore.config.schedule import Linear
from refcore.contracts.canvas import Canvas
from refcore.errors import RefcoreError
from refcore.moment import Moment
from refcore.rng import Rng
from refcore_plugins.canvases.fourier import Fourier
from refcore_plugins.canvases.multires import Multires, evenly_spaced, resolutions
from refcore_plugins.models.colour_decorrelation import from_rgb, to_rgb

CPU = torch.device("cpu")
END = Moment.end(1)
CANVASES = [Multires, Fourier]
SIZES = [(16, 16), (13, 30), (31, 9), (2, 2)]


def loaded(canvas: type[Canvas], size: tuple[int, int], **fields: object) -> Canvas:
    made = canvas(**fields)
    made.load(CPU, torch.float32, size)
    return made


def smooth_images(size: tuple[int, int]) -> Tensor:
    noise = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return F.interpolate(noise, size, mode="bilinear") * 0.9 + 0.05


@pytest.mark.parametrize("canvas", CANVASES)
@pytest.mark.parametrize("size", SIZES)
def test_fresh_images_have_the_size_and_are_nearly_grey(canvas: type[Canvas], size: tuple[int, int]) -> None:
    made = loaded(canvas, size)
    image = made.decode(made.init(Rng([0, 1], 0, "init")), END)
    assert image.shape == (2, 3, *size)
    assert image.dtype == torch.float32
    assert (image - 0.5).abs().max() < 0.2
    assert not torch.equal(image[0], image[1])


@pytest.mark.parametrize("canvas", CANVASES)
@pytest.mark.parametrize("color", ["decorrelated", "rgb"])
@pytest.mark.parametrize("size", SIZES)
def test_decode_inverts_encode(canvas: type[Canvas], color: str, size: tuple[int, int]) -> None:
    made = loaded(canvas, size, color=color)
    images = smooth_images(size)
    torch.testing.assert_close(made.decode(made.encode(images), END), images, atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_a_gray_multires_has_one_channel_and_keeps_greys(size: tuple[int, int]) -> None:
    made = loaded(Multires, size, color="gray")
    params = made.init(Rng([0, 1], 0, "init"))
    assert {value.shape[1] for value in params.values()} == {1}
    images = smooth_images(size).mean(1, keepdim=True).expand(-1, 3, -1, -1)
    torch.testing.assert_close(made.decode(made.encode(images), END), images, atol=1e-4, rtol=0)


@pytest.mark.parametrize("color", ["decorrelated", "rgb", "gray"])
def test_multires_starts_from_its_paper(color: str) -> None:
    made = loaded(Multires, (12, 40), color=color, paper=0.8, noise=0.0)
    image = made.decode(made.init(Rng([0], 0, "init")), END)
    torch.testing.assert_close(image, torch.full((1, 3, 12, 40), 0.8), atol=1e-5, rtol=0)


def test_a_finest_tensor_leaves_no_grain() -> None:
    made = loaded(Multires, (48, 96), finest=24)
    params = made.init(Rng([0], 0, "init"))
    assert max(max(value.shape[-2:]) for value in params.values()) == 24
    fine = torch.rand(1, 3, 48, 96, generator=torch.Generator().manual_seed(0))
    left = made.decode(made.encode(fine), END)
    assert left.shape == fine.shape
    assert left.diff(dim=-1).abs().mean() < 0.2 * fine.diff(dim=-1).abs().mean()


def test_a_sharper_multires_has_the_same_outlines_in_fewer_tones() -> None:
    soft, sharp = (loaded(Multires, (24, 48), color="gray", finest=12, sharpness=s) for s in (1.0, 20.0))
    params = {name: 50 * value for name, value in soft.init(Rng([0], 0, "init")).items()}
    pale, strong = soft.decode(params, END), sharp.decode(params, END)
    assert torch.equal(pale > 0.5, strong > 0.5)
    assert (strong * (1 - strong)).mean() < 0.3 * (pale * (1 - pale)).mean()


def test_a_sharp_multires_starts_from_its_paper_and_encodes_at_step_0() -> None:
    made = loaded(Multires, (12, 40), color="gray", paper=0.8, noise=0.0, sharpness=Linear(start=4, end=1))
    image = made.decode(made.init(Rng([0], 0, "init")), Moment(0, 4))
    torch.testing.assert_close(image, torch.full((1, 3, 12, 40), 0.8), atol=1e-5, rtol=0)
    images = smooth_images((12, 40)).mean(1, keepdim=True).expand(-1, 3, -1, -1)
    torch.testing.assert_close(made.decode(made.encode(images), Moment(0, 4)), images, atol=1e-4, rtol=0)


@pytest.mark.parametrize("canvas", CANVASES)
def test_black_and_white_survive_encoding_to_a_thousandth(canvas: type[Canvas]) -> None:
    made = loaded(canvas, (8, 8))
    images = torch.zeros(1, 3, 8, 8)
    images[..., 4:] = 1.0
    decoded = made.decode(made.encode(images), END)
    assert decoded.isfinite().all()
    torch.testing.assert_close(decoded, images, atol=2e-3, rtol=0)


def test_multires_encodes_coarse_structure_coarsely() -> None:
    """Each resolution takes what is left: an even image lies in the coarsest tensor alone."""
    made = loaded(Multires, (16, 16))
    params = made.encode(torch.full((1, 3, 16, 16), 0.3))
    assert params["level_00"].abs().min() > 0.01
    assert max(value.abs().max() for name, value in params.items() if name != "level_00") < 1e-4


@pytest.mark.parametrize("canvas", CANVASES)
@pytest.mark.parametrize("size", [(16, 16), (6, 11)])
def test_every_parameter_has_a_gradient_and_none_crosses_samples(canvas: type[Canvas], size: tuple[int, int]) -> None:
    made = loaded(canvas, size)
    params = {name: value.requires_grad_() for name, value in made.init(Rng([0, 1], 0, "init")).items()}
    weight = torch.randn(3, *size, generator=torch.Generator().manual_seed(1))
    gradients = torch.autograd.grad((made.decode(params, END)[0] * weight).sum(), list(params.values()))
    for name, gradient in zip(params, gradients, strict=True):
        assert gradient[0].abs().max() > 0, name
        assert not gradient[1].any(), name


@pytest.mark.parametrize("canvas", CANVASES)
def test_gradients_agree_with_differences(canvas: type[Canvas]) -> None:
    made = loaded(canvas, (5, 6))
    params = {name: value.double().requires_grad_() for name, value in made.init(Rng([3], 0, "init")).items()}
    names = list(params)

    def decode(*values: Tensor) -> Tensor:
        return made.decode(dict(zip(names, values, strict=True)), END)

    assert torch.autograd.gradcheck(decode, tuple(params.values()), atol=1e-5)


@pytest.mark.parametrize("canvas", CANVASES)
def test_a_sample_is_the_same_whatever_its_batch(canvas: type[Canvas]) -> None:
    made = loaded(canvas, (12, 10))
    together = made.init(Rng([5, 6, 7], 0, "init"))
    alone = made.init(Rng([6], 0, "init"))
    for name, value in alone.items():
        assert torch.equal(value[0], together[name][1])
    torch.testing.assert_close(made.decode(alone, END)[0], made.decode(together, END)[1], atol=1e-6, rtol=0)


def test_resolutions_go_from_one_pixel_to_full_size() -> None:
    assert resolutions((8, 8), smallest=1, per_octave=1) == [(1, 1), (2, 2), (4, 4), (8, 8)]
    assert resolutions((8, 16), smallest=4, per_octave=1) == [(2, 4), (4, 8), (8, 16)]
    assert resolutions((256, 256), smallest=1, per_octave=2)[-1] == (256, 256)
    assert len(resolutions((256, 256), smallest=1, per_octave=2)) == 16
    assert resolutions((4, 4), smallest=9, per_octave=2) == [(4, 4)]


DAS = {"step": 1, "upsampling": "direct", "color": "rgb", "sharpness": 2.0}
"""Direct Ascent Synthesis: all sizes, each upsampled to full size, and tanh."""


def test_evenly_spaced_resolutions_are_those_of_a_range() -> None:
    assert evenly_spaced((8, 8), smallest=1, step=1) == [(n, n) for n in range(1, 9)]
    assert evenly_spaced((336, 336), smallest=1, step=4) == [(n, n) for n in range(1, 337, 4)]
    assert evenly_spaced((3, 9), smallest=4, step=3) == [(1, 4), (2, 7)]
    assert evenly_spaced((4, 4), smallest=9, step=2) == [(4, 4)]


@pytest.mark.parametrize("size", [(24, 24), (13, 30)])
def test_direct_upsampling_with_a_sharpness_of_2_is_the_image_of_das(size: tuple[int, int]) -> None:
    """(tanh(sum of bicubic upsamplings + atanh(2 paper - 1)) + 1) / 2, and its gradients (arXiv 2502.07753)."""
    made = loaded(Multires, size, **DAS, paper=0.7, noise=0.1)
    params = {name: p.double().requires_grad_() for name, p in made.init(Rng([0, 1], 0, "init")).items()}
    assert len(params) == max(size)
    total = torch.full((2, 3, *size), 2 * 0.7 - 1, dtype=torch.float64).atanh()
    for p in params.values():
        total = total + F.interpolate(p, size, mode="nearest" if p.shape[-2:] == (1, 1) else "bicubic")
    published, image = (total.tanh() + 1) / 2, made.decode(params, END)
    torch.testing.assert_close(image, published, atol=1e-7, rtol=0)
    weight = torch.randn(image.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ours, theirs = (torch.autograd.grad((x * weight).sum(), list(params.values())) for x in (image, published))
    for ours_of, theirs_of in zip(ours, theirs, strict=True):
        torch.testing.assert_close(ours_of, theirs_of, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("fields", [DAS, {"upsampling": "direct"}, {"step": 1}])
@pytest.mark.parametrize("size", SIZES)
def test_decode_inverts_encode_with_every_spacing_and_upsampling(
    fields: dict[str, object], size: tuple[int, int]
) -> None:
    made, images = loaded(Multires, size, **fields), smooth_images(size)
    torch.testing.assert_close(made.decode(made.encode(images), END), images, atol=1e-4, rtol=0)


def test_sizes_that_end_below_the_images_leave_no_grain() -> None:
    fine = torch.rand(1, 3, 24, 48, generator=torch.Generator().manual_seed(0))
    for upsampling in ("cascade", "direct"):
        made = loaded(Multires, (24, 48), step=4, finest=12, upsampling=upsampling)
        params = made.encode(fine)
        assert max(max(value.shape[-2:]) for value in params.values()) == 9
        left = made.decode(params, END)
        assert left.diff(dim=-1).abs().mean() < 0.2 * fine.diff(dim=-1).abs().mean()


def test_two_spacings_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"step is 2 and per_octave is 1; expected one of them"):
        Multires(step=2, per_octave=1)


def test_fourier_moves_low_frequencies_most() -> None:
    made = loaded(Fourier, (16, 16), color="rgb")
    still = {"spectrum": torch.zeros(1, 3, 16, 9, 2)}

    def change(row: int) -> float:
        moved = {"spectrum": still["spectrum"].clone()}
        moved["spectrum"][:, :, row, 0, 0] = 1.0
        return (made.decode(moved, END) - made.decode(still, END)).norm().item()

    assert change(1) > 2 * change(4) > 2 * change(8)


def test_decorrelated_colours_are_mostly_brightness_and_invert() -> None:
    colours = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(from_rgb(to_rgb(colours)), colours, atol=1e-4, rtol=1e-4)
    axes = to_rgb(torch.eye(3).reshape(3, 3, 1, 1))[:, :, 0, 0]
    assert axes[0].min() > 0.9 * axes[0].max()
    assert axes[0].norm() > 3 * axes[1].norm() > 3 * axes[2].norm()


@pytest.mark.parametrize("canvas", CANVASES)
def test_an_empty_size_is_refused(canvas: type[Canvas]) -> None:
    with pytest.raises(RefcoreError, match=r"size 0x16 .*the nearest is [12]x16"):
        loaded(canvas, (0, 16))


@pytest.mark.fault("4.14")
def test_the_gain_of_multires_is_that_of_the_step_and_a_start_from_an_image_that_of_step_0() -> None:
    moving, params = loaded(Multires, (16, 16), gain=Linear(start=-1, end=1)), None
    for step in range(5):  # the last is the end of the run
        still = loaded(Multires, (16, 16), gain=-1 + step / 2)
        params = params or {n: 50 * v for n, v in still.init(Rng([0], 0, "init")).items()}
        torch.testing.assert_close(moving.decode(params, Moment(step, 4)), still.decode(params, END))
    assert not torch.allclose(moving.decode(params, Moment(0, 4)), moving.decode(params, Moment.end(4)), atol=1e-3)
    image = moving.decode(params, Moment(0, 4))
    torch.testing.assert_close(moving.decode(moving.encode(image), Moment(0, 4)), image, atol=1e-4, rtol=0)
