"""A start from images of one's own: a file for each sample, and a strength on the way to a fresh start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from toys import toy_config

from refcore.checkpoints import resolve
from refcore.config.run import RunConfig
from refcore.engine.inversion import Inversion
from refcore.errors import RefcoreError
from refcore.rng import Rng

pytestmark = [pytest.mark.fault("4.12"), pytest.mark.usefixtures("toys")]
PIXELS: dict[str, Any] = {"canvas": {"name": "toy_pixel"}, "size": [24, 24], "priors": []}


def photo(path: Path, seed: int, side: int = 24) -> torch.Tensor:
    """Writes an image, [3, side, side] in [0, 1]."""
    pixels = np.random.default_rng(seed).integers(40, 200, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return torch.from_numpy(pixels).permute(2, 0, 1).double() / 255


@pytest.mark.parametrize("listed", [False, True])
def test_each_sample_starts_from_its_own_file(tmp_path: Path, listed: bool) -> None:
    names = [f"{prompt}-{seed}.png" for prompt in ("a cat", "a dog") for seed in (3, 4)]
    pixels = [photo(tmp_path / name, n) for n, name in enumerate(names)]
    image = [str(tmp_path / name) for name in names] if listed else str(tmp_path / "{prompt}-{seed}.png")
    fields: dict[str, Any] = {"init": {"image": image}, "candidates": {"count": 2}, "seeds": [3, 4]}
    inversion = Inversion(toy_config(**PIXELS, **fields, prompts=["a cat", "a dog"]))
    shown = inversion.engine.decode(inversion.params, inversion.engine.end)
    assert torch.allclose(shown, torch.stack(pixels).repeat_interleave(2, 0).to(shown), atol=1e-6)


@pytest.mark.parametrize("strength", [0.25, 1.0])
def test_without_noise_of_a_prior_parameters_are_interpolated(tmp_path: Path, strength: float) -> None:
    photo(tmp_path / "a.png", 0)
    path = str(tmp_path / "a.png")
    image, fresh = (Inversion(toy_config(**PIXELS, init=init)).params for init in (path, None))
    between = Inversion(toy_config(**PIXELS, init={"image": path, "strength": strength})).params
    for name, value in between.items():
        assert torch.allclose(value, (1 - strength) * image[name] + strength * fresh[name], atol=1e-9), name


def test_a_named_prior_that_has_no_noise_is_refused(tmp_path: Path) -> None:
    photo(tmp_path / "a.png", 0)
    init = {"image": str(tmp_path / "a.png"), "strength": 0.5, "prior": "smooth"}
    fields: dict[str, Any] = {**PIXELS, "priors": [{"name": "smooth"}, {"name": "toy_sds"}]}
    with pytest.raises(RefcoreError, match='init is by prior "smooth", which cannot be sampled'):
        Inversion(toy_config(**fields, init=init))
    with pytest.raises(RefcoreError, match=r'init\.prior is "toy_sds", but canvas "toy_pixel" has no latents'):
        Inversion(toy_config(**fields, init={**init, "prior": "toy_sds"}))


@pytest.mark.parametrize(("strength", "timestep"), [(0.01, 1), (0.58, 541), (0.6, 581), (1.0, 981)])
def test_a_latent_start_is_that_of_diffusers_image_to_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strength: float, timestep: int
) -> None:
    """From the file to the latent that the pipeline would begin to denoise, by the pipeline's own methods."""
    from diffusers import AutoencoderKL, DDIMScheduler
    from diffusers.image_processor import VaeImageProcessor
    from diffusers.pipelines.stable_diffusion import pipeline_stable_diffusion_img2img as img2img

    photo(tmp_path / "a.png", 0, side=64)
    config = RunConfig.from_settings(
        {
            "canvas": {"name": "latent"},
            "size": 64,
            "priors": [{"name": "sds"}],
            "prompts": ["a red circle"],
            "seeds": [0, 1],
            "init": {"image": str(tmp_path / "a.png"), "strength": strength},
        }
    )
    inversion = Inversion(config)
    ours = inversion.params["latent"]

    folder = resolve("playground:diffusion")
    vae = AutoencoderKL.from_pretrained(folder, subfolder="vae").eval()
    pipe = img2img.StableDiffusionImg2ImgPipeline.__new__(img2img.StableDiffusionImg2ImgPipeline)
    pipe.__dict__["scheduler"] = scheduler = DDIMScheduler.from_pretrained(folder, subfolder="scheduler")
    scheduler.set_timesteps(50)
    steps, _ = pipe.get_timesteps(50, max(strength, 0.02), "cpu")  # the pipeline refuses to do no step at all
    assert steps[0] == timestep
    image = VaeImageProcessor(2 ** (len(vae.config.block_out_channels) - 1)).preprocess(
        Image.open(tmp_path / "a.png"), height=64, width=64
    )
    with torch.no_grad():
        latent = (vae.encode(image).latent_dist.mode() * vae.config.scaling_factor).expand(2, -1, -1, -1)
    drawn = Rng(inversion.engine.keys, 0, "init/noise").normal(*ours.shape[1:])
    assert not torch.equal(drawn[0], drawn[1])
    monkeypatch.setattr(img2img, "randn_tensor", lambda *args, **kwargs: drawn)
    theirs = pipe.prepare_latents(latent, steps[:1].repeat(2), 2, 1, torch.float32, "cpu")
    assert torch.allclose(ours, theirs, atol=1e-4)
