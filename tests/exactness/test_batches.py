"""A sample of a batch is the sample alone: its draws bit for bit, its gradient to rounding; and a run repeats."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from refcore.config.run import RunConfig
from refcore.engine.build import build
from refcore.engine.combine import Rows
from refcore.engine.inversion import Inversion
from refcore.engine.start import start
from refcore.engine.step import Engine
from refcore.rng import Rng

TOLERANCE = {"float32": 1e-5, "float64": 1e-10}
ALONE = 1
"""The sample that is compared with its run alone: the one in the middle."""

Draws = dict[tuple[Any, ...], Tensor]


def parse(recipe: dict[str, Any], **fields: Any) -> RunConfig:
    return RunConfig.from_settings({**recipe, **fields})


def alone(recipe: dict[str, Any], **fields: Any) -> RunConfig:
    return parse(recipe, **fields, prompts=[recipe["prompts"][ALONE]])


def gradient(engine: Engine, step: int = 2) -> Tensor:
    """[B, D] at the starting parameters."""
    found = engine.gradients(start(engine), list(range(len(engine.keys))), step).combined
    return torch.cat([part.flatten(1) for part in found.values()], 1)


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Draws]:
    """Every draw of a run, by sample: (stream, step, seed, which draw of that stream) -> numbers."""
    draws: Draws = {}
    made: dict[int, tuple[Rng, int]] = {}
    original = Rng._draw

    def drawing(self: Rng, draw: Any) -> Tensor:
        drawn = original(self, draw)
        _, nth = made.get(id(self), (self, 0))
        made[id(self)] = self, nth + 1  # kept, so that no other is given its id
        for i, seed in enumerate(self.seeds):
            key = (self.stream, self.step, seed, nth)
            numbers = drawn[i * self.count : (i + 1) * self.count].clone()
            assert torch.equal(draws.setdefault(key, numbers), numbers), key
        return drawn

    monkeypatch.setattr(Rng, "_draw", drawing)

    def taken() -> Draws:
        found = dict(draws)
        draws.clear()
        made.clear()
        return found

    return taken


@pytest.mark.slow
def test_every_draw_of_a_sample_is_identical_whatever_the_batch(
    recipe: dict[str, Any], recorded: Callable[[], Draws]
) -> None:
    seeds = [5, 6]
    list(Inversion(parse(recipe, seeds=seeds, steps=2, init={"steps": 2})))
    together = recorded()
    streams = {stream for stream, *_ in together}
    assert {"init", "init/sample", "prior/sds", "noise/latent"} <= streams
    assert len([stream for stream in streams if stream.startswith("views/")]) == 6
    for prompt in recipe["prompts"]:
        for seed in seeds:
            list(Inversion(parse(recipe, prompts=[prompt], seeds=[seed], steps=2, init={"steps": 2})))
            single = recorded()
            assert all(torch.equal(together[key], drawn) for key, drawn in single.items())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("combine", [{"name": "sum"}, {"name": "norm_balance", "factor": 1.5}])
def test_the_gradient_in_a_batch_is_that_of_the_run_alone(
    recipe: dict[str, Any], dtype: str, combine: dict[str, Any]
) -> None:
    whole = gradient(build(parse(recipe, dtype=dtype, combine=combine)))
    single = gradient(build(alone(recipe, dtype=dtype, combine=combine)))
    assert relative(whole[ALONE], single[0]) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("canvas", ["latent", "multires"])
def test_the_gradient_in_chunks_is_the_unchunked_one(recipe: dict[str, Any], dtype: str, canvas: str) -> None:
    fields: dict[str, Any] = {"dtype": dtype, "canvas": {"name": canvas}, "size": 64}
    whole = gradient(build(parse(recipe, **fields, chunk=100)))
    for chunk in (1, 4):
        assert relative(gradient(build(parse(recipe, **fields, chunk=chunk))), whole) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["upgrad", "pcgrad"])
def test_the_rows_of_a_conflict_aware_combiner_are_those_of_the_run_alone(
    recipe: dict[str, Any], dtype: str, name: str
) -> None:
    pytest.importorskip("torchjd")
    fields = {"dtype": dtype, "combine": {"name": name}}
    whole, single, chunked = (
        rows_of(build(config))
        for config in (parse(recipe, **fields), alone(recipe, **fields), parse(recipe, **fields, chunk=2))
    )
    assert set(whole) == {"clip", "blip2", "blip2-2", "sds", "tv"}
    for label, row in whole.items():
        assert relative(row[ALONE], single[label][0]) < TOLERANCE[dtype], label
        assert relative(chunked[label], row) < TOLERANCE[dtype], label


@pytest.mark.parametrize("name", ["upgrad", "pcgrad", "mgda"])
def test_a_conflict_aware_combiner_gives_identical_rows_the_same_gradient_in_any_batch(
    recipe: dict[str, Any], name: str
) -> None:
    pytest.importorskip("torchjd")
    engine = build(parse(recipe, combine={"name": name}))
    rows = rows_of(engine)
    keys = [f"{key}/{i}" for i, key in enumerate(engine.keys)]
    together = engine.combiner.combine(rows, 2, keys)
    single = {label: row[ALONE : ALONE + 1] for label, row in rows.items()}
    assert torch.equal(engine.combiner.combine(single, 2, keys[ALONE : ALONE + 1])[0], together[ALONE])


def rows_of(engine: Engine) -> Rows:
    """What the engine hands to its combiner in a step."""
    handed: list[Rows] = []
    combine = engine.combiner.combine

    def keeping(rows: Rows, step: int, keys: Any) -> Tensor:
        handed.append(dict(rows))
        return combine(rows, step, keys)

    engine.combiner.combine = keeping  # type: ignore[method-assign]
    gradient(engine)
    engine.combiner.combine = combine  # type: ignore[method-assign]
    return handed[0]


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [2, 100])
def test_a_run_repeats_and_resumes_bit_for_bit(recipe: dict[str, Any], chunk: int) -> None:
    config = parse(recipe, prompts=recipe["prompts"][:2], chunk=chunk, steps=3)
    first, again, resumed = (Inversion(config) for _ in range(3))
    list(first)
    torch.rand(7)  # what else draws from torch's own generator plays no part
    list(again)
    part = Inversion(config)
    next(part)
    next(part)
    resumed.load_state_dict(part.state_dict())
    list(resumed)
    ours = first.state_dict()["tensors"]
    for other in (again, resumed):
        theirs = other.state_dict()["tensors"]
        assert theirs.keys() == ours.keys()
        assert all(torch.equal(theirs[name], ours[name]) for name in ours)
    assert torch.equal(first.images(), resumed.images())
