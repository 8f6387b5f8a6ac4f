"""Every scheduler that a folder can name: samples are those of diffusers' pipeline, and gradients are finite."""

import json
import shutil

import pytest
import torch
from score_distillation import CPU, PROMPTS, latents, pipeline, rng, sampled_by_pipeline

from refcore.errors import RefcoreError
from refcore.moment import Moment
from refcore_plugins.priors.csd import Csd
from refcore_plugins.priors.nfsd import Nfsd
from refcore_plugins.priors.sdi import Sdi
from refcore_plugins.priors.sds import Sds
from refcore_plugins.priors.vsd.prior import Vsd

pytestmark = pytest.mark.fault("1.13")
SHAPE = (4, 8, 12)
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
ZERO_SNR = {"rescale_betas_zero_snr": True}
SPACINGS = ("leading", "trailing", "linspace")


@pytest.fixture
def folder_of(sd1, tmp_path):
    """(scheduler class, **fields) -> the folder with that scheduler_config.json."""

    def make(kind, **fields):
        folder = tmp_path / "folder"
        shutil.copytree(sd1, folder, dirs_exist_ok=True)
        config = {"_class_name": kind, "_diffusers_version": "0.30.0", **BETAS, **fields}
        (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
        return folder

    return make


def load(cls, folder, **fields):
    prior = cls(model=str(folder), **fields)
    prior.load(CPU, torch.float32)
    return prior


def sampled(folder, guidance=4.0):
    """(ours, the pipeline's with DDIM of the folder's config), from the same noise in 7 steps."""
    prior = load(Sds, folder)
    found = prior.sample(SHAPE, prior.read(PROMPTS), rng(3, 4), steps=7, guidance=guidance)
    return found, sampled_by_pipeline(folder, SHAPE, guidance)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize(
    ("kind", "prediction", "more"),
    [
        ("DDIMScheduler", "epsilon", {}),
        ("DDIMScheduler", "v_prediction", {"set_alpha_to_one": False, "steps_offset": 1}),
        ("DDIMScheduler", "sample", {}),
        ("DDIMScheduler", "v_prediction", ZERO_SNR),
        ("DDIMScheduler", "sample", ZERO_SNR),
        ("PNDMScheduler", "epsilon", {"skip_prk_steps": True, "steps_offset": 1}),
        ("PNDMScheduler", "v_prediction", {"skip_prk_steps": True}),
        ("EulerDiscreteScheduler", "epsilon", {"steps_offset": 1}),
        ("EulerDiscreteScheduler", "v_prediction", {"rescale_betas_zero_snr": True}),
        ("DDPMScheduler", "v_prediction", ZERO_SNR),
    ],
)
def test_a_sample_is_that_of_diffusers_pipeline_with_ddim(folder_of, kind, prediction, more, spacing):
    found, expected = sampled(folder_of(kind, prediction_type=prediction, timestep_spacing=spacing, **more))
    assert expected.isfinite().all()
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=2e-4)


@torch.no_grad()
def clean(folder, x, noise, t, prompt, guidance):
    """x_0 as diffusers' DDIM predicts it from x noised to t."""
    pipe = pipeline(folder)
    given, free = pipe.encode_prompt(prompt, CPU, 1, True, negative_prompt="")
    noisy = pipe.scheduler.add_noise(x, noise, torch.tensor([t]))
    out = [pipe.unet(noisy, t, text).sample for text in (free, given)]
    pipe.scheduler.set_timesteps(1000)
    return pipe.scheduler.step(out[0] + guidance * (out[1] - out[0]), t, noisy).pred_original_sample


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
@pytest.mark.parametrize("t", [500, 998, 999])
def test_the_x0_weighting_steps_to_ddims_clean_latent_without_signal_too(folder_of, prediction, t):
    folder = folder_of("DDIMScheduler", prediction_type=prediction, timestep_spacing="trailing", **ZERO_SNR)
    prior = load(Sds, folder, weighting="x0", timesteps=(t, t), guidance=4.0, normalise=False)
    found, _ = prior.gradient(latents(), prior.read(PROMPTS), Moment(5, 10), rng(3, 4))
    for i, (prompt, seed) in enumerate(zip(PROMPTS, (3, 4), strict=True)):
        x, draws = latents()[i : i + 1], rng(seed)
        draws.integers(t, t + 1)
        expected = x - clean(folder, x, draws.normal(*SHAPE), t, prompt, 4.0)
        torch.testing.assert_close(found[i : i + 1], expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("cls", [Sds, Csd, Nfsd, Sdi, Vsd])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_comparing_clean_latents_is_the_weighted_comparison_of_noise(folder_of, cls, prediction):
    """With some signal left the x0 weighting can be written either way."""
    folder = folder_of("DDIMScheduler", prediction_type=prediction)
    prior = load(cls, folder, weighting="x0", timesteps=(100, 600), normalise=False)
    if cls is Vsd:  # an adapter that has learned something
        prior.update(latents(), prior.read(PROMPTS), Moment(4, 10), rng(3, 4, step=4))
    found, _ = prior.gradient(latents(), prior.read(PROMPTS), Moment(5, 10), rng(3, 4))
    assert prior.compares_clean == (prediction != "epsilon")
    prior.compares_clean = False
    expected, _ = prior.gradient(latents(), prior.read(PROMPTS), Moment(5, 10), rng(3, 4))
    torch.testing.assert_close(found, expected, atol=1e-4 * float(expected.abs().max()), rtol=1e-3)


@pytest.mark.parametrize("cls", [Sds, Csd, Nfsd, Sdi, Vsd])
@pytest.mark.parametrize("weighting", ["constant", "uniform", "sigma2", "fantasia3d", "x0"])
@pytest.mark.parametrize("t", [0, 999])
def test_gradients_are_finite_at_both_ends_of_zero_terminal_snr(folder_of, cls, weighting, t):
    folder = folder_of("DDIMScheduler", prediction_type="v_prediction", timestep_spacing="trailing", **ZERO_SNR)
    prior = load(cls, folder, weighting=weighting, timesteps=(t, t))
    conditioning = prior.read(PROMPTS)
    if cls is Vsd:
        prior.update(latents(), conditioning, Moment(4, 10), rng(3, 4, step=4))
    assert prior.gradient(latents(), conditioning, Moment(5, 10), rng(3, 4))[0].isfinite().all()


def test_noise_without_signal_is_refused_where_it_would_be_infinite(folder_of):
    folder = folder_of("DDIMScheduler", prediction_type="epsilon", timestep_spacing="trailing", **ZERO_SNR)
    with pytest.raises(
        RefcoreError, match=r'weighting "x0" is infinite at timestep 999 .* highest of timesteps to 998'
    ):
        load(Sds, folder, weighting="x0", timesteps=(20, 999))
    prior = load(Sds, folder, weighting="x0", timesteps=(20, 998))
    assert prior.gradient(latents(), prior.read(PROMPTS), Moment(5, 10), rng(3, 4))[0].isfinite().all()
    with pytest.raises(RefcoreError, match=r'cannot be sampled: no signal .* expected prediction_type "v_prediction"'):
        prior.sample(SHAPE, prior.read(PROMPTS), rng(3, 4), steps=7, guidance=4.0)


def test_steps_that_start_beyond_the_last_timestep_are_refused(folder_of):
    prior = load(Sds, folder_of("DDIMScheduler", timestep_spacing="leading"))
    with pytest.raises(RefcoreError, match=r"1000 sampling steps start at timestep 1000 of .*, whose last is 999"):
        prior.sample(SHAPE, prior.read(PROMPTS), rng(3, 4), steps=1000, guidance=1.0)
