"""The `vq` canvas: parity with diffusers' VQModel, the straight-through gradient, bounds, starts and broken folders."""

from __future__ import annotations

import json
import unittest
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models import VQModel
from torch import Tensor

from refcore.config.run import RunConfig
from refcore.engine.inversion import Inversion
from refcore.errors import CheckpointError, RefcoreError
from refcore.moment import Moment
from refcore.rng import Rng
from refcore.testing import suite
from refcore_plugins.canvases.vq import Vq, clamp_inward, nearest

CPU = torch.device("cpu")
END = Moment.end(1)


def made(**fields: Any) -> VQModel:
    """A VQModel of random weights, four pixels a latent, with five channels and 20 entries."""
    torch.manual_seed(0)
    model = VQModel(
        **{
            "down_block_types": ("DownEncoderBlock2D",) * 3,
            "up_block_types": ("UpDecoderBlock2D",) * 3,
            "block_out_channels": (8, 8, 8),
            "norm_num_groups": 4,
            "latent_channels": 4,
            "vq_embed_dim": 5,
            "num_vq_embeddings": 20,
            "sample_size": 32,
            **fields,
        }
    )
    model.quantize.embedding.weight.data.normal_()  # diffusers' own start lies within 1 / entries of 0
    return model.eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("vq")
    made().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def model(folder: str) -> VQModel:
    return VQModel.from_pretrained(folder, low_cpu_mem_usage=False).eval()


def load(folder: str, of_run: torch.dtype = torch.float32, size: tuple[int, int] | None = (16, 24)) -> Vq:
    canvas = Vq(model=folder)
    canvas.load(CPU, of_run, size)
    return canvas


def rng(*seeds: int) -> Rng:
    return Rng(seeds, 0, "init")


def around(canvas: Vq, *seeds: int) -> Tensor:
    """Latents that are no entries of the codebook, some of them beyond its bounds."""
    start = canvas.init(rng(*seeds))["codes"]
    return start + torch.randn(start.shape, generator=torch.Generator().manual_seed(0))


def test_it_keeps_the_contract_of_a_canvas(folder: str) -> None:
    checks = suite(
        Vq(model=folder),
        size=(16, 24),
        skip={
            "gradient_right": "the gradient at the nearest entry is passed on to the latent (straight-through)",
            "start_from_an_image": "an image of random weights is not that of their encoder",
        },
    )()
    for name in dir(checks):
        if name.startswith("test_"):
            try:
                getattr(checks, name)()
            except unittest.SkipTest:
                continue


def test_decoding_is_diffusers_decoding_with_its_own_quantisation(folder: str, model: VQModel) -> None:
    canvas = load(folder)
    z = around(canvas, 0, 1)
    low, high = model.quantize.embedding.weight.detach().aminmax(dim=0)
    kept = z.clamp(low.view(1, -1, 1, 1), high.view(1, -1, 1, 1))
    with torch.no_grad():
        expected = ((model.decode(kept).sample + 1) / 2).clamp(0, 1)
    image = canvas.decode({"codes": z}, END)
    assert image.shape == (2, 3, 16, 24)
    assert not torch.equal(z, kept)
    torch.testing.assert_close(image, expected, atol=1e-5, rtol=0)


def test_nearest_is_the_entry_of_least_distance_at_every_place() -> None:
    drawn = torch.Generator().manual_seed(0)
    codebook, z = torch.randn(30, 4, generator=drawn), torch.randn(2, 4, 3, 5, generator=drawn)
    found = nearest(z, codebook)
    for b in range(2):
        for y in range(3):
            for x in range(5):
                distances = [(z[b, :, y, x] - entry).norm().item() for entry in codebook]
                assert torch.equal(found[b, :, y, x], codebook[distances.index(min(distances))])


def test_the_gradient_at_the_entries_is_that_of_the_latent(folder: str, model: VQModel) -> None:
    canvas = load(folder, torch.float64)
    exact = model.double()
    z = canvas.init(rng(0, 1))["codes"].double()
    z = (z + 0.01 * torch.randn(z.shape, generator=torch.Generator().manual_seed(0))).requires_grad_()
    low, high = canvas._low.double(), canvas._high.double()
    cotangent = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (gradient,) = torch.autograd.grad(canvas.decode({"codes": z}, END), z, cotangent)
    entries = nearest(z, exact.quantize.embedding.weight).detach().requires_grad_()
    image = (exact.decode(entries, force_not_quantize=True).sample + 1) / 2
    inside = cotangent * (cotangent * (image - image.clamp(0, 1)) >= 0)
    (expected,) = torch.autograd.grad(image, entries, inside)
    expected = expected * (expected * (z - z.clamp(low, high)) >= 0)
    model.float()
    assert gradient.abs().max() > 0
    torch.testing.assert_close(gradient, expected, atol=1e-9, rtol=1e-6)


def test_a_clamp_passes_on_the_gradient_that_leads_back_inside() -> None:
    x = torch.tensor([-1.0, -1.0, 0.5, 0.5, 2.0, 2.0], requires_grad=True)
    clamped = clamp_inward(x, torch.tensor(0.0), torch.tensor(1.0))
    assert clamped.tolist() == [0, 0, 0.5, 0.5, 1, 1]
    (gradient,) = torch.autograd.grad(clamped, x, torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0]))
    assert gradient.tolist() == [0, -1, 1, -1, 1, 0]  # a descent step moves x against it


def test_a_start_has_an_entry_at_each_place_drawn_for_the_sample_alone(folder: str, model: VQModel) -> None:
    canvas = load(folder)
    start = canvas.init(rng(3, 4))["codes"]
    assert start.shape == (2, 5, 4, 6)
    entries = {tuple(entry.tolist()) for entry in model.quantize.embedding.weight}
    places = {tuple(place.tolist()) for place in start.movedim(1, -1).reshape(-1, 5)}
    assert len(places) > 8
    assert places <= entries
    assert torch.equal(start[1:], canvas.init(rng(4))["codes"])


def test_encoding_is_diffusers_encoding(folder: str, model: VQModel) -> None:
    images = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model.encode(images * 2 - 1).latents
    torch.testing.assert_close(load(folder).encode(images)["codes"], expected)


def test_each_image_and_gradient_is_that_of_the_sample_alone(folder: str) -> None:
    canvas = load(folder, torch.float64)
    z = around(canvas, 0, 1, 2).double().requires_grad_()
    images = canvas.decode({"codes": z}, END)
    (gradient,) = torch.autograd.grad(images[1].square().sum(), z)
    assert gradient[1].any()
    assert not gradient[[0, 2]].any()
    torch.testing.assert_close(images[1:2], canvas.decode({"codes": z[1:2]}, END), atol=1e-12, rtol=0)


def test_a_run_moves_it_and_refuses_a_size_between(folder: str) -> None:
    settings = {
        "prompts": ["a red circle"],
        "seeds": [0],
        "canvas": {"name": "vq", "config": {"model": folder}},
        "priors": [{"name": "l2", "config": {"target": 1.0}}],
        "size": 16,
        "steps": 5,
        "optimizer": {"name": "adam", "lr": 0.1},
        "device": "cpu",
    }
    losses = [result.losses["l2"].item() for result in Inversion(RunConfig.from_settings(settings))]
    assert losses[-1] < losses[0]
    with pytest.raises(RefcoreError, match=r"18x16.*multiple of 4.*20x16"):
        Inversion(RunConfig.from_settings({**settings, "size": [18, 16]}))


def test_the_vqvae_of_a_pipeline_is_found_and_its_size_is_the_default(folder: str, tmp_path: Path) -> None:
    made().save_pretrained(tmp_path / "vqvae")
    found = load(str(tmp_path), size=None)
    assert found.size == (32, 32)
    params = found.init(rng(0))
    assert torch.equal(found.decode(params, END), load(folder, size=None).decode(params, END))


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda f: (f / "config.json").unlink(), "no config.json"),
        (lambda f: _say(f, _class_name="AutoencoderKL"), "AutoencoderKL; expected diffusers' VQModel"),
        (lambda f: _say(f, lookup_from_codebook=True), "lookup_from_codebook.*expected a VQModel without that"),
        (lambda f: (f / "diffusion_pytorch_model.safetensors").write_bytes(b"no"), "cannot be loaded"),
        (lambda f: (f / "diffusion_pytorch_model.safetensors").unlink(), "cannot be loaded"),
    ],
    ids=["no config", "another kind", "numbers of entries", "corrupt weights", "no weights"],
)
def test_a_broken_folder_is_one_clear_error(tmp_path: Path, break_it: Any, said: str) -> None:
    made().save_pretrained(tmp_path)
    break_it(tmp_path)
    with pytest.raises(CheckpointError, match=said) as caught:
        load(str(tmp_path))
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def _say(folder: Path, **fields: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))
