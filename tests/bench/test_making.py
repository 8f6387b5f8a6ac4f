"""Batches made by the embedded checkpoints: what they cost is counted, and what is kept is what was asked for."""

from __future__ import annotations

import pytest
import torch

from refcore_bench import making
from refcore_bench.samples.sampling import Sampler, Sampling
from refcore_bench.scoring import losses_of, pixels, ranking_panel, score, scoring_panel
from refcore_bench.thresholds import measure_thresholds
from refcore_bench.variants import variant_from_text

PROMPTS = ["a red circle", "a blue square"]
TINY = "playground,steps=2,init=null,candidates={count: 1}"


@pytest.fixture(scope="module")
def sampler():
    return Sampler("playground:diffusion")


def test_an_inversion_costs_its_passes():
    """2 steps of every referee on 3 views, forward and backward, guided SDS, a decode a step and one of the result."""
    variant = variant_from_text(
        f"tiny={TINY},views.main.count=3,ema=null,output=current,early_stop=null,priors.0.config.guidance=7.5"
    )
    made = making.make(variant, PROMPTS, seed=0)
    referees = len(variant.settings["referees"])
    assert made.evaluations == {
        "referee_forward": 2 * referees * 3,
        "referee_backward": 2 * referees * 3,
        "unet_forward": 2 * 2,
        "unet_backward": 0,
        "decoder_forward": 2 + 1,
        "decoder_backward": 2,
        "encoder_forward": 0,
        "encoder_backward": 0,
        "statistics_forward": 0,
        "statistics_backward": 0,
        "denoiser_forward": 0,
        "denoiser_backward": 0,
        "transformer_forward": 0,
        "transformer_backward": 0,
    }
    assert made.steps == 2
    assert set(made.scores) == {scorer.label for scorer in variant.scorers}
    assert [image.shape for image in made.levels] == [(64, 64, 3)] * 2


def test_pixels_cost_the_encoder_and_no_decoder():
    made = making.make(variant_from_text("p=pixels,steps=2,init=null,candidates={count: 1}"), PROMPTS, seed=0)
    assert (made.evaluations["encoder_forward"], made.evaluations["encoder_backward"]) == (2, 2)
    assert made.evaluations["decoder_forward"] == 0


def test_without_prior_the_unet_never_runs_and_without_referees_no_referee():
    without_prior = making.make(
        variant_from_text("n=no-prior,steps=2,init=null,candidates={count: 1}"), PROMPTS, seed=0
    )
    assert without_prior.evaluations["unet_forward"] == 0
    alone = making.make(variant_from_text("s=sds-alone,steps=2,init=null,candidates={count: 1}"), PROMPTS, seed=0)
    assert alone.evaluations["referee_forward"] == 0
    assert alone.evaluations["unet_forward"] > 0


def test_sampling_costs_two_unet_passes_a_guided_step_and_one_decode():
    made = making.make(variant_from_text("s=sampling-3,steps=3"), PROMPTS, seed=0)
    assert (made.evaluations["unet_forward"], made.evaluations["decoder_forward"]) == (6, 1)
    assert sum(made.evaluations.values()) == 7


def test_best_of_n_costs_what_it_may_spend_and_less_than_one_sample_more():
    variant = variant_from_text("b=best-of-n,steps=3")
    spent = sum(making.make(variant, PROMPTS, seed=0, budget=40).evaluations.values())
    one = 3 * 2 + 1 + len(variant.optimised)
    assert 40 <= spent < 40 + one


@pytest.mark.parametrize("by", ["consensus", "loss"])
def test_best_of_n_keeps_the_sample_that_its_referees_like_best(sampler, by):
    variant = variant_from_text(f"b=best-of-n,steps=3,count=4,by={by}")
    kept = pixels(making.make(variant, PROMPTS[:1], seed=0).levels)[0]
    noise = torch.stack([sampler.noise(PROMPTS[0], 0, number) for number in range(4)])
    drawn = sampler.sample(PROMPTS[:1] * 4, noise, Sampling(guidance=variant.settings["guidance"], steps=3))
    i = min(range(4), key=lambda i: (drawn[i] - kept).abs().max().item())
    assert (drawn[i] - kept).abs().max() < 0.01
    if by == "loss":
        losses = losses_of(ranking_panel(variant.optimised, PROMPTS[:1] * 4), drawn)
        assert len(losses) == len(variant.optimised) > 1
        assert i == int(torch.tensor(list(losses.values())).sum(0).argmin())
    else:
        panel = scoring_panel(variant.scorers, PROMPTS[:1] * 4)
        scores = score(panel, drawn)
        assert not any(all(scores[label][j] > scores[label][i] for label in scores) for j in range(4))


def test_noise_is_keyed_by_prompt_and_seed_and_the_first_of_n_is_the_plain_sample(sampler):
    assert torch.equal(sampler.noise("a", 0), sampler.noise("a", 0, 0))
    different = [sampler.noise("a", 0), sampler.noise("b", 0), sampler.noise("a", 1), sampler.noise("a", 0, 1)]
    assert len({tuple(noise.flatten().tolist()) for noise in different}) == 4


def test_a_sample_does_not_depend_on_its_batch(sampler):
    settings = Sampling(steps=3)
    noise = torch.stack([sampler.noise(prompt, 0) for prompt in PROMPTS])
    both = sampler.sample(PROMPTS, noise, settings)
    assert torch.allclose(sampler.sample(PROMPTS[1:], noise[1:], settings)[0], both[1], atol=1e-4)


def test_guidance_is_that_of_the_pipeline_of_diffusers(sampler):
    """Parity with StableDiffusionPipeline on the same noise."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline(
        vae=sampler.vae,
        text_encoder=sampler.text,
        tokenizer=sampler.tokenizer,
        unet=sampler.unet,
        scheduler=sampler.scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    noise = sampler.noise(PROMPTS[0], 0)[None]
    theirs = pipeline(
        PROMPTS[0], latents=noise.clone(), num_inference_steps=4, guidance_scale=7.5, output_type="pt"
    ).images
    ours = sampler.sample(PROMPTS[:1], noise, Sampling(steps=4, guidance=7.5))
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_thresholds_accept_nearly_all_that_is_true():
    variant = variant_from_text("playground")
    found = measure_thresholds(variant.optimised, renders=40)
    assert set(found) == {scorer.identity for scorer in variant.optimised}
    for threshold in found.values():
        assert threshold.accepts_true >= 0.95
        assert threshold.accepts_wrong <= threshold.accepts_true
