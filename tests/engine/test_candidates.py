"""Candidates: the first is the plain run, samples never meet, the referees keep the best, a resumed run agrees."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import run, toy_config

from refcore.engine.candidates import best_first, consensus, spread
from refcore.engine.inversion import Candidate, Inversion
from refcore.errors import ConfigError
from refcore.runs.run import Run
from refcore.runs.state import load_state, save_state

ADAM = {"name": "adamw", "lr": 0.05, "weight_decay": 0.1}
EMA = {"decay": 0.9, "restarts": [1]}
HALVING = {"count": 4, "keep": [[2, 2], [4, 1]], "recent": 2}


def test_candidate_0_is_the_run_without_candidates() -> None:
    fields: dict[str, Any] = {"noise": 0.1, "optimizer": ADAM, "ema": EMA}
    plain = run(toy_config(**fields), steps=3)
    several = run(toy_config(**fields, candidates={"count": 3}), steps=3)
    assert several.candidates == tuple(Candidate(b, c) for b in range(2) for c in range(3))
    params = several.params["latent"].view(2, 3, *plain.params["latent"].shape[1:])
    assert torch.allclose(params[:, 0], plain.params["latent"], rtol=0, atol=1e-10)
    assert not torch.allclose(params[:, 1], params[:, 0], atol=1e-2)


@pytest.mark.parametrize("recent", [0, 2])
def test_samples_with_candidates_never_meet(recent: int) -> None:
    fields: dict[str, Any] = {"noise": 0.1, "optimizer": ADAM, "ema": EMA, "candidates": {**HALVING, "recent": recent}}
    batch = run(toy_config(seeds=[3, 4, 5], **fields))
    for b, (prompt, seed) in enumerate(batch.samples):
        alone = run(toy_config(prompts=[prompt], seeds=[seed], **fields))
        assert alone.leaders() == batch.leaders()[b : b + 1]
        assert torch.allclose(batch.params["latent"][b], alone.params["latent"][0], rtol=0, atol=1e-9)


@pytest.mark.parametrize("optimizer", [ADAM, {"name": "sgd", "lr": 0.1, "momentum": 0.9}])
@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_a_resumed_halving_is_the_whole_one_bit_for_bit(steps: int, optimizer: Any, tmp_path: Path) -> None:
    fields: dict[str, Any] = {"dtype": "float32", "noise": 0.1, "ema": EMA, "output": "best", "best": {"every": 2}}
    config = toy_config(**fields, optimizer=optimizer, candidates=HALVING)
    whole = run(config)
    save_state(run(config, steps=steps).state_dict(), tmp_path / "state")
    resumed = Inversion(config, state=load_state(tmp_path / "state"))
    for _ in resumed:
        pass
    theirs, ours = resumed.state_dict(), whole.state_dict()
    assert theirs["meta"] == ours["meta"]
    assert theirs["tensors"].keys() == ours["tensors"].keys()
    assert all(torch.equal(theirs["tensors"][name], value) for name, value in ours["tensors"].items())
    assert torch.equal(resumed.images(), whole.images())


@pytest.mark.parametrize("recent", [0, 5])
def test_with_the_best_as_output_the_candidate_with_the_best_image_is_kept(
    recent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not the one whose last image is best: where steps are noise alone, these are others."""
    ends: list[tuple[torch.Tensor, torch.Tensor]] = []
    drop = Inversion._drop

    def watched(self: Inversion) -> None:
        if self.step == self.config.steps:
            last = self.engine.losses(self.engine.decode(self.tracks.params, self.engine.end, self.tracks.numbers),
                                      self.tracks.numbers)["toy"]  # fmt: skip
            ends.append((self.tracks.best_loss.clone(), last))
        drop(self)

    monkeypatch.setattr(Inversion, "_drop", watched)
    inversion = run(
        toy_config(
            prompts=["a"], seeds=[5], referees=[{"name": "toy"}], priors=[], noise=0.3, steps=6,
            optimizer={"name": "sgd", "lr": 1e-9}, output="best", best={"every": 1},
            candidates={"count": 8, "recent": recent, "by": "loss"},
        )
    )  # fmt: skip
    ((best, last),) = ends
    assert best.argmin() != last.argmin(), "the toy's candidates no longer differ enough"
    assert inversion.tracks.best_loss.item() == best.min()


def test_memory_and_history_shrink_to_the_survivors() -> None:
    inversion = Inversion(toy_config(candidates=HALVING, optimizer=ADAM, ema=EMA))
    rows, alive = [], []
    for result in inversion:
        record = result.record()
        assert len(record["active"]) == len(record["losses"]["toy"]) == len(record["candidates"])
        alive.append({tuple(candidate) for candidate in record["candidates"]})
        state = inversion.state_dict()["tensors"]
        rows.append(
            {len(state[name]) for name in ("params.latent", "ema.latent", "optimizer.latent.exp_avg", "waited")}
        )
    assert [len(candidates) for candidates in alive] == [8, 8, 4, 4, 2, 2]
    assert rows == [{8}, {4}, {4}, {2}, {2}, {2}]
    assert all(later <= earlier for earlier, later in pairwise(alive))
    assert alive[-1] == set(inversion.candidates)


def test_the_survivor_goes_on_as_if_it_had_been_alone() -> None:
    fields: dict[str, Any] = {"noise": 0.1, "optimizer": ADAM, "ema": EMA}
    halved = run(toy_config(candidates=HALVING, **fields))
    rows = [b * 4 + c for b, c in enumerate(halved.leaders())]
    whole = Inversion(toy_config(candidates={"count": 4}, **fields))
    whole._drop = lambda: None  # type: ignore[method-assign]
    list(whole)
    assert torch.allclose(halved.params["latent"], whole.params["latent"][rows], rtol=0, atol=1e-10)


def test_the_dropped_are_those_that_the_referees_like_least() -> None:
    config = toy_config(candidates={"count": 4, "keep": [[1, 2]], "recent": 0}, views={"main": {"count": 1}})
    inversion = Inversion(config)
    whole = Inversion(config)
    whole._drop = lambda: None  # type: ignore[method-assign]
    next(inversion)
    next(whole)
    losses = whole.engine.losses(whole.engine.decode(whole.params, whole.engine.end), list(range(8)))
    for b in range(2):
        mine = torch.stack([losses["toy"], losses["toy-2"]])[:, 4 * b : 4 * b + 4].detach()
        standard = (mine - mine.mean(1, keepdim=True)) / mine.std(1, correction=0, keepdim=True)
        best = standard.mean(0).argsort()[:2].sort().values.tolist()
        assert [c.candidate for c in inversion.candidates if c.sample == b] == best


def test_by_loss_the_dropped_are_those_of_the_highest_weighted_sum() -> None:
    halving = {"count": 4, "keep": [[1, 2]], "recent": 0, "by": "loss"}
    inversion = Inversion(toy_config(candidates=halving, views={"main": {"count": 1}}))
    whole = Inversion(inversion.config)
    whole._drop = lambda: None  # type: ignore[method-assign]
    next(inversion)
    next(whole)
    losses = whole.engine.losses(whole.engine.decode(whole.params, whole.engine.end), list(range(8)))
    weights = {use.label: use.term.largest_weight(2) for use in whole.engine.panel.referees}
    total = sum(weight * losses[label].detach() for label, weight in weights.items())
    for b in range(2):
        best = total[4 * b : 4 * b + 4].argsort()[:2].sort().values.tolist()
        assert [c.candidate for c in inversion.candidates if c.sample == b] == best


def test_no_referee_outweighs_the_others() -> None:
    # Two mild referees prefer candidate 0; a third one, on a huge scale, is against it.
    losses = torch.tensor([[0.1, 0.5, 0.6], [0.2, 0.4, 0.6], [900.0, 100.0, 0.0]])
    assert best_first(losses, spread(losses), losses.sum(0))[0] == 0
    scaled = losses * torch.tensor([[1.0], [7.0], [1e-6]])
    assert torch.allclose(consensus(losses, spread(losses)), consensus(scaled, spread(scaled)))


def test_a_balanced_pair_is_decided_by_the_weighted_loss() -> None:
    losses = torch.tensor([[0.0, 1.0], [3.0, 0.0]])
    assert best_first(losses, spread(losses), losses.sum(0)) == [1, 0]
    assert best_first(losses, spread(losses), torch.tensor([1.0, 2.0])) == [0, 1]


def test_a_referee_that_has_not_judged_all_does_not_count() -> None:
    losses = torch.tensor([[1.0, 0.0], [torch.nan, 0.0]])
    assert torch.allclose(consensus(losses, spread(losses)), torch.tensor([1.0, -1.0]))


def test_the_result_names_the_surviving_candidate(tmp_path: Path) -> None:
    inversion = run(toy_config(candidates=HALVING))
    result = Run(inversion.config, out=tmp_path / "run").execute()
    assert [sample.candidate for sample in result.samples] == [c.candidate for c in inversion.candidates]
    written = json.loads((tmp_path / "run" / "result.json").read_text())["samples"]
    assert [sample["candidate"] for sample in written] == [c.candidate for c in inversion.candidates]
    early = run(toy_config(candidates=HALVING), steps=1)
    assert early.images().shape == (2, 3, 32, 32)
    chosen = torch.cat(
        [early.engine.decode({"latent": early.params["latent"][i : i + 1]}, early.engine.end) for i in early._leading()]
    )
    assert torch.equal(early.images(), chosen.clamp(0, 1))


def test_early_stops_and_candidates_agree() -> None:
    fields: dict[str, Any] = {"early_stop": {"every": 1, "patience": 1, "min_delta": 0.05}, "optimizer": ADAM}
    inversion = run(toy_config(candidates=HALVING, **fields))
    assert inversion.images().shape == (2, 3, 32, 32)
    assert set(inversion.tracks.active) <= set(range(len(inversion.candidates)))


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        ({"count": 4, "keep": [[3, 2], [2, 1]]}, "increasing steps"),
        ({"count": 4, "keep": [[2, 4]]}, r"decreasing n, below count \(4\)"),
        ({"count": 4, "keep": [[2, 2], [3, 2]]}, "expected .step, n. pairs"),
        ({"count": 2, "views": "mian"}, 'candidates.views: unknown view group "mian"'),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(candidates: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        toy_config(candidates=candidates)


def test_a_run_that_is_shorter_than_the_schedule_ends_with_one() -> None:
    inversion = run(toy_config(candidates={"count": 3, "keep": [[40, 2], [80, 1]]}, steps=2))
    assert [c.sample for c in inversion.candidates] == [0, 1]


def test_candidates_without_a_referee_are_refused() -> None:
    with pytest.raises(ConfigError, match="no referee ever has a weight"):
        toy_config(referees=[], candidates={"count": 2})


AGAIN = {"recent": 0, "by": "loss", "tries": 2}
NEVER, ALWAYS = 1e9, -1e9
"""Values of `until` at which every sample is good enough, and none."""


def test_a_sample_that_is_good_enough_does_not_begin_again() -> None:
    fields: dict[str, Any] = {"noise": 0.1, "optimizer": ADAM, "ema": EMA}
    once = run(toy_config(**fields, candidates={**HALVING, "recent": 0, "by": "loss"}))
    twice = run(toy_config(**fields, candidates={**HALVING, **AGAIN, "until": NEVER}))
    assert (twice.step, twice.attempt) == (6, 0)
    assert torch.equal(twice.images(), once.images())


def test_two_tries_are_two_candidates_one_after_the_other() -> None:
    fields: dict[str, Any] = {"seeds": [3, 4, 5], "noise": 0.1, "optimizer": ADAM, "ema": EMA}
    beside = run(toy_config(**fields, candidates={"count": 2, "recent": 0, "by": "loss"}))
    after = run(toy_config(**fields, candidates={"count": 1, **AGAIN, "until": ALWAYS}))
    assert (after.step, after.attempt) == (12, 1)
    assert after.leaders() == beside.leaders()
    assert set(after.leaders()) == {0, 1}  # either end is the better one for some sample
    assert torch.allclose(after.params["latent"], beside.params["latent"], rtol=0, atol=1e-10)


def test_only_samples_above_until_begin_again_and_they_never_meet() -> None:
    fields: dict[str, Any] = {"noise": 0.1, "optimizer": ADAM, "ema": EMA}
    once = run(toy_config(**fields, seeds=[3, 4, 5], candidates={"count": 2, "recent": 0, "by": "loss"}))
    ends = once._total(once.engine.losses(once.images("ema"), once.tracks.numbers)).sort().values
    halving = {"count": 2, **AGAIN, "until": float(ends[2] + ends[3]) / 2}
    batch = run(toy_config(**fields, seeds=[3, 4, 5], candidates=halving))
    again = 0
    for b, (prompt, seed) in enumerate(batch.samples):
        alone = run(toy_config(**fields, prompts=[prompt], seeds=[seed], candidates=halving))
        again += alone.attempt
        assert alone.leaders() == batch.leaders()[b : b + 1]
        assert torch.allclose(batch.params["latent"][b], alone.params["latent"][0], rtol=0, atol=1e-9)
    assert again == 3


def test_candidates_of_a_later_try_are_dropped_as_those_of_the_first() -> None:
    inversion = Inversion(toy_config(candidates={**HALVING, **AGAIN, "until": ALWAYS}, optimizer=ADAM, ema=EMA))
    alive = [len(step.candidates) for step in inversion]
    assert alive == [8, 8, 4, 4, 2, 2, 10, 10, 6, 6, 4, 4]  # the ends of the first try wait beside the second
    assert len(inversion.candidates) == 2
    active = [sum(step.active) for step in Inversion(inversion.config)]
    assert active == [8, 8, 4, 4, 2, 2] * 2


@pytest.mark.parametrize("until", [5.0, {"toy": 0.5, "toy-2": 0.5}])
def test_until_is_of_the_weighted_sum_or_of_referees_by_label(until: Any) -> None:
    inversion = run(toy_config(seeds=[3, 4, 5], candidates={"count": 1, **AGAIN, "until": until}))
    above = inversion._above(torch.tensor([[0.4, 0.6, 0.4, 3.0], [0.4, 0.4, 5.0, 0.1]], dtype=torch.float64))
    # The weights of the two are 2 and 1.
    assert above.tolist() == ([False, False, True, True] if isinstance(until, float) else [False, True, True, True])


@pytest.mark.parametrize("steps", [1, 3, 5, 6, 7, 9, 11])
def test_a_resumed_second_try_is_the_whole_one_bit_for_bit(steps: int, tmp_path: Path) -> None:
    fields: dict[str, Any] = {"dtype": "float32", "noise": 0.1, "ema": EMA, "output": "best", "best": {"every": 2}}
    config = toy_config(**fields, optimizer=ADAM, candidates={**HALVING, **AGAIN, "until": ALWAYS})
    whole = run(config)
    save_state(run(config, steps=steps).state_dict(), tmp_path / "state")
    resumed = Inversion(config, state=load_state(tmp_path / "state"))
    list(resumed)
    theirs, ours = resumed.state_dict(), whole.state_dict()
    assert theirs["meta"] == ours["meta"]
    assert all(torch.equal(theirs["tensors"][name], value) for name, value in ours["tensors"].items())
    assert torch.equal(resumed.images(), whole.images())


def test_a_try_that_stops_early_is_followed_by_the_next() -> None:
    stop = {"every": 1, "patience": 1, "min_delta": 1e6}
    inversion = run(toy_config(early_stop=stop, candidates={"count": 2, **AGAIN, "until": ALWAYS}))
    assert (inversion.attempt, inversion.step, len(inversion.candidates)) == (1, 2 * 2, 2 * (1 + 2))


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        ({"tries": 2}, r"until is null; expected tries above 1 and until together"),
        ({"until": 1.0}, r"tries is 1; expected tries above 1 and until together"),
        ({"tries": 2, "until": {}}, r"until is \{\}; expected a loss"),
        ({"tries": 2, "until": {"tyo": 1.0}}, r'candidates\.until: no referee of this run has the label "tyo"'),
    ],
)
def test_tries_and_until_come_together(candidates: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        toy_config(candidates=candidates)
