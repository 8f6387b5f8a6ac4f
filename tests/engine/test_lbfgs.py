"""L-BFGS is torch's, sample by sample: samples do not meet, a state comes back to the bit, and misfits are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from toys import run, toy_config

from refcore.config.optimize import Optimizer
from refcore.engine.inversion import Inversion
from refcore.engine.tracks import Tracks
from refcore.errors import ConfigError, NonFiniteError, RefcoreError
from refcore.moment import Moment
from refcore.runs.state import load_state, save_state

LBFGS: dict[str, Any] = {"name": "lbfgs", "lr": 1.0, "max_iter": 4, "history": 3}
PIXELS: dict[str, Any] = {
    "canvas": {"name": "toy_pixel"},
    "referees": [{"name": "toy", "weight": 2.0, "views": "clean", "config": {"side": 24}}],
    "priors": [{"name": "smooth", "weight": 0.5}],
    "optimizer": LBFGS,
}
"""Both tensors of the pixels, one referee that sees them as they are, and one prior that has a value."""


def lbfgs_config(**fields: Any) -> Any:
    """Two referees in random views and one prior with a value, on the latent canvas."""
    return toy_config(**{"optimizer": LBFGS, "priors": [{"name": "smooth"}], **fields})


def assert_same(ours: Inversion, theirs: Inversion) -> None:
    """Every tensor and plain value of two runs' states is the same."""
    one, other = ours.state_dict(), theirs.state_dict()
    assert one["meta"] == other["meta"]
    assert one["tensors"].keys() == other["tensors"].keys()
    for name, value in one["tensors"].items():
        assert torch.equal(value.nan_to_num(), other["tensors"][name].nan_to_num()), name


def test_a_quadratic_reaches_its_minimum_in_two_steps() -> None:
    scales = torch.tensor([[1.0, 10.0, 100.0], [3.0, 1.0, 0.1]], dtype=torch.float64)
    start = torch.tensor([[3.0, -2.0, 1.0], [1.0, 5.0, -4.0]], dtype=torch.float64)

    def evaluate(row: int, params: dict[str, Tensor]) -> tuple[float, dict[str, Tensor]]:
        own = scales[row]
        return float((own * (params["x"][0] - 7).square()).sum() / 2), {"x": own * (params["x"] - 7)}

    moving = Tracks({"x": start}, Optimizer(name="lbfgs", lr=1.0, max_iter=20, history=10), None, False, 0)
    for step in range(2):
        first = [evaluate(row, {"x": moving.params["x"][[row]]}) for row in (0, 1)]
        loss, gradient = torch.tensor([own for own, _ in first]), torch.cat([own["x"] for _, own in first])
        before = moving.params["x"].clone()
        found = moving.searched(loss, {"x": gradient}, [0, 1], Moment(step, 2), evaluate)
        assert torch.equal(moving.params["x"], before)  # until it is taken over
        moving.move([0, 1], found)
    torch.testing.assert_close(moving.params["x"], torch.full_like(start, 7), rtol=1e-6, atol=0)


def test_a_run_is_torchs_optimiser_on_the_sum_of_the_losses() -> None:
    """20 steps of torch.optim.LBFGS on both tensors, the objective written out on its own."""
    inversion = Inversion(toy_config(**PIXELS, prompts=["a cat"], steps=20))
    coarse, fine = (value.detach().clone().requires_grad_() for value in inversion.params.values())
    optimizer = torch.optim.LBFGS([coarse, fine], 1.0, max_iter=4, history_size=3, line_search_fn="strong_wolfe")
    (judge,) = inversion.engine.panel.referees
    referee: Any = judge.referee
    start = fine.detach().clone()

    def closure() -> Tensor:
        optimizer.zero_grad()
        image = (coarse + fine).sigmoid()
        rough = image.diff(dim=-1).square().mean()
        judged: Tensor = 2.0 * referee.judge(image, judge.conditioning, torch.zeros(1, dtype=torch.int64)).sum()
        total = judged + 0.5 * rough
        torch.autograd.backward(total)
        return total

    for result in inversion:
        loss: Tensor = optimizer.step(closure)  # type: ignore[no-untyped-call]
        torch.testing.assert_close(2 * result.losses["toy"] + 0.5 * result.losses["smooth"], loss.detach().view(1))
        for name, value in (("coarse", coarse), ("fine", fine)):
            atol = 1e-11 if result.step < 5 else 1e-4  # rounding grows about threefold a step
            torch.testing.assert_close(inversion.params[name].detach(), value.detach(), rtol=0, atol=atol)
    assert inversion.step == 20
    assert float((fine.detach() - start).norm()) > 0.1


def test_two_samples_of_a_batch_have_the_bits_of_each_alone() -> None:
    batch = run(toy_config(**PIXELS, steps=3))
    for b, (prompt, seed) in enumerate(batch.samples):
        alone = run(toy_config(**PIXELS, steps=3, prompts=[prompt], seeds=[seed]))
        for name, value in alone.params.items():
            assert torch.equal(batch.params[name][b], value[0]), name


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_resumed_run_is_the_whole_run_bit_for_bit(dtype: str, tmp_path: Path) -> None:
    halving = {"count": 3, "keep": [[2, 2], [4, 1]], "recent": 2}
    fields: dict[str, Any] = {"ema": {"decay": 0.5}, "candidates": halving}
    config = lbfgs_config(dtype=dtype, **fields)
    whole = run(config)
    for steps in (1, 3, 5):
        save_state(run(config, steps=steps).state_dict(), tmp_path / "state")
        resumed = Inversion(config, state=load_state(tmp_path / "state"))
        assert [result.step for result in resumed] == list(range(steps, 6))
        assert_same(resumed, whole)


def test_the_views_are_the_same_in_all_evaluations_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    inversion = Inversion(lbfgs_config(steps=2))
    made, evaluated = inversion.engine.gradients, []

    def seen(params: Any, tracks: Any, step: int) -> Any:
        evaluated.append((list(tracks), step))
        return made(params, tracks, step)

    monkeypatch.setattr(inversion.engine, "gradients", seen)
    before = inversion.tracks.snapshot().params
    next(inversion)
    assert evaluated[0] == ([0, 1], 0)
    assert {(tuple(tracks), step) for tracks, step in evaluated[1:]} == {((0,), 0), ((1,), 0)}
    after = inversion.tracks.snapshot().params
    old, new = (inversion.engine.total(made(params, [0, 1], 0), 0) for params in (before, after))
    assert (new < old).all()  # in the views of the step, of which other steps have others


def test_the_survivor_goes_on_as_if_it_had_been_alone() -> None:
    halved = run(lbfgs_config(candidates={"count": 3, "keep": [[2, 1]], "recent": 0}))
    rows = [3 * b + c for b, c in enumerate(halved.leaders())]
    whole = Inversion(lbfgs_config(candidates={"count": 3}))
    whole._drop = lambda: None  # type: ignore[method-assign]
    list(whole)
    assert torch.allclose(halved.params["latent"], whole.params["latent"][rows], rtol=0, atol=1e-8)
    state = halved.state_dict()["tensors"]
    kept = {name.split(".")[1] for name in state if name.startswith("optimizer.")}
    assert kept == {str(number) for number in rows}


def test_another_try_begins_without_curvature() -> None:
    config = lbfgs_config(candidates={"count": 1, "tries": 2, "until": -1.0}, steps=2)
    inversion = run(config)
    assert inversion.step == 4
    side_by_side = lbfgs_config(candidates={"count": 2}, steps=2)
    assert torch.allclose(inversion.images(), run(side_by_side).images(), rtol=0, atol=1e-8)


def test_a_sample_that_stops_early_is_neither_moved_nor_evaluated() -> None:
    free, path = Inversion(toy_config(**PIXELS, steps=4)), []
    for _ in free:
        path.append({name: value.detach().clone() for name, value in free.params.items()})
    inversion = Inversion(toy_config(**PIXELS, steps=4, early_stop={"every": 1, "patience": 1, "first": 4}))
    next(inversion)
    inversion.tracks.active = [1]
    made, evaluated = inversion.engine.gradients, []
    inversion.engine.gradients = lambda params, tracks, step: (  # type: ignore[method-assign]
        evaluated.append(list(tracks)) or made(params, tracks, step)  # type: ignore[func-returns-value]
    )
    results = list(inversion)
    assert all(result.active == (False, True) for result in results)
    assert {track for tracks in evaluated for track in tracks} == {1}
    for name, value in inversion.params.items():
        assert torch.equal(value[0], path[0][name][0])
        assert torch.equal(value[1], path[-1][name][1])


def test_patience_freezes_what_no_longer_improves() -> None:
    inversion = run(lbfgs_config(steps=30, early_stop={"every": 1, "patience": 1, "min_delta": 1e9}))
    assert inversion.step == 2
    assert inversion.tracks.active == []


def test_an_evaluation_that_is_not_finite_leaves_the_step_undone() -> None:
    referee = {"name": "toy", "views": "clean", "config": {"side": 24, "nan_at": 5}}
    inversion = Inversion(toy_config(**{**PIXELS, "referees": [referee]}))
    with pytest.raises(NonFiniteError, match='"toy" gave NaN or infinity') as caught:
        list(inversion)
    assert caught.value.terms == ("toy",)
    assert (inversion.step, inversion.savable) == (0, True)  # the first sample's search was over
    for name, value in Inversion(inversion.config).params.items():
        assert torch.equal(inversion.params[name], value)
    assert not any(name.startswith("optimizer.") for name in inversion.state_dict()["tensors"])


def test_a_rate_of_0_keeps_a_step_where_it_is() -> None:
    rising = {"kind": "linear", "start": 0.0, "end": 1.0}
    inversion = Inversion(lbfgs_config(optimizer={**LBFGS, "lr": rising}))
    before = inversion.params["latent"].detach().clone()
    next(inversion)
    assert torch.equal(inversion.params["latent"], before)
    next(inversion)
    assert not torch.equal(inversion.params["latent"], before)


def test_a_prior_without_a_value_is_refused() -> None:
    inversion = Inversion(toy_config(optimizer=LBFGS))
    with pytest.raises(RefcoreError, match=r'the prior "toy_sds" has a gradient without a value.*such as adam'):
        next(inversion)


REFEREE = {"name": "toy", "weight": 2.0}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"combine": {"name": "norm_balance"}}, r"combine is norm_balance, but .* expected combine\.name=sum"),
        ({"combine": {"name": "pcgrad"}}, r"combine is pcgrad, but .* expected combine\.name=sum"),
        ({"combine": {"name": "sum", "votes": "equal"}}, r"combine\.votes is equal, .* combine\.votes=weighted"),
        ({"referees": [REFEREE, {**REFEREE, "satisfied_at": 0.0}]}, r"referees\.1\.satisfied_at is 0\.0, .* null"),
        ({"canvas": {"name": "toy_latent", "autocast": "bfloat16"}}, r"canvas\.autocast is bfloat16, .* null"),
        ({"optimizer": {**LBFGS, "lr": {"latent": 1.0}}}, r"lr names latent, but lbfgs .* one rate, such as 1\.0"),
        ({"optimizer": {**LBFGS, "momentum": 0.9}}, r"momentum is 0\.9, which lbfgs does not have; expected 0"),
        ({"optimizer": {**LBFGS, "weight_decay": 0.1}}, r"weight_decay is 0\.1, which lbfgs .* expected 0"),
    ],
)
def test_what_lbfgs_cannot_do_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        lbfgs_config(**fields)


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        ({"name": "clip"}, r"transforms\.0\.at is gradient, but .* lbfgs, .* leave clip out"),
        ({"name": "clip", "at": "terms"}, r"transforms\.0\.at is terms, but .* leave clip out"),
        ({"name": "white_noise", "at": "gradient"}, r"transforms\.0\.at is gradient, .* transforms\.0\.at=parameters"),
    ],
)
def test_transforms_of_gradients_are_refused_and_those_of_parameters_are_not(
    transform: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Inversion(lbfgs_config(transforms=[transform]))
    next(Inversion(lbfgs_config(transforms=[{"name": "white_noise", "at": "parameters", "config": {"block": 4}}])))
