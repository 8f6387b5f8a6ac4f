"""Memory: flat in views and referees, chunks that are planned, recorded, pinned, and halved without losing a step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from toys import ToyLatent, ToyReferee, toy_config

from performance.measure import peak_bytes
from refcore import registry
from refcore.config.settings import load_yaml
from refcore.contracts.conditioning import Conditioning
from refcore.engine import memory
from refcore.engine.build import build
from refcore.engine.inversion import Inversion
from refcore.engine.start import start
from refcore.errors import ConfigError, RefcoreError
from refcore.runs.run import invert

LARGE = {"name": "toy", "config": {"side": 128}}
GEOMETRY = [{"name": "affine", "config": {"degrees": 20.0}}, {"name": "color_jitter", "config": {}}]


class Greedy(ToyReferee):
    """Runs out of memory above `limit` views; the first `fine` judgements are let through."""

    class Config(ToyReferee.Config):
        limit: int = 2
        fine: int = 0

    config: Config

    def judge(self, views: Tensor, conditioning: Conditioning, prompt_index: Tensor, wanted: bool = True) -> Tensor:
        loss = super().judge(views, conditioning, prompt_index, wanted)
        if len(views) > self.config.limit and self.calls > self.config.fine:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return loss


@pytest.fixture(autouse=True)
def _greedy() -> Any:
    registry.register("referees", "greedy", Greedy, "of this test")
    yield
    registry.unregister("referees", "greedy")


def peak(**fields: Any) -> int:
    """Bytes at the highest point of a step, over the loaded models."""
    engine = build(toy_config(priors=[], prompts=["a cat"], dtype="float32", **fields))
    params = start(engine)
    return peak_bytes(lambda: engine.gradients(params, [0], 0))


def test_peak_memory_is_flat_in_the_number_of_views() -> None:
    few, many = (
        peak(referees=[LARGE], chunk=4, views={"main": {"count": n, "augment": GEOMETRY}}, size=128) for n in (4, 64)
    )
    assert many < 1.1 * few
    together = peak(referees=[LARGE], chunk=64, views={"main": {"count": 64, "augment": GEOMETRY}}, size=128)
    assert together > 5 * few, "the chunk does not bound anything here, so nothing was shown"


@pytest.mark.parametrize("ranked", [False, True])
def test_peak_memory_is_flat_where_every_pixel_of_every_view_has_its_own_noise(ranked: bool) -> None:
    views = {"augment": [{"name": "gaussian_noise", "config": {"std": [0.0, 0.1]}}]}
    few, many = (
        peak(
            referees=[LARGE],
            chunk=4,
            views={"main": {**views, "count": n, "hardest": n // 2 if ranked else None}},
            size=128,
        )
        for n in (8, 64)
    )
    assert many < 1.02 * few


def test_peak_memory_is_flat_in_the_number_of_referees() -> None:
    views = {"main": {"count": 8, "augment": GEOMETRY}}
    largest = peak(referees=[LARGE], chunk=8, views=views, size=128)
    four = [LARGE, *({"name": "toy", "config": {"side": 128, "seed": seed}} for seed in (1, 2, 3))]
    assert peak(referees=four, chunk=8, views=views, size=128) < 1.1 * largest


def test_a_graph_holds_what_autograd_saves_once() -> None:
    x = torch.ones(1000, requires_grad=True)
    assert memory.graph_bytes(lambda: x * 2) == 0
    assert memory.graph_bytes(lambda: x.exp()) == 4000
    weight = torch.ones(500, 1000)
    held = [memory.graph_bytes(lambda n=n: (x.expand(n, -1) @ weight.T).tanh()) for n in (1, 2)]
    assert held[1] - held[0] == 500 * 4  # without the weight


def test_chunks_are_planned_from_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = build(toy_config(chunk=None, views={"main": {"count": 6}}))
    judge = engine.panel.referees[0]
    each = engine.panel._graph_bytes(judge, 2) - engine.panel._graph_bytes(judge, 1)
    assert each > 0
    for views, chunk in ((3.5, 3), (0.1, 1), (1000, 12)):
        monkeypatch.setattr(memory, "free_memory", lambda device, views=views: int(views * each / memory.SHARE))
        engine.plan()
        assert engine.panel.chunks["toy"] == chunk
    monkeypatch.setattr(memory, "free_memory", lambda device: None)
    engine.plan()
    assert engine.panel.chunks["toy"] == 12


def test_planned_chunks_are_recorded_and_repeat_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: 30_000)
    config = toy_config(chunk=None, dtype="float32")
    first = invert(config.prompts, config=config, out=tmp_path / "first")
    recorded = load_yaml(tmp_path / "first" / "config.yaml")
    assert set(recorded["chunk"]) == {"toy", "toy-2"}
    assert 1 <= recorded["chunk"]["toy"] < 6
    result = json.loads((tmp_path / "first" / "result.json").read_text())
    assert (result["chunks"], result["halved"]) == (recorded["chunk"], [])
    monkeypatch.setattr(memory, "free_memory", lambda device: 10**12)
    second = invert(config.prompts, config=tmp_path / "first" / "config.yaml")
    assert second.config.chunk == recorded["chunk"]
    assert torch.equal(first.images, second.images)


def test_a_pinned_chunk_is_not_planned() -> None:
    for chunk in (5, {"toy": 5}):
        inversion = Inversion(toy_config(chunk=chunk))
        assert inversion.recorded.settings()["chunk"] == chunk
        assert inversion.engine.panel.referees[0].referee.calls == 0  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match='no referee of this run has the label "tyo"; known: toy'):
        toy_config(chunk={"tyo": 5})
    with pytest.raises(ConfigError, match="chunk"):
        toy_config(chunk=0)


@pytest.mark.parametrize("hardest", [None, 3])
def test_out_of_memory_halves_the_chunk_and_loses_nothing(hardest: int | None) -> None:
    fields: dict[str, Any] = {"views": {"main": {"count": 4, "hardest": hardest, "augment": GEOMETRY}}, "steps": 3}

    def run(limit: int, chunk: int) -> Inversion:
        referees = [{"name": "greedy", "label": "greedy", "config": {"limit": limit}}, {"name": "toy"}]
        inversion = Inversion(toy_config(referees=referees, chunk=chunk, dtype="float32", **fields))
        assert [result.step for result in inversion] == [0, 1, 2]
        return inversion

    halved, pinned = run(limit=2, chunk=8), run(limit=8, chunk=2)
    assert halved.engine.panel.chunks == {"greedy": 2}
    assert [(found["label"], found["chunk"]) for found in halved.engine.panel.halved] == [("greedy", 4), ("greedy", 2)]
    assert halved.engine.panel.halved[0]["step"] == 0
    assert halved.recorded.chunk == {"greedy": 2, "toy": 8}
    other = Inversion(pinned.config.from_settings({**pinned.config.settings(), "chunk": {"greedy": 2, "toy": 8}}))
    list(other)
    assert torch.equal(halved.params["latent"], other.params["latent"])


def test_out_of_memory_in_the_middle_of_a_step_counts_no_view_twice() -> None:
    referees = [{"name": "greedy", "config": {"limit": 1, "fine": 1}}]  # the first chunk of two fits, the second not
    fields: dict[str, Any] = {"referees": referees, "prompts": ["a cat"], "views": {"main": {"count": 4}}}
    engine, plain = build(toy_config(**fields, chunk=2)), build(toy_config(**fields, chunk=1))
    params = start(engine)
    found, expected = (e.gradients(params, [0], 0).combined["latent"] for e in (engine, plain))
    assert engine.panel.chunks == {"greedy": 1}
    assert torch.equal(found, expected)


def test_a_single_view_that_does_not_fit_is_one_clear_error() -> None:
    engine = build(toy_config(referees=[{"name": "greedy", "config": {"limit": 0}}]))
    with pytest.raises(RefcoreError, match=r'"greedy" runs out of memory on cpu with a single view .*dtype: bfloat16'):
        engine.gradients(start(engine), [0, 1], 0)


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    assert memory.is_out_of_memory(RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate"))
    assert memory.is_out_of_memory(MemoryError())
    assert not memory.is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_a_resumed_run_goes_on_with_its_chunks_unless_others_are_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: 30_000)
    first = Inversion(toy_config(chunk=None))
    next(first)
    monkeypatch.setattr(memory, "free_memory", lambda device: 10**12)
    again, pinned = Inversion(toy_config(chunk=None)), Inversion(toy_config(chunk=1))
    assert again.engine.panel.chunks != first.engine.panel.chunks
    again.load_state_dict(first.state_dict())
    assert again.engine.panel.chunks == first.engine.panel.chunks
    pinned.load_state_dict(first.state_dict())
    assert pinned.recorded.chunk == 1


def test_free_memory_of_this_machine_is_told() -> None:
    free, total = memory.free_memory(torch.device("cpu")), memory.total_memory(torch.device("cpu"))
    assert free is not None
    assert total is not None
    assert 0 < free <= total


TOO_LARGE: list[tuple[dict[str, Any], str]] = [
    (
        {"size": 100_000_000},
        r"size is 100,000,000 x 100,000,000 px, which takes at least .* on cpu.*at most a side of \d+ px",
    ),
    ({"size": [10**30, 8]}, r"size is about 1e30 x 8 px"),
    (
        {"views": {"main": {"count": 10**30}}},
        r"views\.main\.count: input should be less than or equal to 10000",
    ),
    (
        {"size": 32, "candidates": {"count": 10**12}},
        r"candidates\.count: input should be less than or equal to 1000",
    ),
]


@pytest.mark.fault("5.7")
@pytest.mark.parametrize(("fields", "says"), TOO_LARGE)
def test_a_run_that_no_memory_holds_is_refused_by_its_field_before_a_model_is_loaded(
    fields: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ToyReferee, "load", lambda *args: pytest.fail("loaded"))
    with pytest.raises(RefcoreError, match=says) as caught:
        Inversion(toy_config(**fields))
    assert "\n" not in str(caught.value)
    assert "Allocator" not in str(caught.value)


@pytest.mark.fault("5.7")
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nframe #0: c10::Error"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory\nframe #1"),
        RuntimeError("Storage size calculation overflowed with sizes=[4611686018427387904]"),
        OverflowError("cannot fit 'int' into an index-sized integer"),
        TypeError("randn(): argument 'size' failed to unpack the object: Overflow when unpacking long long"),
        MemoryError(),
    ],
)
@pytest.mark.parametrize("method", ["init", "decode", "load"])
def test_lack_of_memory_outside_the_referees_names_the_fields_that_can_be_lowered(
    method: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **options: Any) -> Any:
        raise type(error)(*error.args)

    monkeypatch.setattr(ToyLatent, method, fail)
    with pytest.raises(RefcoreError, match=r'out of memory on cpu .* in canvas "toy_latent"') as caught:
        list(Inversion(toy_config(size=32)))
    said = str(caught.value)
    assert f"({method})" in said
    assert "size is 32 x 32 px: make it smaller" in said
    assert "there are 2 samples in one batch" in said
    assert "views.main.count is 3: lower it" in said
    assert "\n" not in said
    assert "frame" not in said
    assert "alloc_cpu" not in said
