"""A start by search: samples with draws of their own, rounds around the best, samples that never meet."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from toys import toy_config

from refcore.diagnostics.smoothness import _path
from refcore.engine.inversion import Inversion
from refcore.engine.step import Engine
from refcore.errors import ConfigError, RefcoreError

ROUNDS = {"steps": 1, "guidance": 1.0, "rounds": [[2, 0.5], [1, 0.25]]}


def test_a_start_from_a_sample_uses_draws_of_its_own() -> None:
    inversion = Inversion(toy_config(init="sample", candidates={"count": 2}))
    assert inversion.params["latent"].shape[0] == 4
    assert len({value.sum().item() for value in inversion.params["latent"]}) == 4
    alone = Inversion(toy_config(init="sample", prompts=["a dog"]))
    assert torch.equal(inversion.params["latent"][2], alone.params["latent"][0])
    start = Inversion(toy_config(init={"steps": 3, "guidance": 2.0}, prompts=["a dog"]))
    assert torch.allclose(start.params["latent"], alone.params["latent"] * 6 / 375)  # the toy scales by both


def test_a_start_from_a_sample_is_refused_where_nothing_can_be_sampled() -> None:
    with pytest.raises(RefcoreError, match="no prior of this run can be sampled; add a prior"):
        Inversion(toy_config(init="sample", priors=[{"name": "smooth"}]))
    with pytest.raises(RefcoreError, match='prior "smooth", which cannot be sampled'):
        Inversion(toy_config(init={"prior": "smooth"}))
    with pytest.raises(RefcoreError, match='canvas "toy_pixel" has no latents'):
        Inversion(toy_config(init="sample", canvas={"name": "toy_pixel"}))
    with pytest.raises(ConfigError, match=r'init\.prior is "sdx".*known: toy_sds, smooth'):
        toy_config(init={"prior": "sdx"})


def start(rounds: list[Any], **fields: Any) -> Inversion:
    return Inversion(toy_config(init={**ROUNDS, "rounds": rounds}, candidates={"count": 5, "by": "loss"}, **fields))


def look(inversion: Inversion) -> torch.Tensor:
    """[samples, candidates] summed weighted losses of the clean images."""
    weights = torch.tensor([weight for _, weight in inversion.engine.compared])
    losses = inversion.engine.look(inversion.params, range(len(inversion.engine.keys)))
    return (weights[:, None] * losses).sum(0).view(-1, 5)


def test_a_round_keeps_the_best_and_samples_the_others_around_them_in_turn() -> None:
    before, after = start([]), start([[2, 0.5]])
    for b, losses in enumerate(look(before)):
        best = losses.argsort().tolist()
        theirs, ours = (run.params["latent"].view(2, 5, -1)[b] for run in (before, after))
        assert torch.equal(ours[best[:2]], theirs[best[:2]])
        for turn, row in enumerate(best[2:]):
            away = [(ours[row] - theirs[parent]).norm().item() for parent in best[:2]]
            # The toy adds half of a standard normal draw to the parent: the other one lies farther off.
            assert away[turn % 2] == pytest.approx(0.5 * ours[row].numel() ** 0.5, rel=0.25)
            assert not torch.equal(ours[row], theirs[row])


def test_rounds_never_lose_the_best() -> None:
    found = [look(start(ROUNDS["rounds"][:n])).amin(1) for n in range(3)]  # type: ignore[index]
    assert (found[1] <= found[0]).all()
    assert (found[2] <= found[1]).all()
    assert (found[2] < found[0]).any()


def test_the_best_of_a_search_goes_on_alone_where_keep_says_0() -> None:
    searched = start(ROUNDS["rounds"])  # type: ignore[arg-type]
    fields: Any = {"init": ROUNDS, "candidates": {"count": 5, "by": "loss", "keep": [[0, 1]]}}
    chosen = Inversion(toy_config(**fields))
    best = look(searched).argmin(1).tolist()
    assert [candidate.candidate for candidate in chosen.candidates] == best
    rows = [b * 5 + c for b, c in enumerate(best)]
    assert torch.equal(chosen.params["latent"], searched.params["latent"][rows])
    assert [len(result.active) for result in chosen] == [2] * chosen.config.steps


def test_a_resumed_run_does_not_search_again(monkeypatch: pytest.MonkeyPatch) -> None:
    config = toy_config(init=ROUNDS, candidates={"count": 5, "by": "loss", "keep": [[0, 2], [2, 1]]}, dtype="float32")
    whole, part = Inversion(config), Inversion(config)
    list(whole)
    next(part)
    monkeypatch.setattr(Engine, "sample", None)
    resumed = Inversion(config, state=part.state_dict())
    assert [result.step for result in resumed] == list(range(1, config.steps))
    assert resumed.leaders() == whole.leaders()
    assert torch.equal(resumed.images(), whole.images())


def test_samples_with_rounds_never_meet() -> None:
    batch = start(ROUNDS["rounds"], seeds=[3, 4])  # type: ignore[arg-type]
    for b, (prompt, seed) in enumerate(batch.samples):
        alone = start(ROUNDS["rounds"], prompts=[prompt], seeds=[seed])  # type: ignore[arg-type]
        ours = batch.params["latent"][b * 5 : b * 5 + 5]
        assert torch.allclose(ours, alone.params["latent"], rtol=0, atol=1e-9)


def test_the_probe_of_a_search_follows_the_first_sample_as_it_is() -> None:
    points = _path(toy_config(init=ROUNDS, candidates={"count": 5}, prompts=["a dog"]), [0])
    plain = Inversion(toy_config(init={**ROUNDS, "rounds": []}, prompts=["a dog"]))
    assert torch.equal(points[0][0]["latent"], plain.params["latent"])


def test_a_round_that_keeps_everyone_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"init\.rounds\.1 keeps 5 candidates, but candidates\.count is 5"):
        start([[2, 0.5], [5, 0.5]])
    with pytest.raises(ConfigError, match=r"init"):
        start([[2, 1.5]])
