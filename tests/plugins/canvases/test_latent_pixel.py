"""The latent and pixel canvases: parity with diffusers, sizes, starts, clamps and batches."""

import json

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny

from performance.measure import peak_bytes
from refcore.config.run import RunConfig
from refcore.engine.inversion import Inversion
from refcore.engine.memory import graph_bytes
from refcore.errors import CheckpointError, NonFiniteError, RefcoreError
from refcore.moment import Moment
from refcore.rng import Rng
from refcore_plugins.canvases.latent import Latent
from refcore_plugins.canvases.pixel import Pixel
from refcore_plugins.models import autoencoder as autoencoders

CPU = torch.device("cpu")
END = Moment.end(1)
FACTOR = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A bare autoencoder of random weights, four pixels a latent, with a shift as well as a scale."""
    torch.manual_seed(0)
    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 8),
        norm_num_groups=4,
        sample_size=32,
        scaling_factor=0.5,
        shift_factor=0.25,
    )
    folder = tmp_path_factory.mktemp("autoencoder")
    model.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def model(folder):
    return AutoencoderKL.from_pretrained(folder, low_cpu_mem_usage=False).eval()


def load(folder, of_run=torch.float32, size=(16, 24), **fields):
    canvas = Latent(model=folder, **fields)
    canvas.load(CPU, of_run, size)
    return canvas


def rng(*seeds):
    return Rng(seeds, 0, "init")


def test_the_start_is_a_standard_normal_latent_of_the_sample_alone(folder):
    canvas = load(folder, size=(64, 96))
    latent = canvas.init(rng(3, 4))["latent"]
    assert latent.shape == (2, 4, 16, 24)
    assert latent.dtype == torch.float32
    assert latent.mean().abs() < 0.05
    assert latent.std() == pytest.approx(1, abs=0.05)
    assert torch.equal(latent[1:], canvas.init(rng(4))["latent"])
    assert canvas.latent_name() == "latent"


def test_decoding_is_diffusers_decoding(folder, model):
    canvas = load(folder)
    params = canvas.init(rng(0, 1))
    with torch.no_grad():
        expected = ((model.decode(params["latent"] / 0.5 + 0.25).sample + 1) / 2).clamp(0, 1)
    image = canvas.decode(params, END)
    assert image.shape == (2, 3, 16, 24)
    torch.testing.assert_close(image, expected)


def test_encoding_is_diffusers_posterior_mode(folder, model):
    canvas = load(folder)
    images = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = (model.encode(images * 2 - 1).latent_dist.mode() - 0.25) * 0.5
    torch.testing.assert_close(canvas.encode(images)["latent"], expected)


def test_each_image_and_gradient_is_that_of_the_sample_alone(folder):
    canvas = load(folder, torch.float64)
    latent = canvas.init(rng(0, 1, 2))["latent"].double().requires_grad_()
    cotangent = torch.rand(3, 3, 16, 24, dtype=torch.float64)
    image = canvas.decode({"latent": latent}, END)
    (gradient,) = torch.autograd.grad(image, latent, cotangent)
    for i in range(3):
        alone = latent[i : i + 1].detach().requires_grad_()
        image_alone = canvas.decode({"latent": alone}, END)
        (gradient_alone,) = torch.autograd.grad(image_alone, alone, cotangent[i : i + 1])
        torch.testing.assert_close(image[i : i + 1], image_alone, atol=1e-12, rtol=1e-10)
        torch.testing.assert_close(gradient[i : i + 1], gradient_alone, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("recompute", ["blocks", "image"])
def test_recomputing_changes_neither_image_nor_gradient(folder, recompute):
    plain, recomputing = load(folder), load(folder, recompute=recompute)
    latent = plain.init(rng(0, 1))["latent"].requires_grad_()
    images = [c.decode({"latent": latent}, END) for c in (plain, recomputing)]
    torch.testing.assert_close(images[0], images[1])
    for cotangent in (torch.ones_like(images[0]), torch.rand_like(images[0])):  # a combiner may pull back twice
        gradients = [torch.autograd.grad(image, latent, cotangent, retain_graph=True)[0] for image in images]
        torch.testing.assert_close(gradients[0], gradients[1])
    with torch.no_grad():
        assert torch.equal(recomputing.decode({"latent": latent}, END), images[1])


def test_recomputing_bounds_the_memory_of_a_batch(folder):
    """What is held while the referees judge, and the highest point of decode and pull-back, over those of keeping."""
    held, peaks = {}, {}
    for recompute in ("nothing", "blocks", "image"):
        canvas = load(folder, size=(64, 64), recompute=recompute)
        latent = canvas.init(rng(0, 1, 2, 3))["latent"].requires_grad_()

        def step(canvas=canvas, latent=latent):
            image = canvas.decode({"latent": latent}, END)
            torch.autograd.grad(image.sum(), latent)

        peaks[recompute] = peak_bytes(step)
        if recompute != "image":  # torch keeps a wholly checkpointed graph for ever if its backward never comes
            held[recompute] = graph_bytes(lambda canvas=canvas, latent=latent: canvas.decode({"latent": latent}, END))
    assert held["blocks"] < 0.4 * held["nothing"]
    assert peaks["image"] < 0.5 * peaks["nothing"]
    assert peaks["blocks"] < 0.5 * peaks["nothing"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    torch.manual_seed(1)
    model = AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
    )
    folder = tmp_path_factory.mktemp("tiny")
    model.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("recompute", ["nothing", "image"])
def test_gradients_go_through_the_tiny_decoder_and_looks_through_the_full_one(folder, tiny, recompute):
    full, both = load(folder), load(folder, gradient_decoder=tiny, recompute=recompute)
    latent = full.init(rng(0, 1))["latent"].requires_grad_()
    own = AutoencoderTiny.from_pretrained(tiny, low_cpu_mem_usage=False).eval()
    torch.testing.assert_close(both.decode({"latent": latent}, END), ((own.decode(latent).sample + 1) / 2).clamp(0, 1))
    with torch.no_grad():
        torch.testing.assert_close(both.decode({"latent": latent}, END), full.decode({"latent": latent}, END))


def test_a_tiny_decoder_of_other_latents_is_refused(folder, tiny, tmp_path):
    with pytest.raises(CheckpointError, match="is of class AutoencoderKL; expected AutoencoderTiny"):
        load(folder, gradient_decoder=folder)
    AutoencoderTiny(
        encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1),
    ).save_pretrained(tmp_path)  # fmt: skip
    with pytest.raises(CheckpointError, match="4 channels, 2 pixels a side; the canvas has 4 channels and 4"):
        load(folder, gradient_decoder=str(tmp_path))


def test_a_hard_clamp_stops_the_gradient_and_a_straight_through_one_does_not(folder):
    hard, through = load(folder), load(folder, clamp="straight_through")
    with torch.no_grad():
        latent = 30 * hard.init(rng(0))["latent"]
    images, gradients = [], []
    for canvas in (hard, through):
        z = latent.clone().requires_grad_()
        image = canvas.decode({"latent": z}, END)
        saturated = (image == 0) | (image == 1)
        (gradient,) = torch.autograd.grad(image[saturated].sum(), z)
        images.append(image)
        gradients.append(gradient)
    assert ((images[0] == 0) | (images[0] == 1)).any()
    assert torch.equal(images[0], images[1])
    assert (gradients[0] == 0).all()
    assert (gradients[1] != 0).any()


@pytest.mark.parametrize(("of_run", "own"), [(torch.bfloat16, None), (torch.float32, "bfloat16")])
def test_a_low_precision_decoder_keeps_float32_latents_and_images(folder, of_run, own):
    canvas, exact = load(folder, of_run, dtype=own), load(folder)
    params = canvas.init(rng(0))
    image = canvas.decode(params, END)
    assert canvas.autoencoder.model.dtype == torch.bfloat16
    assert image.dtype == params["latent"].dtype == torch.float32
    assert not torch.equal(image, exact.decode(params, END))
    torch.testing.assert_close(image, exact.decode(params, END), atol=0.05, rtol=0)


@pytest.mark.parametrize(
    ("size", "nearest"), [((30, 32), "32x32"), ((16, 25), "16x24"), ((0, 16), "4x16"), ((1, 16), "4x16")]
)
def test_a_size_it_does_not_allow_is_refused_with_the_nearest(folder, size, nearest):
    with pytest.raises(RefcoreError, match=rf"{size[0]}x{size[1]}.*multiple of 4.*{nearest}"):
        load(folder, size=size)


def test_without_a_size_it_takes_the_models_own(folder):
    assert load(folder, size=None).size == (32, 32)


def test_an_image_of_another_size_cannot_start_it(folder):
    with pytest.raises(RefcoreError, match=r"8x8.*16x24"):
        load(folder).encode(torch.rand(1, 3, 8, 8))


def test_the_fingerprint_is_the_encoders_whatever_the_decoder_and_the_stored_precision(folder, tmp_path):
    space = load(folder).latent_space
    assert (space.channels, space.scale, space.shift) == (4, 0.5, 0.25)
    model = AutoencoderKL.from_pretrained(folder, low_cpu_mem_usage=False)
    model.decoder.conv_in.weight.data.add_(1)
    model.save_pretrained(tmp_path / "decoder")
    assert load(str(tmp_path / "decoder")).latent_space == space
    model.half().save_pretrained(tmp_path / "half")
    assert load(str(tmp_path / "half")).latent_space == space
    assert load(folder, torch.bfloat16).latent_space == space
    model.float().encoder.conv_in.weight.data.add_(1)
    model.save_pretrained(tmp_path / "encoder")
    assert load(str(tmp_path / "encoder")).latent_space != space


def test_one_folder_is_loaded_once_and_kept_by_nobody(folder):
    before = set(autoencoders._shared)
    first, second = load(folder), load(folder)
    assert first.autoencoder is second.autoencoder
    assert load(folder, torch.float64).autoencoder is not first.autoencoder
    del first, second
    assert not set(autoencoders._shared) - before


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda f: (f / "config.json").unlink(), "no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "corrupt"),
        (lambda f: (f / "config.json").write_text('{"_class_name": "VQModel"}'), "VQModel.*expected AutoencoderKL"),
        (lambda f: (f / "diffusion_pytorch_model.safetensors").write_bytes(b"no"), "cannot be loaded"),
        (lambda f: (f / "diffusion_pytorch_model.safetensors").unlink(), "cannot be loaded"),
    ],
    ids=["no config", "bad config", "another kind", "corrupt weights", "no weights"],
)
def test_a_broken_folder_is_one_clear_error(folder, tmp_path, break_it, said):
    AutoencoderKL.from_pretrained(folder, low_cpu_mem_usage=False).save_pretrained(tmp_path)
    break_it(tmp_path)
    with pytest.raises(CheckpointError, match=said) as caught:
        load(str(tmp_path))
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_weights_are_not_replaced_by_random_ones(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    AutoencoderKL.from_pretrained(folder, low_cpu_mem_usage=False).save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    del weights["decoder.conv_out.weight"]
    save_file(weights, file)
    with pytest.raises(CheckpointError, match=r"decoder\.conv_out\.weight"):
        load(str(tmp_path))


def test_a_folder_that_does_not_exist_is_named():
    with pytest.raises(CheckpointError, match="/no/such/folder"):
        load("/no/such/folder")


@pytest.mark.parametrize("squash", ["sigmoid", "clamp"])
def test_pixels_come_back_from_encoding(squash):
    canvas = Pixel(squash=squash)
    canvas.load(CPU, torch.float32, (5, 7))
    images = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    images[0, :, 0] = 0
    images[0, :, 1] = 1
    torch.testing.assert_close(canvas.decode(canvas.encode(images), END), images, atol=1 / 512 + 1e-6, rtol=0)


@pytest.mark.parametrize("squash", ["sigmoid", "clamp"])
def test_pixels_start_grey_with_the_noise_of_the_sample_alone(squash):
    canvas = Pixel(squash=squash, init_std=0.2)
    canvas.load(CPU, torch.float32, (32, 48))
    params = canvas.init(rng(0, 1))
    image = canvas.decode(params, END)
    assert image.shape == (2, 3, 32, 48)
    assert image.mean() == pytest.approx(0.5, abs=0.01)
    assert image.std() == pytest.approx(0.2 if squash == "clamp" else 0.05, rel=0.1)
    assert torch.equal(params["pixels"][1:], canvas.init(rng(1))["pixels"])
    assert canvas.latent_name() is None
    assert canvas.latent_space is None


def test_pixels_refuse_an_empty_size_and_another_images_size():
    with pytest.raises(RefcoreError, match=r"0x5.*1x5"):
        Pixel().load(CPU, torch.float32, (0, 5))
    canvas = Pixel()
    canvas.load(CPU, torch.float32, (4, 4))
    with pytest.raises(RefcoreError, match=r"8x8.*4x4"):
        canvas.encode(torch.rand(1, 3, 8, 8))


@pytest.fixture(scope="module")
def overflowing(tmp_path_factory):
    """(force_upcast) -> an autoencoder whose activations exceed float16's 65,504, like that of SDXL."""
    torch.manual_seed(0)
    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        sample_size=32,
    )
    with torch.no_grad():
        model.decoder.conv_in.weight.mul_(4e5)
        model.encoder.conv_in.weight.mul_(4e5)

    def make(force_upcast):
        folder = tmp_path_factory.mktemp("overflowing")
        model.save_pretrained(folder)
        config = json.loads((folder / "config.json").read_text()) | {"force_upcast": force_upcast}
        (folder / "config.json").write_text(json.dumps(config))
        return str(folder)

    return make


@pytest.mark.fault("1.14")
@pytest.mark.parametrize("recompute", ["nothing", "blocks", "image"])
def test_an_autoencoder_that_overflows_in_float16_is_upcast_as_in_diffusers(overflowing, recompute):
    folder = overflowing(True)
    exact, half = load(folder), load(folder, torch.float16, recompute=recompute)
    assert half.autoencoder.model.dtype == torch.float32
    assert load(folder, torch.bfloat16).autoencoder.model.dtype == torch.bfloat16
    params = {"latent": exact.init(rng(0, 1))["latent"].requires_grad_()}
    expected, found = exact.decode(params, END), half.decode(params, END)
    assert found.isfinite().all()
    torch.testing.assert_close(found, expected)
    images = torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(half.encode(images)["latent"], exact.encode(images)["latent"])
    with torch.autocast("cpu", torch.float16):
        torch.testing.assert_close(half.decode(params, END), expected)
        torch.testing.assert_close(half.autoencoder.encode(images), exact.encode(images)["latent"])


@pytest.mark.fault("1.14")
def test_one_that_does_not_ask_for_it_stays_in_float16_and_an_overflow_names_the_dtype(overflowing):
    folder = overflowing(False)
    assert load(folder, torch.float16).autoencoder.model.dtype == torch.float16
    config = {
        "prompts": ["a"],
        "seeds": [0],
        "canvas": {"name": "latent", "config": {"model": folder, "dtype": "float16"}},
        "priors": [{"name": "tv"}],
        "size": [16, 24],
        "steps": 1,
        "device": "cpu",
    }
    with pytest.raises(
        NonFiniteError, match=r'"canvas".* in float16, .*: try canvas\.config\.dtype float32 or bfloat16'
    ):
        next(Inversion(RunConfig.from_settings(config)))
