"""The `inr` canvas: SIREN and FINER as their equations say, a network for each sample, and memory in chunks."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from performance.measure import peak_bytes
from refcore.config.run import RunConfig
from refcore.engine.inversion import Inversion
from refcore.engine.memory import graph_bytes
from refcore.errors import RefcoreError
from refcore.moment import Moment
from refcore.rng import Rng
from refcore_plugins.canvases.inr import Inr, coordinates

CPU = torch.device("cpu")
END = Moment.end(1)
ACTIVATIONS = ["siren", "finer"]
SMALL: dict[str, Any] = {
    "prompts": ["a red circle"],
    "seeds": [0],
    "canvas": {"name": "inr", "config": {"layers": 3, "hidden": 8}},
    "priors": [{"name": "tv"}],
    "size": 16,
    "steps": 7,
    "device": "cpu",
}


def loaded(size: tuple[int, int] = (9, 12), **fields: Any) -> Inr:
    canvas = Inr(**{"layers": 3, "hidden": 16, **fields})
    canvas.load(CPU, torch.float32, size)
    return canvas


def rng(*seeds: int) -> Rng:
    return Rng(seeds, 0, "init")


def doubled(params: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.double() for name, value in params.items()}


class Plain(nn.Module):
    """One sample's network, transcribed from the papers' equations with nn.Linear, apart from the canvas."""

    def __init__(self, params: dict[str, Tensor], sample: int, activation: str, w0_first: float, w0: float) -> None:
        super().__init__()
        self.linears = nn.ModuleList()
        for layer in range(len(params) // 2):
            weight, bias = params[f"layer{layer}.weight"][sample], params[f"layer{layer}.bias"][sample]
            linear = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
            linear.weight.data.copy_(weight)
            linear.bias.data.copy_(bias)
            self.linears.append(linear)
        self.activation, self.w0_first, self.w0 = activation, w0_first, w0

    def forward(self, height: int, width: int) -> Tensor:
        longest = max(height, width) - 1
        y = torch.linspace(-(height - 1) / longest, (height - 1) / longest, height, dtype=torch.float64)
        x = torch.linspace(-(width - 1) / longest, (width - 1) / longest, width, dtype=torch.float64)
        h = torch.stack([y[:, None].expand(height, width), x[None].expand(height, width)], dim=-1)
        for layer, linear in enumerate(self.linears[:-1]):
            z = linear(h)
            omega = self.w0_first if layer == 0 else self.w0
            h = torch.sin(omega * z) if self.activation == "siren" else torch.sin(omega * (torch.abs(z) + 1) * z)
        return ((self.linears[-1](h) + 1) / 2).clamp(0, 1).permute(2, 0, 1)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("size", [(8, 8), (9, 12)])
def test_each_image_is_that_of_a_plain_network_of_linear_modules(activation: str, size: tuple[int, int]) -> None:
    canvas = loaded(size, activation=activation, w0_first=20.0, w0=10.0)
    params = doubled(canvas.init(rng(0, 1, 2)))
    images = canvas.decode(params, END)
    assert images.std() > 0.02
    for sample in range(3):
        plain = Plain(params, sample, activation, 20.0, 10.0)
        torch.testing.assert_close(images[sample], plain(*size), atol=1e-9, rtol=0)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_twenty_steps_of_adam_are_those_of_a_plain_network(activation: str) -> None:
    size = (8, 10)
    canvas = loaded(size, activation=activation, w0_first=20.0, w0=10.0)
    target = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    params = doubled(canvas.init(rng(4, 5)))
    plains = [Plain(params, sample, activation, 20.0, 10.0) for sample in range(2)]
    leaves = [value.requires_grad_() for value in params.values()]
    together = torch.optim.Adam(leaves, lr=1e-3)
    apart = [torch.optim.Adam(plain.parameters(), lr=1e-3) for plain in plains]
    losses = []
    for _ in range(20):
        own = (canvas.decode(params, END) - target).square().flatten(1).mean(1)
        together.zero_grad()
        own.sum().backward()
        together.step()
        losses.append(own.mean().item())
        for sample, (plain, optimizer) in enumerate(zip(plains, apart, strict=True)):
            loss = F.mse_loss(plain(*size), target[sample])
            assert loss.item() == pytest.approx(own[sample].item(), abs=1e-6)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            for layer, linear in enumerate(plain.linears):
                torch.testing.assert_close(params[f"layer{layer}.weight"][sample], linear.weight, atol=1e-6, rtol=0)
                torch.testing.assert_close(params[f"layer{layer}.bias"][sample], linear.bias, atol=1e-6, rtol=0)
    assert losses[-1] < 0.9 * losses[0]


def test_parameters_are_those_of_each_layer_and_weights_start_within_sirens_bounds() -> None:
    params = loaded(layers=2, hidden=64, w0=20.0).init(rng(0, 1, 2))
    widths = [2, 64, 64, 3]
    assert list(params) == [f"layer{layer}.{part}" for layer in range(3) for part in ("weight", "bias")]
    for layer, (inputs, outputs) in enumerate(pairwise(widths)):
        weight, bias = params[f"layer{layer}.weight"], params[f"layer{layer}.bias"]
        assert (weight.shape, bias.shape) == ((3, outputs, inputs), (3, outputs))
        bound = 1 / 2 if layer == 0 else math.sqrt(6 / inputs) / 20
        assert 0.9 * bound < weight.abs().max() <= bound
        assert 0.6 / math.sqrt(inputs) < bias.abs().max() <= 1 / math.sqrt(inputs)
    assert not torch.equal(params["layer0.weight"][0], params["layer0.weight"][1])


@pytest.mark.parametrize(
    ("activation", "bias", "bound"), [("finer", None, 1.0), ("finer", 20.0, 20.0), ("siren", 0.5, 0.5)]
)
def test_the_first_layers_biases_reach_as_far_as_the_config_says(activation: str, bias: float, bound: float) -> None:
    params = loaded(hidden=256, activation=activation, bias=bias).init(rng(0))
    assert 0.95 * bound < params["layer0.bias"].abs().max() <= bound
    assert params["layer1.bias"].abs().max() <= 1 / 16


def test_larger_first_biases_of_finer_draw_finer_detail() -> None:
    def roughness(bias: float) -> float:
        canvas = loaded((32, 32), layers=1, hidden=256, activation="finer", bias=bias, w0_first=10.0)
        images = canvas.decode(canvas.init(rng(*range(8))), END)
        return (images.diff(dim=-1).square().mean() / images.var()).item()

    assert roughness(0.0) < roughness(1.0) < roughness(3.0)


def test_places_go_from_minus_one_to_one_along_the_longer_side() -> None:
    places = coordinates((3, 5)).reshape(3, 5, 2)
    assert torch.equal(places[1, :, 1], torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0]))
    assert torch.equal(places[:, 0, 0], torch.tensor([-0.5, 0.0, 0.5]))
    assert torch.equal(coordinates((1, 1)), torch.zeros(1, 2))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("chunk", [1, 7, 50, 107])
def test_chunks_change_neither_image_nor_gradient(activation: str, chunk: int) -> None:
    whole, chunked = (loaded(activation=activation, w0=5.0, chunk=c) for c in (None, chunk))
    params = {name: value.requires_grad_() for name, value in doubled(whole.init(rng(0, 1))).items()}
    cotangent = torch.rand(2, 3, 9, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    images = [canvas.decode(params, END) for canvas in (whole, chunked)]
    torch.testing.assert_close(images[0], images[1], atol=1e-12, rtol=0)
    for scale in (1, 2):  # a combiner may pull back twice
        gradients = [
            torch.autograd.grad(image, list(params.values()), scale * cotangent, retain_graph=True) for image in images
        ]
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, atol=1e-11, rtol=1e-9)


def test_chunks_keep_no_activations_and_peak_at_those_of_one_chunk() -> None:
    """At 128 x 128 pixels, ten sines 64 wide keep 2 x 10 x 64 numbers a pixel: 84 MB. A chunk of 1,024 has 5 MB."""

    def cost(chunk: int | None) -> tuple[int, int]:
        canvas = loaded((128, 128), layers=10, hidden=64, chunk=chunk)
        params = {name: value.requires_grad_() for name, value in canvas.init(rng(0)).items()}
        kept = graph_bytes(lambda: canvas.decode(params, END))
        return kept, peak_bytes(lambda: canvas.decode(params, END).sum().backward())

    (whole, whole_peak), (kept, peak) = cost(None), cost(1024)
    assert whole > 80e6
    assert kept < whole / 20
    assert peak < whole_peak / 5


@pytest.mark.parametrize("chunk", [None, 40])
def test_a_sample_meets_no_other(chunk: int | None) -> None:
    canvas = loaded(chunk=chunk)
    together, alone = canvas.init(rng(5, 6, 7)), canvas.init(rng(6))
    for name, value in alone.items():
        assert torch.equal(value[0], together[name][1])
    leaves = {name: value.requires_grad_() for name, value in together.items()}
    images = canvas.decode(leaves, END)
    torch.testing.assert_close(images[1:2], canvas.decode(alone, END), atol=1e-6, rtol=0)
    for gradient in torch.autograd.grad(images[1].sum(), list(leaves.values())):
        assert gradient[1].any()
        assert not gradient[[0, 2]].any()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("squash", ["clamp", "sigmoid"])
def test_gradients_agree_with_differences(activation: str, squash: str) -> None:
    canvas = loaded((3, 4), layers=2, hidden=4, activation=activation, squash=squash, w0_first=5.0, w0=3.0)
    params = {name: value.requires_grad_() for name, value in doubled(canvas.init(rng(3))).items()}
    names = list(params)

    def decode(*values: Tensor) -> Tensor:
        return canvas.decode(dict(zip(names, values, strict=True)), END)

    assert torch.autograd.gradcheck(decode, tuple(params.values()), atol=1e-5)


def test_both_squashes_are_the_same_around_grey() -> None:
    params = {name: 0.1 * value for name, value in loaded().init(rng(0)).items()}
    images = [loaded(squash=squash).decode(params, END) for squash in ("clamp", "sigmoid")]
    assert images[0].std() > 1e-3
    torch.testing.assert_close(images[0], images[1], atol=1e-3, rtol=0)


def smooth_images(size: tuple[int, int]) -> Tensor:
    noise = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return F.interpolate(noise, size, mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("squash", ["clamp", "sigmoid"])
def test_a_network_is_fitted_to_the_image_that_it_starts_from(activation: str, squash: str) -> None:
    canvas = loaded(
        (16, 20), layers=2, hidden=48, activation=activation, squash=squash, encode_lr=3e-3, encode_steps=100
    )
    images = smooth_images((16, 20))
    with torch.no_grad():
        params = canvas.encode(images)
    assert not any(value.requires_grad for value in params.values())
    assert (canvas.decode(params, END) - images).abs().mean() < 0.02


def test_a_fitted_network_is_that_of_its_image_alone_and_the_same_each_time() -> None:
    canvas, images = loaded((16, 20), encode_steps=3), smooth_images((16, 20))
    params, again, alone = canvas.encode(images), canvas.encode(images), canvas.encode(images[1:])
    for name, value in params.items():
        assert torch.equal(value, again[name])
        torch.testing.assert_close(value[1], alone[name][0], atol=1e-6, rtol=0)


def test_more_steps_fit_an_image_better() -> None:
    images = smooth_images((16, 16))
    few, many = (loaded((16, 16), encode_steps=steps) for steps in (5, 100))
    errors = [(canvas.decode(canvas.encode(images), END) - images).square().mean() for canvas in (few, many)]
    assert errors[1] < errors[0] / 2


def test_autocast_leaves_places_and_sines_in_full_precision() -> None:
    canvas = loaded((16, 16))
    params = canvas.init(rng(0))
    with torch.autocast("cpu", torch.bfloat16):
        cast = canvas.decode(params, END)
    assert torch.equal(cast, canvas.decode(params, END))


def test_a_frequency_schedule_moves_early_layers_first() -> None:
    """CLIP^-1's bump of the learning rate over layers, by `optimizer.lr` with a `gaussian` for each layer."""
    rates = {
        f"layer{layer}.*": {"kind": "gaussian", "peak": 1e-3, "centre": layer / 3, "width": 0.02} for layer in range(4)
    }
    settings = {**SMALL, "optimizer": {"name": "sgd", "lr": rates}}
    inversion = Inversion(RunConfig.from_settings(settings))
    assert next(inversion).lr["layer0.*"] == 1e-3
    first = {name: value.clone() for name, value in inversion.params.items()}
    for _ in inversion:
        pass
    moved = {name for name, value in inversion.params.items() if not torch.equal(value, first[name])}
    assert "layer0.weight" not in moved
    assert {"layer1.weight", "layer2.weight"} <= moved


def test_an_empty_size_and_an_image_of_another_size_are_refused() -> None:
    with pytest.raises(RefcoreError, match=r"size 0x5 .*the nearest is 1x5"):
        loaded((0, 5))
    with pytest.raises(RefcoreError, match=r"8x8.*9x12"):
        loaded().encode(torch.rand(1, 3, 8, 8))


def test_a_tensor_that_it_does_not_have_is_answered_with_those_that_it_has() -> None:
    config = RunConfig.from_settings({**SMALL, "optimizer": {"lr": {"layer9.*": 0.1, "*": 0.01}}})
    with pytest.raises(RefcoreError, match=r'unknown tensor of the canvas "layer9\.\*" in optimizer\.lr'):
        Inversion(config)
