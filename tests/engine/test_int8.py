"""Linear layers in 8 bits: their error, their gradient, their memory, and what is left as it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from refcore.config.run import RunConfig
from refcore.contracts.referee import Referee
from refcore.engine.build import build
from refcore.engine.int8 import LEVELS, Int8Attention, Int8Linear, store_in_int8
from refcore.engine.networks import tensors
from refcore.errors import RefcoreError


def layer(seed: int = 0) -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Linear(24, 40).requires_grad_(False)


def test_a_weight_is_off_by_at_most_half_a_level_of_its_row() -> None:
    weight = layer().weight
    weight[3] = 0
    found = Int8Linear(weight, None).weight
    assert torch.equal(found[3], weight[3])
    level = weight.abs().amax(1, keepdim=True) / LEVELS
    assert bool(((found - weight).abs() <= 0.5001 * level).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_output_and_gradient_are_those_of_the_rounded_matrix_and_no_graph_holds_it(dtype: torch.dtype) -> None:
    wide = layer().to(dtype)
    small = Int8Linear(wide.weight, wide.bias)
    wide.weight = nn.Parameter(small.weight, requires_grad=False)
    x = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()
    kept: list[Tensor] = []
    with saved_tensors_hooks(lambda tensor: (kept.append(tensor), tensor)[1], lambda tensor: tensor):
        y = small(x)
    assert {tensor.dtype for tensor in kept if tensor.numel() > 40} == {torch.int8}
    expected = wide(x)
    along = torch.randn_like(expected)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(torch.autograd.grad(y, x, along), torch.autograd.grad(expected, x, along))


def test_autocast_computes_in_its_dtype() -> None:
    x = torch.randn(3, 24, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = Int8Linear(layer().weight, layer().bias)(x)
    assert y.dtype == torch.bfloat16
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert gradient.dtype == torch.float32
    torch.testing.assert_close(gradient[0], layer().weight.sum(0), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("mask", ["none", "additive", "boolean", "per head"])
@pytest.mark.parametrize("source", [7, 4])
def test_attention_is_that_of_torch(mask: str, source: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = nn.MultiheadAttention(16, 4, batch_first=True).requires_grad_(False).eval()
        ours = Int8Attention(theirs)
        theirs.in_proj_weight.copy_(torch.cat([one.weight for one in ours.projections]))  # type: ignore[misc]
        theirs.out_proj.weight.copy_(ours.out_proj.weight)
        query, key = torch.randn(2, 7, 16), torch.randn(2, source, 16)
        key = query if source == 7 else key
        hidden = torch.rand(7, source) < 0.3
        hidden[:, 0] = False
        given: dict[str, Tensor | None] = {
            "none": None,
            "additive": torch.randn(7, source),
            "boolean": hidden,
            "per head": torch.randn(8, 7, source),
        }
    expected, _ = theirs(query, key, key, need_weights=False, attn_mask=given[mask])
    torch.testing.assert_close(ours(query, key, key, attn_mask=given[mask])[0], expected)


class Holder(Referee):
    """A referee that holds any network."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.held = {"networks": [network]}

    load = read = judge = score = None  # type: ignore[assignment]


def test_a_matrix_that_an_embedding_shares_is_left_and_so_is_torchs_own_transformer() -> None:
    network = nn.ModuleDict({"words": nn.Embedding(50, 8), "head": nn.Linear(8, 50), "other": nn.Linear(8, 8)})
    network["head"].weight = network["words"].weight  # type: ignore[assignment]
    network["torch"] = nn.TransformerEncoderLayer(8, 2, batch_first=True).eval()
    x = torch.randn(1, 3, 8)
    before = network["torch"](x)
    store_in_int8(Holder(network.requires_grad_(False)))
    assert type(network["head"]) is nn.Linear
    assert type(network["other"]) is Int8Linear
    assert type(network["torch"].self_attn) is nn.MultiheadAttention
    torch.testing.assert_close(network["torch"](x), before, rtol=0.05, atol=0.05)


def size(referee: Referee) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors(referee))


MEASURED = {"clip": (0.37, 1e-3), "blip2": (0.28, 2e-6)}
"""Embedded referee -> most of its float32 bytes that are left, and the most by which a score of noise moves."""


@pytest.mark.parametrize("name", MEASURED)
def test_embedded_referees_keep_their_gradients_within_a_few_per_cent(name: str) -> None:
    found: list[tuple[int, Tensor, Tensor]] = []
    for weights in ("off", "int8"):
        config = {"prompts": ["a red circle"], "canvas": {"name": "pixel"}, "size": 64, "device": "cpu"}
        engine = build(RunConfig.from_settings({**config, "referees": [{"name": name, "weights": weights}]}))
        engine.finish_reading()
        referee, conditioning = engine.panel.referees[0].referee, engine.panel.referees[0].conditioning
        views = torch.rand(3, 3, *referee.input_size, generator=torch.Generator().manual_seed(0)).requires_grad_()
        loss = referee.judge(views, conditioning, torch.zeros(3, dtype=torch.int64))
        (gradient,) = torch.autograd.grad(loss.sum(), views)
        scores = torch.cat([referee.score(view, conditioning) for view in views.detach().split(1)])
        found.append((size(referee), gradient.flatten(1), scores))
    (wide, exact, true), (small, rounded, scores) = found
    share, moved = MEASURED[name]
    assert small < share * wide
    error = (rounded - exact).norm(dim=1) / exact.norm(dim=1)
    assert bool((error > 0).all())
    assert float(error.max()) < 0.03
    assert float((scores - true).abs().max()) < moved


def test_off_keeps_a_term_wide_and_a_prior_that_trains_refuses_int8() -> None:
    settings: dict[str, Any] = {"prompts": ["a red circle"], "canvas": {"name": "latent"}, "device": "cpu"}
    settings |= {"weights": "int8", "size": 64}
    referees = [{"name": "clip"}, {"name": "clip", "weights": "off", "config": {"text": "as_given"}}]
    engine = build(RunConfig.from_settings({**settings, "referees": referees, "priors": [{"name": "vsd"}]}))
    plugins = [*(judge.referee for judge in engine.panel.referees), engine.priors[0].prior]
    assert [any(tensor.dtype == torch.int8 for tensor in tensors(plugin)) for plugin in plugins] == [True, False, False]
    with pytest.raises(RefcoreError, match=r'priors\.0\.weights is int8, but "vsd" trains its network'):
        build(RunConfig.from_settings({**settings, "priors": [{"name": "vsd", "weights": "int8"}]}))
