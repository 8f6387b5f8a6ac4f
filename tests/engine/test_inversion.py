"""The loop's claims: it resumes bit for bit, follows the paper's update, and freezes samples one by one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from toys import run, toy_config

from refcore.engine.inversion import Inversion
from refcore.errors import RefcoreError
from refcore.moment import Moment
from refcore.rng import Rng
from refcore.runs.state import load_state, save_state

EMA = {"decay": 0.9, "restarts": [1, 3], "momentum": "keep"}
ADAM = {"name": "adamw", "lr": 0.05, "weight_decay": 0.1, "schedule": "cosine"}


@pytest.mark.parametrize(
    "optimizer", [ADAM, {"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}]
)
def test_a_resumed_run_is_the_whole_run_bit_for_bit(optimizer: Any, tmp_path: Path) -> None:
    config = toy_config(dtype="float32", optimizer=optimizer, ema=EMA, output="best", best={"every": 2}, noise=0.1)
    whole = run(config)
    part = run(config, steps=3)
    save_state(part.state_dict(), tmp_path / "state")
    resumed = Inversion(config)
    resumed.load_state_dict(load_state(tmp_path / "state"))
    assert [result.step for result in resumed] == [3, 4, 5]
    theirs, ours = resumed.state_dict()["tensors"], whole.state_dict()["tensors"]
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)
    assert torch.equal(resumed.images(), whole.images())


def test_a_state_of_another_config_is_refused() -> None:
    state = run(toy_config(), steps=1).state_dict()
    with pytest.raises(RefcoreError, match=r"another config \(it differs in noise\)"):
        Inversion(toy_config(noise=0.5)).load_state_dict(state)


@pytest.mark.parametrize("optimizer", [ADAM, {"name": "sgd", "lr": 0.1, "momentum": 0.9}])
def test_samples_never_interact_over_a_run(optimizer: Any) -> None:
    fields = {"optimizer": optimizer, "ema": EMA, "noise": 0.1, "combine": {"name": "norm_balance"}}
    batch = run(toy_config(seeds=[3, 4], **fields))
    for i, (prompt, seed) in enumerate(batch.samples):
        alone = run(toy_config(prompts=[prompt], seeds=[seed], **fields))
        assert torch.allclose(batch.params["latent"][i], alone.params["latent"][0], rtol=0, atol=1e-9)


def test_the_papers_recipe_is_the_papers_update() -> None:
    """20 steps of PAPER.md's two-part update, written out on its own, with restarts after steps 5 and 11."""
    steps, sds_only, warmup = 20, 15, 4
    eta_fields = {"kind": "warmup_cosine", "warmup": warmup, "last": steps}
    config = toy_config(
        dtype="float32",
        referees=[{"name": "toy", "window": [0, sds_only]}],
        priors=[{"name": "toy_sds", "weight": {"kind": "cosine", "start": 0.8, "end": 0.4, "last": steps}}],
        views={"main": {"count": 2}},
        combine={"name": "norm_balance", "factor": {**eta_fields, "peak": 2.0, "end": 1.0}},
        optimizer={"name": "sgd", "lr": 1.0},
        steps=steps,
        noise={
            "kind": "piecewise",
            "pieces": [
                {"until": sds_only, "value": {"kind": "hypot", "of": [0.2, {**eta_fields, "peak": 0.2, "end": 0.1}]}},
                {"value": 0.01},
            ],
        },
        ema={"decay": 0.95, "restarts": [5, 11]},
    )
    inversion = Inversion(config)
    use, sds = inversion.engine.panel.referees[0], inversion.engine.priors[0]
    z = inversion.params["latent"].detach().clone()
    average = z.clone()
    for t in range(steps):
        if t < warmup:
            eta = (t + 1) / warmup
        else:
            eta = 0.5 + 0.25 * (1 + math.cos(math.pi * (t - warmup) / (steps - warmup)))
        rng = Rng([3, 3], t, "prior/toy_sds")
        weight = 0.4 + 0.2 * (1 + math.cos(math.pi * t / steps))
        g_sds = weight * sds.prior.gradient(z, sds.conditioning, Moment(t, 160), rng)[0]
        noise = Rng([3, 3], t, "noise/latent").normal(*z.shape[1:])
        if t < sds_only:
            g_ref = referee_gradient(inversion, z, use)
            ratio = g_sds.flatten(1).norm(dim=1) / g_ref.flatten(1).norm(dim=1)
            # Two draws of std 0.2 eta and 0.2 are one of std 0.2 sqrt(1 + eta^2).
            z = z - eta * 2 * ratio.view(-1, 1, 1, 1) * g_ref
            z = z - g_sds + 0.2 * math.sqrt(1 + eta**2) * noise
        else:
            z = z - g_sds + 0.01 * noise
        average = 0.95 * average + 0.05 * z
        if t in (5, 11):
            z = average.clone()
        next(inversion)
        assert torch.allclose(inversion.params["latent"], z, rtol=0, atol=1e-4), t
        assert torch.allclose(
            inversion.images("ema"), inversion.engine.decode({"latent": average}, inversion.engine.end), atol=1e-4
        )
    assert inversion.done


def referee_gradient(inversion: Inversion, z: Tensor, use: Any) -> Tensor:
    """Of -log p over the one view without augmentation, the same for every copy."""
    z = z.clone().requires_grad_()
    image = inversion.engine.canvas.decode({"latent": z}, inversion.engine.end)
    view = F.interpolate(image, (16, 16), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    loss = -F.logsigmoid(use.referee.logits(view, use.conditioning["text"]))
    return torch.autograd.grad(loss.sum(), z)[0]


def test_a_restart_copies_the_average() -> None:
    inversion = run(toy_config(ema={"decay": 0.5, "restarts": [0]}), steps=1)
    assert inversion.tracks.ema is not None
    assert torch.equal(inversion.params["latent"], inversion.tracks.ema["latent"])
    next(inversion)
    assert not torch.equal(inversion.params["latent"], inversion.tracks.ema["latent"])


@pytest.mark.parametrize(("momentum", "kept"), [("keep", True), ("reset", False)])
def test_a_restart_keeps_or_resets_momentum(momentum: str, kept: bool) -> None:
    fields = {"optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9}}
    inversion = run(toy_config(ema={"restarts": [0], "momentum": momentum}, **fields), steps=1)
    assert ("optimizer.latent.momentum_buffer" in inversion.state_dict()["tensors"]) == kept


def test_best_is_the_lowest_total_that_was_looked_at() -> None:
    # A learning rate that overshoots, so that the last step is not the best.
    config = toy_config(priors=[], optimizer={"name": "sgd", "lr": 40.0}, noise=1.0, output="best", best={"every": 1})
    inversion = Inversion(config)
    start = inversion.images("current")
    losses = inversion.engine.losses(start, [0, 1])
    totals, images = [2 * losses["toy"] + losses["toy-2"]], [start]  # the start may be the best
    for _ in inversion:
        losses = inversion.engine.losses(inversion.images("current"), [0, 1])
        totals.append(2 * losses["toy"] + losses["toy-2"])
        images.append(inversion.images("current"))
    best = torch.stack(totals).argmin(0).tolist()
    assert best != [6, 6]
    for b in range(2):
        assert torch.equal(inversion.images()[b], images[best[b]][b])


def test_a_start_that_no_step_improves_is_the_best() -> None:
    """Steps are noise alone, so that they make about half of the samples worse."""
    config = toy_config(
        prompts=["a"], seeds=[*range(8)], priors=[], referees=[{"name": "toy"}], noise=0.3, steps=1, output="best",
        optimizer={"name": "sgd", "lr": 1e-9},
    )  # fmt: skip
    inversion = Inversion(config)
    start, samples = inversion.images("current"), range(8)
    before = inversion.engine.losses(start, samples)["toy"]
    next(inversion)
    after = inversion.engine.losses(inversion.images("current"), samples)["toy"]
    assert 0 < (after > before).sum() < 8
    for b in samples:
        kept = start if after[b] > before[b] else inversion.images("current")
        assert torch.equal(inversion.images()[b], kept[b])


def test_early_stop_freezes_one_sample_and_leaves_the_other_alone() -> None:
    free = Inversion(toy_config(priors=[], optimizer={"name": "adam", "lr": 0.02, "weight_decay": 0.1}, noise=0.05))
    path = []
    for _ in free:
        losses = free.engine.losses(free.images(), [0, 1])
        path.append((losses["toy"].tolist(), free.params["latent"].detach().clone()))
    quick = min((0, 1), key=lambda b: path[1][0][b])
    slow = 1 - quick
    satisfied_at = path[1][0][quick] + 1e-9
    assert satisfied_at < min(losses[slow] for losses, _ in path[1:-1]), "the toy samples no longer differ enough"
    referees = [
        {"name": "toy", "weight": 2.0, "satisfied_at": satisfied_at},
        free.config.referees[1].model_dump(mode="json"),
    ]
    stopping = Inversion(
        free.config.from_settings(
            {**free.config.settings(), "referees": referees, "early_stop": {"every": 1, "first": 2}}
        )
    )
    results = list(stopping)
    assert [result.active[quick] for result in results] == [True, True, False, False, False, False]
    assert all(result.active[slow] for result in results)
    assert torch.equal(stopping.params["latent"][quick], path[1][1][quick])
    assert torch.allclose(stopping.params["latent"][slow], path[-1][1][slow], rtol=0, atol=1e-10)
    assert results[-1].losses["toy"][quick].isnan()
    assert results[-1].record()["active"] == [result == slow for result in (0, 1)]


def test_patience_ends_a_run_that_stands_still() -> None:
    config = toy_config(
        optimizer={"name": "sgd", "lr": 1e-12}, early_stop={"every": 1, "patience": 2, "min_delta": 1e-3}
    )
    inversion = run(config)
    assert inversion.step == 3
    assert inversion.tracks.active == []


def test_the_latent_noise_has_its_std() -> None:
    quiet = run(toy_config(noise=0.0), steps=1)
    noisy = run(toy_config(noise=0.5), steps=1)
    added = (noisy.params["latent"] - quiet.params["latent"]).detach()
    assert 0.4 < float(added.std()) < 0.6


def test_a_run_can_start_from_an_image(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(40, 200, (24, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "start.png")
    inversion = Inversion(toy_config(canvas={"name": "toy_pixel"}, size=[24, 24], init=str(tmp_path / "start.png")))
    middle = torch.from_numpy(pixels[:, 8:32].copy()).permute(2, 0, 1).double() / 255
    assert torch.allclose(inversion.images()[1], middle, atol=1e-6)
    with pytest.raises(RefcoreError, match=r"toy_latent.*cannot start from an image"):
        Inversion(toy_config(init=str(tmp_path / "start.png")))


def test_a_closed_run_keeps_its_image() -> None:
    inversion = run(toy_config(), steps=2)
    inversion.close()
    assert list(inversion) == []
    assert inversion.images().shape == (2, 3, 32, 32)


def test_an_image_that_is_not_kept_is_refused() -> None:
    with pytest.raises(RefcoreError, match='keeps no "ema" image: set ema'):
        Inversion(toy_config()).images("ema")
