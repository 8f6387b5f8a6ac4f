"""CSD, NFSD, SDI and VSD: each gradient against its formula in plain diffusers calls, and what VSD learns."""

import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler
from score_distillation import CPU, PROMPTS, latents, pipeline, rng

from refcore.config.run import RunConfig
from refcore.config.schedule import Linear
from refcore.engine.inversion import Inversion
from refcore.moment import Moment
from refcore_plugins.models.score_distillation import add_noise, ddim_step, noise_between
from refcore_plugins.priors.csd import Csd
from refcore_plugins.priors.nfsd import Nfsd
from refcore_plugins.priors.sdi import Sdi
from refcore_plugins.priors.sds import Sds
from refcore_plugins.priors.vsd.prior import Vsd

KINDS = [Csd, Nfsd, Sdi, Vsd]


def load(cls, folder, dtype=torch.float32, **fields):
    prior = cls(model=str(folder), **fields)
    prior.load(CPU, dtype)
    return prior


def plain(folder):
    """(eps(x_t, t, prompt), alpha_bar) of diffusers' own components, one sample at a time."""
    pipe = pipeline(folder)

    @torch.no_grad()
    def noise(noisy, t, prompt):
        text = pipe.encode_prompt(prompt, CPU, 1, False)[0]
        out = pipe.unet(noisy, t, text).sample
        if pipe.scheduler.config.prediction_type == "v_prediction":
            a = pipe.scheduler.alphas_cumprod[t]
            out = a.sqrt() * out + (1 - a).sqrt() * noisy
        return out

    return noise, pipe.scheduler.alphas_cumprod


def drawn(x, seed, bounds):
    draws = rng(seed)
    t = draws.integers(bounds[0], bounds[1] + 1)
    return t, draws.normal(*x.shape[1:])


def noised(alpha_bar, bounds):
    """(prompt, timestep, noisy latent) of each sample, written out, with the sample's own draws."""
    for i, (prompt, seed) in enumerate(zip(PROMPTS, (3, 4), strict=True)):
        x = latents()[i : i + 1]
        t, eps = drawn(x, seed, bounds)
        yield prompt, t, alpha_bar[t].sqrt() * x + (1 - alpha_bar[t]).sqrt() * eps


def same(found, expected):
    assert found.isfinite().all()
    assert expected.abs().max() > 1e-4
    torch.testing.assert_close(found, expected, atol=2e-5 * expected.abs().max().item(), rtol=1e-3)


@pytest.mark.fault("1.9")
def test_threestudios_guidance_of_100_is_101_here(folder):
    """`noise_pred_text + guidance_scale * (noise_pred_text - noise_pred_uncond)` of its Stable Diffusion guidance."""
    found, _ = load(Sds, folder, guidance=101.0, timesteps=(50, 948)).gradient(
        latents(), load(Sds, folder).read(PROMPTS), Moment(5, 10), rng(3, 4)
    )
    noise, alpha_bar = plain(folder)
    expected = []  # with the constant weight of SDS here, 2
    for i, (prompt, t, noisy) in enumerate(noised(alpha_bar, (50, 948))):
        text, free = noise(noisy, t, prompt), noise(noisy, t, "")
        drawn_noise = drawn(latents()[i : i + 1], (3, 4)[i], (50, 948))[1]
        expected.append(2 * (text + 100.0 * (text - free) - drawn_noise) / 96)
    same(found, torch.cat(expected))


@pytest.mark.fault("1.9")
def test_a_loss_of_the_velocity_weighs_a_noise_error_71_times_at_timestep_900():
    """v = (eps - sigma x_t) / sqrt(alpha_bar) for the same x_t, so a squared error is divided by alpha_bar."""
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    t = torch.tensor([900])
    alpha_bar = scheduler.alphas_cumprod[t]
    x, eps, error = (torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(3))
    noisy = scheduler.add_noise(x, eps, t)

    def velocity(predicted):
        clean = (noisy - (1 - alpha_bar).sqrt() * predicted) / alpha_bar.sqrt()
        return alpha_bar.sqrt() * predicted - (1 - alpha_bar).sqrt() * clean

    right = velocity(eps)
    torch.testing.assert_close(right, scheduler.get_velocity(x, eps, t), atol=1e-4, rtol=1e-3)
    factor = (velocity(eps + 0.1 * error) - right).square().mean() / (0.1 * error).square().mean()
    assert float(alpha_bar) == pytest.approx(0.014, abs=0.0005)
    assert round(float(factor)) == 71


@pytest.mark.parametrize("negative", ["", "blue"])
def test_csd_is_its_formula(folder, negative):
    prior = load(Csd, folder, negative_prompt=negative)
    found, value = prior.gradient(latents(), prior.read(PROMPTS), Moment(5, 10), rng(3, 4))
    assert value is None
    noise, alpha_bar = plain(folder)
    expected = []
    for prompt, t, noisy in noised(alpha_bar, (50, 948)):
        expected.append((1 - alpha_bar[t]) * (noise(noisy, t, prompt) - noise(noisy, t, negative)) / 96)
    same(found, torch.cat(expected))


@pytest.mark.parametrize("bounds", [(20, 199), (200, 900)])
def test_nfsd_is_its_formula_at_small_and_large_timesteps(folder, bounds):
    prior = load(Nfsd, folder, timesteps=bounds, negative_prompt="ugly", guidance=6.0)
    found, _ = prior.gradient(latents(), prior.read(PROMPTS), Moment(5, 10), rng(3, 4))
    noise, alpha_bar = plain(folder)
    expected = []
    for prompt, t, noisy in noised(alpha_bar, bounds):
        free = noise(noisy, t, "")
        domain = free if int(t) < 200 else free - noise(noisy, t, "ugly")
        expected.append((1 - alpha_bar[t]) * (domain + 6.0 * (noise(noisy, t, prompt) - free)) / 96)
    same(found, torch.cat(expected))


@pytest.mark.fault("1.4")
@pytest.mark.parametrize("eta", [0.0, 0.3])
def test_sdi_is_its_formula(folder, eta):
    """With `max(1, round(inversion_steps t / 1000))` steps, and the noise of the authors' code after each."""
    prior = load(Sdi, folder, inversion_steps=4, inversion_guidance=-2.0, guidance=3.0, eta=eta)
    found, _ = prior.gradient(latents(), prior.read(PROMPTS), Moment(5, 10), rng(3, 4))
    noise, alpha_bar = plain(folder)

    def guided(x, t, prompt, scale):
        free = noise(x, t, "")
        return free + scale * (noise(x, t, prompt) - free)

    expected = []
    for i, (prompt, seed) in enumerate(zip(PROMPTS, (3, 4), strict=True)):
        x = latents()[i : i + 1]
        draws = rng(seed)
        t, _ = draws.integers(20, 981), draws.normal(*x.shape[1:])
        kicks = draws.normal(4, *x.shape[1:])[0] if eta else None
        n = max(1, round(4 * int(t) / 1000))
        current, a = x, torch.tensor(1.0)
        for k in range(n):
            eps = guided(current, t * k // n, prompt, -2.0)
            clean = (current - (1 - a).sqrt() * eps) / a.sqrt()
            before, a = a, alpha_bar[t * (k + 1) // n]
            current = a.sqrt() * clean + (1 - a).sqrt() * eps
            if eta:
                current = current + eta * ((1 - before) / (1 - a) * (1 - a / before)).sqrt() * kicks[k]
        clean = (current - (1 - a).sqrt() * guided(current, t, prompt, 3.0)) / a.sqrt()
        expected.append((x - clean) / 96)  # w = sigma / sqrt(alpha_bar): the step to the predicted clean latent
    same(found, torch.cat(expected))


@torch.no_grad()
def threestudio_sdi(folder, x, t, delta, prompt):
    """latents - target of threestudio's `stable_diffusion_sdi_guidance` (@28d9d80), its inversion noise left out.

    The timesteps are those of diffusers' inverse scheduler for 10 steps (1, 101, ...) below t, one a step of 100
    before them (of the clean latent), and t + delta. Guidance is -7.5; then x_0 is predicted with guidance 7.5 from
    the latents reached, which the model is told are at t.
    """
    noise, alpha_bar = plain(folder)
    clean_level = torch.tensor(1.0)

    def guided(x, t, scale):
        at = torch.tensor([t])
        if t < 0 and pipeline(folder).scheduler.config.prediction_type == "v_prediction":
            at = at.clamp(min=0)  # `plain` has no alpha_bar there; the step is from 1 to alpha_bar[1], and hardly moves
        free = noise(x, at, "")
        return free + scale * (noise(x, at, prompt) - free)

    grid = [step for step in range(1, 1000, 100) if step < t]
    path = [grid[0] - 100, *grid, min(t + delta, 999)]
    levels = [clean_level, *alpha_bar[path[1:]]]
    current = x
    for k, at in enumerate(path[:-1]):
        eps = guided(current, at, -7.5)
        clean = (current - (1 - levels[k]).sqrt() * eps) / levels[k].sqrt()
        current = levels[k + 1].sqrt() * clean + (1 - levels[k + 1]).sqrt() * eps
    return x - (current - (1 - alpha_bar[t]).sqrt() * guided(current, t, 7.5)) / alpha_bar[t].sqrt()


@pytest.mark.fault("1.4")
@pytest.mark.parametrize(("t", "tau"), [(300, 0), (500, 0), (700, 0), (500, 99)])
def test_sdi_points_where_the_authors_code_points(folder, t, tau):
    """Cosines of 0.99 and more; with 10 steps to every t, they were 0.84 at t = 500 and 0.73 at t = 700."""
    prior = load(Sdi, folder, timesteps=(t, t), eta=0, tau=tau, normalise=False)
    found, _ = prior.gradient(latents(), prior.read(PROMPTS), Moment(5, 10), rng(3, 4))
    for i, (prompt, seed) in enumerate(zip(PROMPTS, (3, 4), strict=True)):
        draws = rng(seed)
        draws.integers(t, t + 1), draws.normal(4, 8, 12)
        delta = int(draws.integers(0, tau + 1)) if tau else 0
        expected = threestudio_sdi(folder, latents()[i : i + 1], t, delta, prompt)
        cosine = torch.cosine_similarity(found[i].flatten(), expected.flatten(), dim=0)
        assert cosine > 0.985, float(cosine)
        assert found[i].norm() / expected.norm() == pytest.approx(1, abs=0.03)


def test_the_target_of_sdi_is_kept_for_some_steps_and_for_each_sample_by_its_key(sd1):
    """Between two inversions the gradient is the distance to the last predicted clean latent, whatever the batch."""
    kept, fresh = (load(Sdi, sd1, inversion_steps=2, normalise=False, every=every) for every in (3, 1))
    text, x = kept.read(PROMPTS), latents()
    target = x - fresh.gradient(x, text, Moment(3, 10), rng(3, 4))[0]
    same(x - kept.gradient(x, text, Moment(3, 10), rng(3, 4))[0], target)
    same(x + 1 - kept.gradient(x + 1, text, Moment(4, 10), rng(3, 4))[0], target)
    same(x[1:] - kept.gradient(x[1:], text.take([1]), Moment(5, 10), rng(4))[0], target[1:])
    assert not torch.allclose(x + 1 - kept.gradient(x + 1, text, Moment(6, 10), rng(3, 4))[0], target, atol=1e-3)
    assert kept.keeps_state
    assert not fresh.keeps_state


def test_a_run_with_kept_targets_goes_on_to_the_same_bits():
    settings = {
        "prompts": ["a red circle"],
        "seeds": [0, 1],
        "canvas": {"name": "latent"},
        "priors": [{"name": "sdi", "config": {"every": 3, "inversion_steps": 2}}],
        "optimizer": {"lr": 0.1},
        "steps": 6,
    }
    config = RunConfig.from_settings(settings)
    whole, first = Inversion(config), Inversion(config)
    for _ in range(4):
        next(first)
    second = Inversion(config, state=first.state_dict())
    for inversion in (whole, second):
        for _ in inversion:
            pass
    assert torch.equal(whole.params["latent"], second.params["latent"])


def test_sdi_without_a_target_to_keep_is_refused():
    with pytest.raises(ValueError, match="every is 2, but weighting is uniform"):
        Sdi(every=2, weighting="uniform")


def test_an_inversion_takes_its_share_of_the_steps_whatever_its_mates(sd1):
    """Timesteps of the UNet calls of three samples: 1, 3 and 10 of the inversion, evenly from 0."""
    prior = load(Sdi, sd1, inversion_guidance=1.0, eta=0)
    calls = []
    predict = prior.diffusion.noise
    prior.diffusion.noise = lambda noisy, t, text: (calls.append(t.tolist()), predict(noisy, t, text))[1]
    batch = prior.noised(latents(3), prior.read(["a", "b", "c"]), Moment(5, 10), rng(3, 4, 5))
    batch.timesteps.copy_(batch.ends.copy_(torch.tensor([40, 300, 980])))
    prior.inverted(batch, Moment(5, 10))
    assert calls[:3] == [[0, 0, 0], [100, 98], [200, 196]]
    assert calls[3:] == [[294], [392], [490], [588], [686], [784], [882]]


def test_a_step_of_ddim_is_diffusers_in_both_directions():
    g = torch.Generator().manual_seed(0)
    x, eps = torch.randn(2, 1, 4, 3, 3, generator=g)
    settings = {"clip_sample": False, "set_alpha_to_one": False}
    forth, back = DDIMScheduler(**settings), DDIMInverseScheduler(clip_sample=False)
    forth.set_timesteps(10)
    back.set_timesteps(10)
    a = forth.alphas_cumprod
    torch.testing.assert_close(ddim_step(x, eps, a[[500]], a[[400]]), forth.step(eps, 500, x).prev_sample)
    torch.testing.assert_close(ddim_step(x, eps, a[[400]], a[[500]]), back.step(eps, 500, x).prev_sample)
    torch.testing.assert_close(noise_between(x, add_noise(x, eps, a[[300]]), a[[300]]), eps, atol=1e-4, rtol=1e-4)


def test_vsd_before_it_has_learned_is_guidance_against_the_conditional_noise(folder):
    prior = load(Vsd, folder, guidance=5.0)
    found, _ = prior.gradient(latents(), prior.read(PROMPTS), Moment(5, 10), rng(3, 4))
    noise, alpha_bar = plain(folder)
    expected = []
    for prompt, t, noisy in noised(alpha_bar, (50, 948)):
        free, given = noise(noisy, t, ""), noise(noisy, t, prompt)
        expected.append((1 - alpha_bar[t]) * (free + 5.0 * (given - free) - given) / 96)
    same(found, torch.cat(expected))


def test_vsd_with_an_adapter_is_the_model_with_the_merged_weights(sd1):
    """eps_phi is what the UNet says whose attention weights are W + U D."""
    prior = load(Vsd, sd1, guidance=1.0)
    conditioning = prior.read(PROMPTS[:1])
    for step in range(3):
        prior.update(latents(1), conditioning, Moment(step, 100), rng(3, step=step))
    (learned,) = prior._learned.values()
    found, _ = prior.gradient(latents(1), conditioning, Moment(9, 10), rng(3, step=9))
    merged = load(Sds, sd1)
    place, offset = 0, 0
    shapes = prior._adapters._shapes
    for name, module in merged.diffusion.unet.named_modules():
        if name.endswith(("to_q", "to_k", "to_v", "to_out.0")):
            a, b = shapes[place]
            down = learned.weights[offset : offset + a * b].view(a, b)
            c, d = shapes[place + 1]
            up = learned.weights[offset + a * b : offset + a * b + c * d].view(c, d)
            module.weight.data += up @ down
            offset, place = offset + a * b + c * d, place + 2
    assert offset == len(learned.weights)
    batch = prior.noised(latents(1), conditioning, Moment(9, 10), rng(3, step=9))
    frozen = prior.diffusion.noise(batch.noisy, batch.timesteps, batch.text)
    adapted = merged.diffusion.noise(batch.noisy, batch.timesteps, batch.text)
    assert not torch.allclose(frozen, adapted, atol=1e-4)
    expected = batch.weight.view(-1, 1, 1, 1) * (frozen - adapted) / 96
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-3)


@pytest.mark.fault("1.9")
def test_vsd_learns_the_noise_in_the_images_by_adam_on_the_mean_squared_error(folder):
    """Of the noise also where the model predicts the velocity, whose error threestudio takes there."""
    prior = load(Vsd, folder, torch.float64, lr=1e-2)
    x, conditioning = latents(2).double(), prior.read(PROMPTS)
    names, groups = prior._groups(conditioning.prompts, (3, 4))
    vectors = torch.stack([prior._of(name).weights for name in names]).requires_grad_()
    draws = rng(3, 4)
    t = draws.integers(0, 1000)
    eps = draws.normal(4, 8, 12).double()
    noisy = add_noise(x, eps, prior.diffusion.alphas_cumprod[t].double())
    with prior._adapters.applied(vectors, groups):
        loss = (prior.diffusion.predicted(noisy, t, conditioning["text"]) - eps).square().flatten(1).mean(1).sum()
    loss.backward()
    reference = torch.nn.Parameter(vectors.detach().clone())
    optimizer = torch.optim.Adam([reference], lr=1e-2)
    reference.grad = vectors.grad
    optimizer.step()
    prior.update(x, conditioning, Moment(5, 10), rng(3, 4))
    found = torch.stack([prior._learned[name].weights for name in names])
    torch.testing.assert_close(found, reference.detach(), atol=1e-9, rtol=1e-6)

    def error(p):
        with torch.no_grad(), p._adapters.applied(torch.stack([p._of(n).weights for n in names]), groups):
            return float((p.diffusion.predicted(noisy, t, conditioning["text"]) - eps).square().mean())

    before = error(load(Vsd, folder, torch.float64))
    for step in range(30):
        prior.update(x, conditioning, Moment(step, 100), rng(3, 4, step=step))
    assert error(prior) < before


@pytest.mark.parametrize("cls", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_samples_gradient_is_its_own_whatever_its_mates_and_the_chunks(sd1, cls, dtype):
    fields = {"inversion_steps": 2} if cls is Sdi else {"lr": 0.05} if cls is Vsd else {}
    x, prompts, seeds = latents(3).to(dtype), [*PROMPTS, PROMPTS[0]], (3, 4, 5)

    def after_a_lesson(prior, samples):
        conditioning = prior.read([prompts[i] for i in samples])
        keys = [seeds[i] for i in samples]
        for step in range(2):
            prior.update(x[samples], conditioning, Moment(step, 100), rng(*keys, step=step))
        return prior.gradient(x[samples], conditioning, Moment(5, 10), rng(*keys))[0]

    whole = after_a_lesson(load(cls, sd1, dtype, **fields), [0, 1, 2])
    chunked = after_a_lesson(load(cls, sd1, dtype, chunk=2, **fields), [0, 1, 2])
    tolerance = (1e-9 if dtype == torch.float64 else 1e-4) * whole.abs().max().item()
    torch.testing.assert_close(chunked, whole, atol=tolerance, rtol=0)
    for i in range(3):
        alone = after_a_lesson(load(cls, sd1, dtype, **fields), [i])
        torch.testing.assert_close(alone, whole[i : i + 1], atol=tolerance, rtol=0)


def test_images_of_a_prompt_that_share_an_adapter_are_declared_to_meet_and_do(sd1):
    assert not load(Vsd, sd1).couples_samples
    shared = load(Vsd, sd1, torch.float64, share="prompt", lr=0.05)
    assert shared.couples_samples
    alone = load(Vsd, sd1, torch.float64, share="prompt", lr=0.05)
    x = latents(2).double()
    shared.update(x, shared.read(["a ring"] * 2), Moment(0, 10), rng(3, 4))
    alone.update(x[:1], alone.read(["a ring"]), Moment(0, 10), rng(3))
    assert len(shared._learned) == 1
    both = shared.gradient(x, shared.read(["a ring"] * 2), Moment(5, 10), rng(3, 4))[0]
    one = alone.gradient(x[:1], alone.read(["a ring"]), Moment(5, 10), rng(3))[0]
    assert not torch.allclose(both[:1], one, atol=1e-6)


def vsd_run(sd1, **fields):
    return RunConfig.from_settings(
        {
            "prompts": ["a red ring"],
            "seeds": [1, 2],
            "canvas": {"name": "latent", "config": {"model": str(sd1)}},
            "size": [16, 16],
            "priors": [{"name": "vsd", "config": {"model": str(sd1), "lr": 0.05, **fields}}],
            "optimizer": {"name": "adam", "lr": 0.1},
            "steps": 4,
            "device": "cpu",
        }
    )


@pytest.mark.parametrize("share", ["sample", "prompt"])
def test_a_resumed_run_with_vsd_is_the_whole_run_bit_for_bit(sd1, share, tmp_path):
    config = vsd_run(sd1, share=share)
    whole = Inversion(config)
    assert any('"vsd" couples samples' in note for note in whole.notes) == (share == "prompt")
    list(whole)
    part = Inversion(config)
    next(part)
    next(part)
    torch.save(part.state_dict(), tmp_path / "state.pt")
    resumed = Inversion(config)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    list(resumed)
    assert torch.equal(resumed.params["latent"], whole.params["latent"])
    ours, theirs = whole.state_dict(), resumed.state_dict()
    assert ours["meta"] == theirs["meta"]
    assert all(torch.equal(theirs["tensors"][name], value) for name, value in ours["tensors"].items())


def test_a_run_with_an_adapter_a_sample_is_exact(sd1):
    both = Inversion(vsd_run(sd1))
    list(both)
    one = Inversion(vsd_run(sd1).model_copy(update={"seeds": [2]}))
    list(one)
    torch.testing.assert_close(both.params["latent"][1], one.params["latent"][0], atol=1e-3, rtol=0)


def test_annealing_walks_from_the_highest_timestep_to_the_lowest(sd1):
    prior = load(Sds, sd1, timesteps=(100, 900), anneal=8)
    assert [int(prior.draw_timesteps(Moment(step, 60), rng(3))[0]) for step in (0, 4, 8, 50)] == [900, 500, 100, 100]


@pytest.mark.fault("4.14")
@pytest.mark.parametrize("kind", [Nfsd, Sdi, Vsd])
def test_the_guidance_of_every_distillation_is_that_of_the_step(kind, sd1):
    moving = load(kind, sd1, guidance=Linear(start=30, end=5))
    for step in (0, 6):
        still = load(kind, sd1, guidance=30 - 2.5 * step)
        found, expected = (
            prior.gradient(latents(), prior.read(PROMPTS), Moment(step, 10), rng(3, 4))[0] for prior in (moving, still)
        )
        assert torch.equal(found, expected)


@pytest.mark.fault("4.14")
def test_the_adapters_of_vsd_learn_at_the_rate_of_the_step(sd1):
    moving, still = load(Vsd, sd1, lr=Linear(start=2**-8, end=2**-7)), load(Vsd, sd1, lr=1.5 * 2**-8)
    for prior in (moving, still):
        prior.update(latents(), prior.read(PROMPTS), Moment(5, 10), rng(3, 4))
    assert torch.equal(moving.state_dict()["weights"], still.state_dict()["weights"])
