"""The SDS prior: its gradient against the formula in plain diffusers calls, its guidance, its refusals."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler
from pydantic import ValidationError
from score_distillation import CPU, PROMPTS, latents, pipeline, rng, sampled_by_pipeline

from refcore.config.schedule import Linear
from refcore.errors import CheckpointError, RefcoreError
from refcore.moment import Moment
from refcore_plugins.canvases.latent import Latent
from refcore_plugins.canvases.pixel import Pixel
from refcore_plugins.models.score_distillation import WEIGHTINGS, add_noise, noise_of_velocity
from refcore_plugins.priors.sds import Sds

ZOO = Path(__file__).parents[3] / "playground" / "zoo" / "diffusion"


def load(folder, dtype=torch.float32, **fields):
    prior = Sds(model=str(folder), **fields)
    prior.load(CPU, dtype)
    return prior


@torch.no_grad()
def formula(folder, x, prompts, negative, guidance, seeds, bounds=(50, 948)):
    """w (eps_hat - eps) / (h w) sample by sample; the noise is read off DDIM's own predicted image."""
    pipe, gradients = pipeline(folder), []
    for i, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
        positive, without = pipe.encode_prompt(prompt, CPU, 1, True, negative_prompt=negative)
        draws = rng(seed)
        t = draws.integers(bounds[0], bounds[1] + 1)
        noise = draws.normal(*x.shape[1:])
        noisy = pipe.scheduler.add_noise(x[i : i + 1], noise, t)
        given = pipe.unet(noisy, t, positive).sample
        free = pipe.unet(noisy, t, without).sample
        out = free + guidance * (given - free)
        pipe.scheduler.set_timesteps(1000)
        clean = pipe.scheduler.step(out, int(t), noisy).pred_original_sample
        alpha_bar = pipe.scheduler.alphas_cumprod[t]
        predicted = (noisy - alpha_bar.sqrt() * clean) / (1 - alpha_bar).sqrt()
        gradients.append(2 * (predicted - noise) / (x.shape[-2] * x.shape[-1]))
    return torch.cat(gradients)


@pytest.mark.parametrize("guidance", [0.0, 1.0, 7.5, 30.0])
def test_the_gradient_is_the_formula_in_plain_diffusers_calls(folder, guidance):
    prior = load(folder, guidance=guidance, negative_prompt="blue")
    gradient, value = prior.gradient(latents(), prior.read(PROMPTS), Moment(5, 10), rng(3, 4))
    expected = formula(folder, latents(), PROMPTS, "blue", guidance, (3, 4))
    assert value is None
    assert gradient.dtype == torch.float32
    assert not gradient.requires_grad
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(gradient, expected, atol=1e-5 * expected.abs().max().item(), rtol=1e-4)


@pytest.mark.skipif(not (ZOO / "unet").is_dir(), reason="the embedded diffusion model is not there")
def test_the_embedded_models_gradient_is_the_formula():
    prior = Sds(guidance=7.5)
    prior.load(CPU, torch.float32)
    prompts = ["a red circle", "two blue squares"]
    x = latents(2, 16, 16)
    gradient, _ = prior.gradient(x, prior.read(prompts), Moment(5, 10), rng(3, 4))
    expected = formula(ZOO, x, prompts, "", 7.5, (3, 4))
    torch.testing.assert_close(gradient, expected, atol=1e-4 * expected.abs().max().item(), rtol=1e-3)


def test_guidance_0_ignores_the_prompt_and_1_the_negative_prompt(sd1):
    for guidance, field in ((0.0, "negative_prompt"), (1.0, "prompt")):
        prior = load(sd1, guidance=guidance)
        other = load(sd1, guidance=guidance, negative_prompt="ugly")
        changed_prompt = prior.gradient(latents(), prior.read(["b", "c"]), Moment(5, 10), rng(3, 4))[0]
        changed_negative = other.gradient(latents(), other.read(PROMPTS), Moment(5, 10), rng(3, 4))[0]
        base = prior.gradient(latents(), prior.read(PROMPTS), Moment(5, 10), rng(3, 4))[0]
        assert torch.equal(base, changed_prompt) == (field == "negative_prompt")
        assert torch.equal(base, changed_negative) == (field == "prompt")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_samples_gradient_is_its_own_whatever_its_mates_and_the_chunks(folder, dtype):
    prior = load(folder, dtype)
    x = latents(3).to(dtype)
    prompts = [*PROMPTS, "a dot"]
    whole = prior.gradient(x, prior.read(prompts), Moment(5, 10), rng(3, 4, 5))[0]
    chunked_prior = load(folder, dtype, chunk=2)
    chunked = chunked_prior.gradient(x, chunked_prior.read(prompts), Moment(5, 10), rng(3, 4, 5))[0]
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    scale = whole.abs().max().item()
    torch.testing.assert_close(chunked, whole, atol=tolerance * scale, rtol=0)
    for i, (prompt, seed) in enumerate(zip(prompts, (3, 4, 5), strict=True)):
        alone = prior.gradient(x[i : i + 1], prior.read([prompt]), Moment(5, 10), rng(seed))[0]
        torch.testing.assert_close(alone, whole[i : i + 1], atol=tolerance * scale, rtol=0)


def test_it_repeats_bit_for_bit_and_uses_no_global_randomness(sd1):
    prior = load(sd1)
    conditioning = prior.read(PROMPTS)
    state = torch.get_rng_state()
    first = prior.gradient(latents(), conditioning, Moment(5, 10), rng(3, 4))[0]
    assert torch.equal(first, prior.gradient(latents(), conditioning, Moment(5, 10), rng(3, 4))[0])
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(first, prior.gradient(latents(), conditioning, Moment(6, 10), rng(3, 4, step=6))[0])


def test_timesteps_are_drawn_from_the_whole_range_and_nothing_else(sd1):
    prior = load(sd1, timesteps=(7, 9), guidance=1)
    seen = []
    predict = prior.diffusion.noise
    prior.diffusion.noise = lambda noisy, t, text: (seen.append(t), predict(noisy, t, text))[1]
    n = 60
    prior.gradient(latents(n, 2, 2), prior.read(["a"] * n), Moment(5, 10), rng(*range(n)))
    assert sorted(torch.cat(seen).unique().tolist()) == [7, 8, 9]


@pytest.mark.parametrize("weighting", list(WEIGHTINGS))
def test_weightings_are_functions_of_the_timestep(sd1, weighting):
    alpha_bar = DDPMScheduler.from_pretrained(sd1, subfolder="scheduler").alphas_cumprod
    settings = {"timesteps": (400, 400), "normalise": False}
    plain, weighted = load(sd1, **settings), load(sd1, **settings, weighting=weighting)
    base = plain.gradient(latents(), plain.read(PROMPTS), Moment(5, 10), rng(3, 4))[0] / 2
    a = alpha_bar[400]
    factor = {
        "constant": 2,
        "uniform": 1,
        "sigma2": 1 - a,
        "fantasia3d": a.sqrt() * (1 - a),
        "x0": ((1 - a) / a).sqrt(),
    }[weighting]
    torch.testing.assert_close(
        weighted.gradient(latents(), weighted.read(PROMPTS), Moment(5, 10), rng(3, 4))[0], factor * base
    )


def test_the_x0_weighting_steps_to_the_predicted_clean_latent():
    g = torch.Generator().manual_seed(0)
    x, noise, predicted = torch.randn(3, 1, 4, 2, 2, generator=g)
    alpha_bar = torch.tensor([0.3])
    clean = (add_noise(x, noise, alpha_bar) - (1 - alpha_bar).sqrt() * predicted) / alpha_bar.sqrt()
    torch.testing.assert_close(WEIGHTINGS["x0"](alpha_bar) * (predicted - noise), x - clean)


def test_the_velocity_of_a_known_latent_gives_its_noise_back():
    g = torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, 3, 4, 2, 2, generator=g)
    t = torch.tensor([10, 500, 900])
    schedule = DDPMScheduler()
    alpha_bar = schedule.alphas_cumprod[t]
    velocity = schedule.get_velocity(x, noise, t)
    noisy = schedule.add_noise(x, noise, t)
    torch.testing.assert_close(add_noise(x, noise, alpha_bar), noisy)
    torch.testing.assert_close(noise_of_velocity(velocity, noisy, alpha_bar), noise, atol=1e-5, rtol=1e-5)


def test_descending_it_reaches_the_image_that_the_model_knows(sd1):
    """A model that knows one image predicts the noise that leads to it: SDS then converges to that image."""
    prior = load(sd1, guidance=1, weighting="x0", normalise=False)
    target = latents(2)

    def perfect(noisy, t, text):
        a = prior.diffusion.alphas_cumprod[t].view(-1, 1, 1, 1)
        return (noisy - a.sqrt() * target) / (1 - a).sqrt()

    prior.diffusion.noise = perfect
    x, conditioning = torch.zeros_like(target), prior.read(PROMPTS)
    for step in range(30):
        x = x - 0.3 * prior.gradient(x, conditioning, Moment(step, 1000), rng(0, 1, step=step))[0]
    torch.testing.assert_close(x, target, atol=1e-3, rtol=0)


def test_text_beyond_the_context_is_truncated_and_reported(sd1):
    conditioning = load(sd1).read(["a ring", "abcdefghij klm"])  # one token a letter here, ten of them read
    assert conditioning.truncated == ("", "klm")
    assert conditioning["text"].shape == (2, 12, 16)
    assert conditioning["negative"].shape == (2, 12, 16)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_low_precision_model_gives_a_float32_gradient_close_to_the_exact_one(sd1, dtype):
    prior, exact = load(sd1, dtype, guidance=3), load(sd1, guidance=3)
    gradient = prior.gradient(latents(), prior.read(PROMPTS), Moment(5, 10), rng(3, 4))[0]
    expected = exact.gradient(latents(), exact.read(PROMPTS), Moment(5, 10), rng(3, 4))[0]
    assert gradient.dtype == torch.float32
    assert torch.cosine_similarity(gradient.flatten(), expected.flatten(), dim=0) > 0.99


def test_it_shares_the_canvas_latents_without_loading_an_autoencoder_of_its_own(sd1):
    canvas, prior = Latent(model=str(sd1)), load(sd1)
    canvas.load(CPU, torch.bfloat16, (16, 24))
    prior.accept(canvas)
    assert prior.autoencoder is None


def test_latents_of_another_autoencoder_are_refused_with_the_reason(sd1, tmp_path):
    prior = load(sd1)
    for name, change, reason in (
        ("other", lambda m: m.encoder.conv_in.weight.data.add_(1), "another autoencoder"),
        ("scale", lambda m: m.register_to_config(scaling_factor=0.5), "scaled by 0.5.*not by 0.18215"),
        ("shift", lambda m: m.register_to_config(shift_factor=0.1), "shifted by 0.1"),
    ):
        model = AutoencoderKL.from_pretrained(sd1, subfolder="vae", low_cpu_mem_usage=False)
        change(model)
        model.save_pretrained(tmp_path / name)
        canvas = Latent(model=str(tmp_path / name))
        canvas.load(CPU, torch.float32)
        with pytest.raises(RefcoreError, match=reason):
            prior.accept(canvas)
    wide = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=16)
    wide.save_pretrained(tmp_path / "wide")
    canvas = Latent(model=str(tmp_path / "wide"))
    canvas.load(CPU, torch.float32)
    with pytest.raises(RefcoreError, match=r"4 channels.*\b16\b"):
        prior.accept(canvas)


def test_on_pixels_it_encodes_the_image_differentiably(sd1):
    canvas, prior = Pixel(), load(sd1)
    canvas.load(CPU, torch.float32, (16, 24))
    prior.accept(canvas)
    params = canvas.init(rng(3, 4))
    params["pixels"].requires_grad_()
    x = prior.encode(canvas.decode(params, Moment.end(10)))
    assert x.shape == (2, 4, 8, 12)
    model = AutoencoderKL.from_pretrained(sd1, subfolder="vae", low_cpu_mem_usage=False)
    expected = model.encode(canvas.decode(params, Moment.end(10)) * 2 - 1).latent_dist.mode() * 0.18215
    torch.testing.assert_close(x, expected)
    gradient, _ = prior.gradient(x, prior.read(PROMPTS), Moment(5, 10), rng(3, 4))
    (pulled,) = torch.autograd.grad(x, params["pixels"], gradient)
    assert pulled.abs().sum() > 0


def test_pixels_of_a_size_that_it_cannot_encode_are_refused_with_the_nearest(sd1):
    canvas, prior = Pixel(), load(sd1)
    canvas.load(CPU, torch.float32, (15, 24))
    with pytest.raises(RefcoreError, match=r"15x24.*multiple of 2.*16x24"):
        prior.accept(canvas)


def edit(folder, name, **fields):
    file = folder / name
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


@pytest.mark.parametrize(
    "kind", ["StableDiffusionXLPipeline", "FluxPipeline", "StableDiffusion3Pipeline", "PixArtAlphaPipeline"]
)
def test_other_pipelines_are_refused_by_name(sd1, tmp_path, kind):
    shutil.copy(sd1 / "model_index.json", tmp_path)
    edit(tmp_path, "model_index.json", _class_name=kind)
    with pytest.raises(CheckpointError, match=f"is a {kind}; expected Stable Diffusion 1.x or 2.x"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "fields", "said"),
    [
        ("unet/config.json", {"addition_embed_type": "text_time"}, "addition_embed_type: text_time.*SDXL"),
        ("unet/config.json", {"in_channels": 9}, "9 channels.*inpainting"),
        ("unet/config.json", {"_class_name": "FluxTransformer2DModel"}, "FluxTransformer2DModel"),
        ("text_encoder/config.json", {"architectures": ["T5EncoderModel"]}, "T5EncoderModel"),
        ("scheduler/scheduler_config.json", {"prediction_type": "flow"}, 'prediction_type "flow"'),
    ],
)
def test_a_folder_that_only_looks_alike_is_refused_by_what_differs(sd1, tmp_path, name, fields, said):
    shutil.copytree(sd1, tmp_path / "copy")
    edit(tmp_path / "copy", name, **fields)
    with pytest.raises(CheckpointError, match=said):
        load(tmp_path / "copy")


@pytest.mark.parametrize("component", ["unet", "text_encoder", "tokenizer", "scheduler"])
def test_a_missing_component_is_named(sd1, tmp_path, component):
    shutil.copytree(sd1, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / component)
    with pytest.raises(CheckpointError, match=f"no {component}/"):
        load(tmp_path / "copy")


def test_corrupt_weights_are_one_clear_error(sd1, tmp_path):
    shutil.copytree(sd1, tmp_path / "copy")
    for component, file in (("text_encoder", "model"), ("unet", "diffusion_pytorch_model")):
        (tmp_path / "copy" / component / f"{file}.safetensors").write_bytes(b"not a tensor")
        with pytest.raises(CheckpointError, match=rf"{component} of .*cannot be loaded"):
            load(tmp_path / "copy")
        shutil.copy(sd1 / component / f"{file}.safetensors", tmp_path / "copy" / component)


def test_it_needs_no_autoencoder_and_no_safety_checker_on_disk(sd1, tmp_path):
    shutil.copytree(sd1, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "vae")
    prior = load(tmp_path / "copy")
    assert prior.gradient(latents(), prior.read(PROMPTS), Moment(5, 10), rng(3, 4))[0].isfinite().all()


def test_bad_settings_are_refused(sd1):
    with pytest.raises(ValidationError, match="low <= high"):
        Sds(timesteps=(900, 100))
    with pytest.raises(ValidationError, match="weighting"):
        Sds(weighting="snr")
    with pytest.raises(RefcoreError, match=r"last timestep.*999"):
        load(sd1, timesteps=(50, 1000))


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_a_sample_is_that_of_diffusers_pipeline(folder, guidance):
    prior = load(folder)
    shape = (4, 8, 12)
    found = prior.sample(shape, prior.read(PROMPTS), rng(3, 4), steps=7, guidance=guidance)
    expected = sampled_by_pipeline(folder, shape, guidance)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("strength", [0.05, 0.5, 1.0])
def test_a_sample_around_latents_is_that_of_diffusers_image_to_image(folder, strength, monkeypatch):
    from diffusers.pipelines.stable_diffusion import pipeline_stable_diffusion_img2img as img2img

    prior = load(folder)
    shape = (4, 8, 12)
    around = rng(5, 6).normal(*shape)
    found = prior.sample(shape, prior.read(PROMPTS), rng(3, 4), 7, 4.0, around, strength)
    pipe = img2img.StableDiffusionImg2ImgPipeline(**pipeline(folder).components)
    pipe.set_progress_bar_config(disable=True)
    monkeypatch.setattr(img2img, "randn_tensor", lambda *args, **kwargs: rng(3, 4).normal(*shape))
    expected = pipe(
        PROMPTS,
        image=around,
        strength=max(strength, 0.15),  # the pipeline refuses to do no step at all
        num_inference_steps=7,
        guidance_scale=4.0,
        output_type="latent",
    ).images
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_a_sample_does_not_depend_on_its_mates_or_the_chunks(sd1):
    prior, chunked = load(sd1, torch.float64), load(sd1, torch.float64, chunk=1)
    whole = prior.sample((4, 8, 8), prior.read(PROMPTS), rng(3, 4), steps=3, guidance=3.0)
    parts = chunked.sample((4, 8, 8), chunked.read(PROMPTS), rng(3, 4), steps=3, guidance=3.0)
    alone = prior.sample((4, 8, 8), prior.read(PROMPTS[1:]), rng(4), steps=3, guidance=3.0)
    torch.testing.assert_close(parts, whole, atol=1e-9, rtol=0)
    torch.testing.assert_close(alone, whole[1:], atol=1e-9, rtol=0)


def test_more_sampling_steps_than_timesteps_are_refused(sd1):
    prior = load(sd1)
    with pytest.raises(RefcoreError, match=r"1001 sampling steps; expected at most 1000, the timesteps of"):
        prior.sample((4, 8, 8), prior.read(PROMPTS), rng(3, 4), steps=1001, guidance=1.0)


@pytest.mark.fault("4.14")
def test_guidance_and_timesteps_are_those_of_the_step(folder):
    guidance, lowest, highest = Linear(start=30, end=5), Linear(start=600, end=0), Linear(start=900, end=400)
    prior = load(folder, guidance=guidance, timesteps=(lowest, highest), negative_prompt="blue")
    gradients = []
    for step in (0, 5, 9):
        bounds = (round(600 - 60 * step), round(900 - 50 * step))
        found = prior.gradient(latents(), prior.read(PROMPTS), Moment(step, 10), rng(3, 4))[0]
        expected = formula(folder, latents(), PROMPTS, "blue", 30 - 2.5 * step, (3, 4), bounds)
        torch.testing.assert_close(found, expected, atol=1e-5 * expected.abs().max().item(), rtol=1e-4)
        gradients.append(found)
    assert not torch.allclose(gradients[0], gradients[1])


@pytest.mark.fault("4.14")
def test_timesteps_that_exceed_the_models_in_any_step_are_refused(folder):
    with pytest.raises(RefcoreError, match="timesteps go up to 1200: the last timestep"):
        load(folder, timesteps=(0, Linear(start=900, end=1200)))
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        Sds(guidance=Linear(start=5, end=-1))


@pytest.mark.fault("4.14")
def test_annealing_falls_between_the_timesteps_of_the_step(folder):
    prior = load(folder, timesteps=(100, Linear(start=900, end=500)), anneal=8)
    drawn = [int(prior.draw_timesteps(Moment(step, 10), rng(3))[0]) for step in (0, 5, 9)]
    assert drawn == [900, 700 - round(600 * 5 / 8), 100]
