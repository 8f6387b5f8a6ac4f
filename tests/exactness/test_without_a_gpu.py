"""Ready for CUDA, checked without one: every tensor of a step is on the device, and the loop does not wait for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from refcore.config.run import RunConfig
from refcore.engine import checks, loading
from refcore.engine.build import build
from refcore.engine.inversion import Inversion
from refcore.engine.networks import tensors
from refcore.engine.start import start
from refcore.engine.step import Engine
from refcore_plugins.referees.blip2.referee import Blip2

META, CUDA, SECOND = torch.device("meta"), torch.device("cuda", 0), torch.device("cuda", 1)


def onto_fake_cuda(value: Any, mode: FakeTensorMode, seen: set[int], onto: torch.device = CUDA) -> Any:
    """`value` with every meta tensor in it replaced by a fake one on `onto`, and every other one by a fake CPU one.

    Plugins were loaded on the meta device: what they forgot on the CPU stays there, and shows.
    """
    if isinstance(value, Tensor):
        device = onto if value.device == META else value.device
        fake = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=device)
        return nn.Parameter(fake, value.requires_grad) if isinstance(value, nn.Parameter) else fake
    if value == META and isinstance(value, torch.device):
        return onto
    if id(value) in seen:
        return value
    seen.add(id(value))
    if isinstance(value, nn.Module):
        for table in (value._parameters, value._buffers):
            for name, tensor in table.items():
                if tensor is not None:
                    table[name] = onto_fake_cuda(tensor, mode, seen, onto)
    if isinstance(value, dict):
        for name in list(value):
            value[name] = onto_fake_cuda(value[name], mode, seen, onto)
    elif isinstance(value, (list, tuple)) and not isinstance(value, torch.Size):
        changed = [onto_fake_cuda(item, mode, seen, onto) for item in value]
        if isinstance(value, list):
            return changed
        return type(value)(*changed) if hasattr(value, "_fields") else tuple(changed)
    elif type(value).__module__.partition(".")[0] in ("refcore", "refcore_plugins") or isinstance(value, nn.Module):
        for name, held in list(vars(value).items()):
            if name not in ("_parameters", "_buffers"):
                new = onto_fake_cuda(held, mode, seen, onto)
                if new is not held:
                    object.__setattr__(value, name, new)
    return value


def made_up(outputs: Tensor, inputs: Any, *gradients: Any, **options: Any) -> tuple[Tensor, ...]:
    """In the place of `torch.autograd.grad`: gradients of the right shapes, once it is sure that there is a graph."""
    inputs = [inputs] if isinstance(inputs, Tensor) else inputs
    assert outputs.requires_grad
    assert {tensor.device for tensor in (outputs, *gradients, *inputs)} == {CUDA}
    return tuple(torch.empty_like(tensor) for tensor in inputs)


@pytest.fixture(scope="module")
def reader() -> Blip2:
    referee = Blip2()
    referee.load(torch.device("cpu"), torch.float32)
    return referee


@pytest.fixture
def fake(recipe: dict[str, Any], reader: Blip2, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """(fields of the recipe) -> an engine and its parameters at the start, all on a CUDA device that is not there."""
    modes: list[FakeTensorMode] = []
    monkeypatch.setattr(torch.autograd, "grad", made_up)
    monkeypatch.setattr(checks.Call, "__init__", not_the_first)
    monkeypatch.setattr(checks, "_start", lambda *given: None)  # reads the parameters, once a run
    monkeypatch.setattr(loading, "pick_device", lambda name: META)  # a run on it is refused: it has no values
    # transformers looks into the mask of the texts, which is once a run, and which a meta tensor does not allow.
    monkeypatch.setattr(Blip2, "read", lambda self, prompts: READ(reader, prompts).to(META))

    def made(second: Collection[str] = (), **fields: Any) -> tuple[Engine, dict[str, Tensor]]:
        engine = build(RunConfig.from_settings({**recipe, "device": "meta", "chunk": 4, **fields}))
        mode = FakeTensorMode()
        mode.__enter__()
        modes.append(mode)
        seen: set[int] = set()
        for loaded in (*engine.panel.referees, *engine.panel.witnesses, *engine.priors):
            if loaded.label in second:
                onto_fake_cuda(loaded, mode, seen, SECOND)
        onto_fake_cuda(engine, mode, seen)
        return engine, start(engine)

    yield made
    for mode in modes:
        mode.__exit__(None, None, None)


READ, CALL = Blip2.read, checks.Call.__init__


def not_the_first(self: checks.Call, *given: Any, **named: Any) -> None:
    """A call whose values were looked at before, as in every step but the first."""
    CALL(self, *given, **named)
    self.first = self._draws = False


RECIPES: dict[str, dict[str, Any]] = {
    "sum": {},
    "norm_balance": {"combine": {"name": "norm_balance"}},
    "bfloat16": {"dtype": "bfloat16"},
    "autocast": {"autocast": "float16", "canvas": {"name": "latent", "autocast": "bfloat16"}},
    "recompute": {"canvas": {"name": "latent", "config": {"recompute": "blocks"}}},
    "pixels": {"canvas": {"name": "multires"}, "size": 64},
}


@pytest.mark.parametrize("name", RECIPES)
def test_no_tensor_of_a_step_is_left_on_the_cpu_and_nothing_is_read_back(fake: Any, name: str) -> None:
    """Fake tensors refuse operations across devices, and have no values that `.item()` or a branch could read.

    torch's backward asks the CUDA driver, so here gradients are made up; they run on the devices of the forward pass.
    """
    engine, params = fake(**RECIPES[name])
    assert all(value.device == CUDA for value in params.values())
    step = engine.gradients(params, [0, 1, 2], 1)
    told = [*step.combined.values(), *step.losses.values(), *step.norms.values(), *step.finite.values()]
    assert {tensor.device for tensor in told} == {CUDA}
    assert set(step.norms) == {"clip", "blip2", "blip2-2", "sds", "tv"}


def test_ranking_reads_back_which_views_are_hardest_and_nothing_else(
    fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[int, ...]] = []

    def first_ones(tensor: FakeTensor) -> list[list[int]]:
        read.append(tuple(tensor.shape))
        return [list(range(tensor.shape[1]))] * tensor.shape[0]

    monkeypatch.setattr(FakeTensor, "tolist", first_ones)
    noisy = [{"name": "gaussian_noise", "config": {}}]
    engine, params = fake(views={"main": {"count": 3, "hardest": 2, "augment": noisy}, "few": {"count": 2}})
    step = engine.gradients(params, [0, 1, 2], 1)
    assert {tensor.device for tensor in [*step.combined.values(), *step.losses.values()]} == {CUDA}
    assert read == [(3, 2)]  # samples, views that get gradients


def test_clean_losses_scores_and_samples_stay_on_the_device(fake: Any) -> None:
    engine, params = fake(witnesses=[{"name": "clip", "label": "seen", "coarse": 32}])
    with torch.no_grad():
        images = engine.decode(params, engine.end)
    assert images.device == CUDA
    found = [*engine.losses(images, [0, 1, 2]).values(), *engine.panel.scores(images).values()]
    assert {tensor.device for tensor in found} == {CUDA}


def test_terms_on_a_second_device_give_back_to_that_of_the_run(fake: Any) -> None:
    second = ("clip", "blip2-2", "sds", "seen")
    engine, params = fake(second, witnesses=[{"name": "clip", "label": "seen", "config": {"text": "as_given"}}])
    judges = {judge.label: judge for judge in (*engine.panel.referees, *engine.panel.witnesses)}
    on = {label: {p.device for p in tensors(judge.referee)} for label, judge in judges.items()}
    assert on == {"clip": {SECOND}, "blip2": {CUDA}, "blip2-2": {SECOND}, "seen": {SECOND}}
    step = engine.gradients(params, [0, 1, 2], 1)
    told = [*step.combined.values(), *step.losses.values(), *step.norms.values(), *step.finite.values()]
    with torch.no_grad():
        images = engine.decode(params, engine.end)
    told += [*engine.losses(images, [0, 1, 2]).values(), *engine.panel.scores(images).values()]
    assert {tensor.device for tensor in told} == {CUDA}


class Reads(TorchDispatchMode):
    """Counts what makes the host wait for a device: numbers that are read back, and shapes that depend on them."""

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal")

    def __init__(self) -> None:
        super().__init__()
        self.counted: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        if name in self.WAITS:
            self.counted[name] += 1
        return func(*args, **(kwargs or {}))


def test_a_step_reads_one_number_back_whether_all_is_finite(recipe: dict[str, Any]) -> None:
    # Adam reads its own step counter, which torch keeps on the CPU.
    inversion = Inversion(
        RunConfig.from_settings(
            {**recipe, "combine": {"name": "norm_balance"}, "optimizer": {"name": "sgd"}, "chunk": 4}
        )
    )
    next(inversion)
    with Reads() as reads:
        result = next(inversion)
    assert reads.counted == {"_local_scalar_dense": 1}
    with Reads() as reads:  # the counter sees what it is there for
        assert result.losses["clip"].mean().item() > 0
    assert reads.counted == {"_local_scalar_dense": 1}
