"""The benchmark's instruments: that intervals, peaks and counts are what they say, and that both loops do the same."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from performance import models, table, verdict
from performance.loops import Reference, Tight
from performance.measure import flops, machine_rate, median, paired, peak_bytes
from performance.real import random_weights
from refcore.engine.build import build
from refcore.engine.inversion import Inversion
from refcore.engine.memory import peak_storages


def test_a_median_has_an_interval_that_holds_it() -> None:
    found = median([1.0, 2.0, 3.0, 4.0, 100.0])
    assert (found.value, found.low, found.high) == (3.0, 1.0, 100.0)
    many = median([1.0, 1.1] * 50)
    assert (many.low, many.high) == (1.0, 1.1)


def test_pairs_are_done_in_turn_and_compared_pair_by_pair() -> None:
    done = []
    found = paired(lambda: done.append("a"), lambda: done.append("b"), pairs=4, warm_up=1)
    assert done == ["a", "b", "a", "b", "b", "a", "a", "b", "b", "a"]
    assert len(found.first) == len(found.second) == 4


def test_twice_the_work_takes_about_twice_the_time() -> None:
    a = torch.rand(300, 300)
    ratio = paired(lambda: [a @ a for _ in range(40)], lambda: [a @ a for _ in range(20)], pairs=15).ratio
    assert 1.3 < ratio.value < 3


def test_the_peak_is_the_allocators_own() -> None:
    def work() -> None:
        a = torch.zeros(1000, 250)  # 1 MB
        b = a + 1
        del a, b
        torch.zeros(1000, 500)

    assert 2_000_000 <= peak_bytes(work) < 2_010_000


def test_the_peak_of_fake_tensors_is_that_of_real_ones() -> None:
    def work() -> None:
        x = torch.zeros(1000, 250, requires_grad=True)  # 1 MB
        torch.autograd.grad(x.exp().sin().sum(), x)  # exp and sin are kept, and the gradients of both are made

    real = peak_bytes(work)
    with FakeTensorMode():
        fake = peak_storages(work)
    assert fake == pytest.approx(real, rel=0.3)
    assert fake >= 4_000_000


def test_operations_are_counted() -> None:
    a = torch.rand(10, 20)
    assert flops(lambda: a @ a.T) == 2 * 10 * 20 * 10
    assert machine_rate(side=64, tries=2) > 1e6


@pytest.mark.slow
def test_the_tight_loop_is_the_same_mathematics() -> None:
    assert table.exactness(lambda name, found: None)


@pytest.mark.slow
def test_a_loop_that_differs_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("performance.loops.LR", 0.0501)
    assert not table.exactness(lambda name, found: None)


@pytest.mark.slow
def test_the_references_structure_costs_three_decodes_and_a_ranking_pass() -> None:
    engine = build(models.paper())
    ours = Inversion(engine.config, engine)
    reference = Reference(engine)
    tight = Tight(engine)
    x = tight.x

    def decode() -> None:
        with torch.no_grad():
            tight.decode(x)

    def rank() -> None:
        with torch.no_grad():
            reference.ranker.judge(tight.views(tight.decode(x)), reference.judges[0][1], reference.rows)

    more = flops(reference) - flops(lambda: next(ours))
    # Beside them the texts, a few words each.
    assert flops(decode) + flops(rank) < more < 1.1 * (flops(decode) + flops(rank))


def test_both_recipes_of_the_verdict_are_runs_and_their_knobs_turn() -> None:
    for settings in verdict.recipes().values():
        turned = verdict.turned(settings, dict.fromkeys(verdict.KNOBS, 2.0))
        assert turned["optimizer"]["lr"] == 2 * settings["optimizer"]["lr"]
        assert turned["priors"][0]["config"]["guidance"] == 2 * settings["priors"][0]["config"]["guidance"]
        assert turned["combine"]["factor"] != settings["combine"]["factor"]


def test_the_time_to_a_level_is_the_first_look_that_reaches_it() -> None:
    looks = [verdict.Look(0, 1.0, 0.2), verdict.Look(1, 2.0, 0.6), verdict.Look(2, 3.0, 0.5)]
    assert (verdict.seconds_to(0.5, looks), verdict.seconds_to(0.9, looks)) == (2.0, None)
    content = [verdict.Look(0, 0.5, 0.9)]
    assert verdict.ratio(content, looks) == {"level": 0.9, "value": 6.0, "at_least": True}
    assert verdict.ratio(content, content) == {"level": 0.9, "value": 1.0, "at_least": False}
    assert verdict.ratio(looks, content)["value"] is None


def test_random_models_are_finite_and_keep_their_norms() -> None:
    model = random_weights(lambda: torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.LayerNorm(4)))
    assert model(torch.ones(2, 8)).isfinite().all()
    assert (model[1].weight == 1).all()
    assert model[0].weight.std() > 0
