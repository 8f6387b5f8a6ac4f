"""Claims about the one-step generator: its folder is a pipeline of diffusers, its pictures are right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline

from refcore.checkpoints import zoo
from refcore.moment import Moment
from refcore.rng import Rng
from refcore_bench.samples.sampling import Sampler, Sampling
from refcore_playground.draw import draw_prompts
from refcore_playground.judge import judge
from refcore_plugins.canvases.noise import Noise

PROMPTS = ["a red circle left of a blue square", "two dotted green rings"]
ONE_STEP = Sampling(model="playground:turbo", guidance=1.0, steps=1)


@pytest.fixture(scope="module")
def sampler() -> Sampler:
    return Sampler("playground:turbo")


@pytest.mark.parametrize("guidance", [0.0, 1.0])
def test_a_step_of_the_benchmark_and_of_the_canvas_is_that_of_diffusers_pipeline(
    guidance: float, sampler: Sampler
) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(zoo() / "turbo", torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    assert isinstance(pipeline.scheduler, EulerDiscreteScheduler)
    assert pipeline.scheduler.config["timestep_spacing"] == "trailing"
    canvas = Noise(model="playground:turbo", sampler="euler", steps=1)
    canvas.load(torch.device("cpu"), torch.float32)
    params = canvas.init(Rng([3, 4], 0, "init"))
    theirs = pipeline(
        PROMPTS, latents=params["noise"], num_inference_steps=1, guidance_scale=guidance, output_type="pt"
    ).images
    assert theirs.shape == (2, 3, 64, 64)
    assert theirs.std() > 0.02
    with torch.no_grad():
        assert torch.allclose(canvas.decode(params, Moment.end(1), canvas.read(PROMPTS)), theirs, atol=1e-5)
    assert torch.allclose(sampler.sample(PROMPTS, params["noise"], ONE_STEP), theirs, atol=1e-5)


@pytest.mark.slow
def test_most_pictures_of_one_step_are_right(sampler: Sampler) -> None:
    prompts = draw_prompts(48, 12)
    noise = torch.stack([sampler.noise(prompt, 0) for prompt in prompts])
    images = sampler.sample(prompts, noise, ONE_STEP)
    right = [
        judge(image.permute(1, 2, 0).numpy(), prompt).verdict for image, prompt in zip(images, prompts, strict=True)
    ]
    assert sum(right) >= 28


def test_the_student_learns_pairs_and_moves_once_the_score_of_its_samples_is_learnt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from refcore_playground.training import turbo

    monkeypatch.setattr(turbo.TurboRecipe, "batch", 2)
    recipe = turbo.TurboRecipe(tmp_path, 0)

    def moved(progress: float) -> tuple[set[str], set[str]]:
        """Names of the losses, and of the networks that they move, at a share of the budget."""
        recipe.modules().zero_grad()
        losses = recipe.loss(0, progress)
        torch.stack(list(losses.values())).sum().backward()
        moving = {name for name, one in recipe.modules().items() if any(p.grad is not None for p in one.parameters())}
        return set(losses), moving

    assert moved(0.0) == ({"pairs"}, {"student"})
    assert moved((turbo.REGRESSION + turbo.SCORE_FIRST) / 2) == ({"score"}, {"fake"})
    assert moved(0.5) == ({"score", "student"}, {"fake", "student"})
    assert all(p.grad is None for p in recipe.teacher.parameters())


@pytest.mark.slow
def test_the_recipe_resumes_and_its_checkpoint_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from refcore_playground.training import loop, turbo

    monkeypatch.setattr(turbo.TurboRecipe, "batch", 4)
    monkeypatch.setattr(turbo.TurboRecipe, "evaluate", lambda self, quick: {})  # takes minutes, and is not the claim
    out, state = tmp_path / "turbo", tmp_path / "state"

    def last() -> dict[str, float]:
        return json.loads((state / "log.jsonl").read_text().splitlines()[-1])

    loop.train(turbo.TurboRecipe(out, 0), state, minutes=0.05, seed=0)
    first = last()
    loop.train(turbo.TurboRecipe(out, 0), state, minutes=first["minutes"] + 0.02, seed=0)
    assert last()["step"] > first["step"] >= 1
    made = Sampler(str(out))
    noise = torch.stack([made.noise(prompt, 0) for prompt in PROMPTS])
    assert made.sample(PROMPTS, noise, ONE_STEP).std() > 0.01
