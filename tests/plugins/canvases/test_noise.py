"""The noise canvas: parity with diffusers' pipeline, prompts by sample, recomputation, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, EulerAncestralDiscreteScheduler, LCMScheduler, StableDiffusionPipeline

import refcore
from refcore.config.run import RunConfig
from refcore.engine.inversion import Inversion
from refcore.errors import ConfigError, RefcoreError
from refcore.moment import Moment
from refcore.rng import Rng
from refcore.testing import suite
from refcore_plugins.canvases.noise import Noise
from refcore_plugins.models.diffusers_folder import DiffusersFolder

CPU, END = torch.device("cpu"), Moment.end(1)
PROMPTS = ["a red circle left of a blue square", "two dotted green rings"]

TestNoise = suite(Noise(steps=2, guidance=3.0), size=(32, 32))


def loaded(dtype: torch.dtype = torch.float64, size: tuple[int, int] | None = (32, 32), **fields: Any) -> Noise:
    canvas = Noise(**fields)
    canvas.load(CPU, dtype, size)
    return canvas


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    found = StableDiffusionPipeline.from_pretrained(
        DiffusersFolder("playground:diffusion").source, torch_dtype=torch.float64
    )
    found.set_progress_bar_config(disable=True)
    return found


@pytest.mark.parametrize(
    ("fields", "scheduler", "called"),
    [
        ({"steps": 1, "sampler": "euler"}, EulerAncestralDiscreteScheduler, {"num_inference_steps": 1}),
        ({"steps": 5, "guidance": 3.0}, DDIMScheduler, {"num_inference_steps": 5, "guidance_scale": 3.0}),
        ({"steps": 1, "sampler": "lcm", "timesteps": [799]}, LCMScheduler, {"timesteps": [799]}),
    ],
)
def test_pictures_are_those_of_diffusers_pipeline(
    fields: dict[str, Any], scheduler: Any, called: dict[str, Any], pipeline: StableDiffusionPipeline
) -> None:
    canvas = loaded(**fields)
    params = canvas.init(Rng([3, 4], 0, "init"))
    with torch.no_grad():
        ours = canvas.decode(params, END, canvas.read(PROMPTS))
    pipeline.scheduler = scheduler.from_config(
        pipeline.scheduler.config, timestep_spacing="trailing", clip_sample=False
    )
    theirs = pipeline(
        prompt=PROMPTS, latents=params["noise"].double(), height=32, width=32, output_type="pt",
        **{"guidance_scale": 1.0, **called},
    ).images  # fmt: skip
    assert torch.allclose(ours.double(), theirs, atol=1e-5)
    assert ours.std() > 0.02


def test_each_sample_is_made_of_its_own_prompt() -> None:
    config = RunConfig.from_settings(
        {
            "canvas": {"name": "noise", "config": {"steps": 2, "guidance": 3.0}},
            "referees": [{"name": "clip", "config": {"model": "playground:clip"}}],
            "prompts": PROMPTS,
            "seeds": [0],
            "size": 32,
            "candidates": {"count": 2, "keep": [[1, 1]]},
            "optimizer": {"name": "sgd", "lr": 1e-9},
            "steps": 2,
        }
    )
    inversion = Inversion(config)
    canvas, numbers = inversion.engine.canvas, inversion.tracks.numbers
    assert isinstance(canvas, Noise)
    read = loaded(torch.float32, steps=2, guidance=3.0).read([PROMPTS[number // 2] for number in numbers])
    expected = canvas.decode(inversion.params, END, read).detach()
    found = inversion.engine.decode(inversion.params, inversion.engine.end, numbers).detach()
    assert torch.allclose(found, expected, atol=1e-6)
    for _ in inversion:
        pass
    assert [number // 2 for number in inversion.tracks.numbers] == [0, 1]
    left = [numbers.index(number) for number in inversion.tracks.numbers]
    assert torch.allclose(inversion.images(), expected[left], atol=1e-3)


def test_an_empty_prompt_tells_the_generator_nothing() -> None:
    settings = {
        "canvas": {"name": "noise", "prompt": "", "config": {"steps": 2}},
        "priors": [{"name": "gaussian", "weight": 1e-6}],
        "seeds": [0],
        "size": 32,
        "steps": 1,
    }
    shown = [Inversion(RunConfig.from_settings({**settings, "prompts": [prompt]})).images() for prompt in PROMPTS]
    assert torch.equal(*shown)


def test_the_first_steps_of_edict_are_those_of_ddim() -> None:
    """In the first step both latents are the noise, so that the first of the pair is DDIM's."""
    pictures = []
    for fields in ({"sampler": "edict"}, {"sampler": "ddim"}):
        canvas = loaded(steps=1, **fields)
        canvas._sampler._mix = 1.0
        with torch.no_grad():
            pictures.append(canvas.decode(canvas.init(Rng([3, 4], 0, "init")), END, canvas.read(PROMPTS)))
    assert torch.allclose(*pictures, atol=1e-5)
    assert pictures[0].std() > 0.02


def test_edict_with_many_steps_is_near_ddim_and_with_few_and_much_weight_is_not() -> None:
    ddim, many, few = (
        loaded(torch.float32, (64, 64), guidance=3.0, spacing="leading", **fields)
        for fields in ({"steps": 30}, {"steps": 30, "sampler": "edict", "mix": 0.8}, {"steps": 8, "sampler": "edict"})
    )
    params = ddim.init(Rng([1, 2], 0, "init"))
    with torch.no_grad():
        base, near, far = (canvas.decode(params, END, canvas.read(PROMPTS)) for canvas in (ddim, many, few))
    assert (base - near).abs().mean() < 0.5 * (base - far).abs().mean()


def test_leading_steps_end_near_zero_and_trailing_ones_begin_at_the_end() -> None:
    assert loaded(steps=4, spacing="leading")._sampler.timesteps == [751, 501, 251, 1]
    assert loaded(steps=4)._sampler.timesteps == [999, 749, 499, 249]


@pytest.mark.parametrize(
    "fields", [{"steps": 3, "guidance": 2.0}, {"steps": 2, "eta": 1.0}, {"steps": 3, "sampler": "edict", "mix": 0.6}]
)
def test_what_is_recomputed_has_the_same_gradient(fields: dict[str, Any]) -> None:
    gradients = []
    for recompute in (False, True):
        canvas = loaded(recompute=recompute, **fields)
        params = {name: value.double().requires_grad_() for name, value in canvas.init(Rng([3, 4], 0, "init")).items()}
        image = canvas.decode(params, END, canvas.read(PROMPTS))
        gradients.append(torch.autograd.grad(image.square().sum(), list(params.values())))
    assert all(torch.allclose(*pair, rtol=1e-9) for pair in zip(*gradients, strict=True))
    assert all(gradient.abs().max() > 0 for gradient in gradients[0])


def test_with_eta_the_noise_of_the_steps_counts() -> None:
    canvas = loaded(steps=3, eta=1.0)
    params = {name: value.double().requires_grad_() for name, value in canvas.init(Rng([3], 0, "init")).items()}
    assert params["step_noise"].shape == (1, 3, 4, 8, 8)
    image = canvas.decode(params, END, canvas.read(PROMPTS[:1]))
    (gradient,) = torch.autograd.grad(image.square().sum(), params["step_noise"])
    used = gradient[0].flatten(1).abs().amax(1)
    assert (used[:2] > 0).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"eta": 0.5, "sampler": "euler"}, "eta is 0.5, which only ddim has"),
        ({"timesteps": [999]}, "timesteps are given, but ddim has its own"),
        ({"sampler": "edict", "timesteps": [999]}, "timesteps are given, but edict has its own"),
        ({"sampler": "edict", "eta": 1.0}, "eta is 1.0, which only ddim has"),
        ({"sampler": "lcm", "timesteps": [999, 500]}, "2 timesteps are given; expected 1"),
        ({"sampler": "lcm", "steps": 2, "timesteps": [500, 999]}, "expected falling ones"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, ValueError), match=message):
        Noise(**fields)


def test_a_timestep_that_the_model_lacks_is_refused() -> None:
    with pytest.raises(RefcoreError, match=r"timesteps are \[1000\]; expected 0 to 999"):
        loaded(sampler="lcm", timesteps=[1000])


def test_a_prior_of_pictures_latents_refuses_noise() -> None:
    with pytest.raises(RefcoreError, match="they are of another autoencoder"):
        refcore.invert(
            "a red circle",
            overrides=["canvas={name: noise}", "combine={name: sum}", "init=null", "candidates={count: 1}", "steps=1"],
        )
