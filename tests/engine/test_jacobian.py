"""Conflict-aware combiners: torchjd's own result for each sample, the same alone and in a batch, rows that are told."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from toys import run, toy_config

from refcore.config.run import RunConfig
from refcore.engine.build import build, combiner
from refcore.engine.jacobian import JacobianCombiner
from refcore.engine.start import start
from refcore.engine.step import Engine
from refcore.errors import ConfigError, RefcoreError
from refcore.moment import Moment
from refcore.rng import keyed_generator

jd = pytest.importorskip("torchjd.aggregation")
pytest.importorskip("cvxpy")
pytest.importorskip("ecos")

DIRECT: dict[str, Callable[[], Any]] = {
    "pcgrad": jd.PCGrad,
    "mgda": jd.MGDA,
    "upgrad": jd.UPGrad,
    "cagrad": lambda: jd.CAGrad(0.5, 1e-8),
    "imtl_g": jd.IMTLG,
}
NAMES = [*DIRECT, "nash_mtl"]


def made(combine: dict[str, Any], **fields: Any) -> JacobianCombiner:
    found = combiner(toy_config(combine=combine, **fields))
    assert isinstance(found, JacobianCombiner)
    return found


def conflicting(samples: int = 3, terms: int = 3) -> dict[str, Tensor]:
    """Rows that conflict in every sample: each is half against the first."""
    rows = torch.randn(terms, samples, 40, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rows[1:] -= 0.5 * rows[:1]
    return {f"term{t}": row * 3.0**t for t, row in enumerate(rows)}


@pytest.mark.parametrize("name", DIRECT)
def test_each_sample_gets_what_torchjd_gives_for_its_rows(name: str) -> None:
    rows, keys = conflicting(), [3, 4, "3.1"]
    found = made({"name": name}).combine(rows, 5, keys)
    for a, key in enumerate(keys):
        matrix = torch.stack([row[a] for row in rows.values()])
        assert float((matrix @ matrix.T).min()) < 0
        torch.set_rng_state(keyed_generator(key, 5, "combine").get_state())
        direct = DIRECT[name]()(matrix)
        assert torch.allclose(found[a], direct, rtol=0, atol=1e-9 * float(direct.norm()))


def test_nash_mtl_is_torchjds_on_unit_rows_and_the_bargain() -> None:
    rows = conflicting()
    found = made({"name": "nash_mtl"}).combine(rows, 5, [0, 1, 2])
    for a in range(3):
        matrix = torch.stack([row[a] for row in rows.values()])
        unit = matrix / matrix.norm(dim=1, keepdim=True)
        direct = jd.NashMTL(3, max_norm=0.0)(unit / (unit @ unit.T).norm().sqrt())
        direct = direct * (matrix @ matrix.T).norm().sqrt()
        assert torch.allclose(found[a], direct, rtol=0, atol=1e-3 * float(direct.norm()))
        weights = torch.linalg.lstsq(matrix.T, found[a]).solution
        assert (weights > 0).all()
        gains = weights * (matrix @ found[a])  # a_i (G a)_i, which the bargain makes equal
        assert float(gains.max() / gains.min()) < 1.02


@pytest.mark.fault("1.9")
def test_nash_mtl_is_8_to_16_times_as_long_as_torchjds_clipped_default_on_three_rows_of_like_length() -> None:
    """51 to 120 times where the rows' lengths are as 1 : 3 : 9; in its solver's scale torchjd's has our direction."""
    for scale, least, most in ((1.0, 8.3, 16.4), (3.0, 51.0, 120.0)):
        rows = {name: row * (scale / 3.0) ** t for t, (name, row) in enumerate(conflicting().items())}
        found = made({"name": "nash_mtl"}).combine(rows, 5, [0, 1, 2])
        factors = []
        for a in range(3):
            matrix = torch.stack([row[a] for row in rows.values()])
            unit = matrix / matrix.norm(dim=1, keepdim=True)
            clipped = jd.NashMTL(3)(unit / (unit @ unit.T).norm().sqrt())
            assert float(clipped.norm()) <= 1 + 1e-6  # max_norm of its default
            assert float(torch.cosine_similarity(clipped, found[a], dim=0)) > 0.999
            plain = jd.NashMTL(3)(matrix)
            assert float(plain.norm()) == pytest.approx(1.0, abs=1e-4)
            assert float(torch.cosine_similarity(plain, found[a], dim=0)) > 0.70
            factors.append(float(found[a].norm()))
        assert min(factors) == pytest.approx(least, rel=0.02)
        assert max(factors) == pytest.approx(most, rel=0.02)


def gradient(engine: Engine) -> Tensor:
    found = engine.gradients(start(engine), list(range(len(engine.keys))), 2).combined
    return torch.cat([g.flatten(1) for g in found.values()], 1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_of_a_batch_is_that_of_its_samples_alone(name: str, dtype: str) -> None:
    fields: dict[str, Any] = {"combine": {"name": name}, "dtype": dtype}
    whole = gradient(build(toy_config(**fields)))
    for i, prompt in enumerate(["a cat", "a dog"]):
        alone = gradient(build(toy_config(**fields, prompts=[prompt])))[0]
        solver = 1e-5 if name in ("nash_mtl", "cagrad") else 0.0  # solved to a tolerance of its own
        exact = 1e-10 if dtype == "float64" else 1e-5
        assert float((whole[i] - alone).norm() / alone.norm()) < max(solver, exact)


def test_rows_are_the_terms_pulled_back_one_by_one() -> None:
    engine = build(toy_config(combine={"name": "upgrad"}))
    seen = {}
    combine = engine.combiner.combine

    def watched(rows: Any, step: int, keys: Any) -> Tensor:
        seen.update(rows)
        return combine(rows, step, keys)

    engine.combiner.combine = watched  # type: ignore[method-assign]
    gradient(engine)
    assert list(seen) == ["toy", "toy-2", "smooth", "toy_sds"]
    for label, terms in {
        "toy": {"referees": [engine.config.referees[0].model_dump(mode="json")], "priors": []},
        "toy_sds": {"referees": [], "priors": [{"name": "toy_sds", "weight": 0.5}]},
    }.items():
        assert torch.allclose(seen[label], gradient(build(toy_config(**terms))), rtol=0, atol=1e-12)


def test_no_term_gets_worse_to_first_order_under_upgrad() -> None:
    rows = conflicting()
    found = made({"name": "upgrad"}).combine(rows, 0, [0, 1, 2])
    plain = sum(rows.values(), torch.zeros_like(found))
    assert all(float((row * found).sum(1).min()) > -1e-6 for row in rows.values())
    assert min(float((row * plain).sum(1).min()) for row in rows.values()) < 0


@pytest.mark.parametrize("name", NAMES)
def test_faint_rows_are_combined_as_strong_ones(name: str) -> None:
    rows = conflicting(2)
    faint = {label: 1e-6 * row for label, row in rows.items()}
    method = made({"name": name})
    assert torch.allclose(1e6 * method.combine(faint, 0, [0, 1]), method.combine(rows, 0, [0, 1]), rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_row_that_is_zero_does_not_count(name: str) -> None:
    rows = conflicting(2)
    silent = {**rows, "satisfied": torch.zeros_like(rows["term0"])}
    rows["term2"] = rows["term2"] * torch.tensor([[1.0], [0.0]])
    silent["term2"] = rows["term2"]
    method = made({"name": name})
    both = method.combine(silent, 1, [0, 1])
    assert torch.allclose(both, method.combine(rows, 1, [0, 1]), atol=1e-9)
    pair = {label: row[1:] for label, row in rows.items() if label != "term2"}
    assert torch.allclose(both[1:], method.combine(pair, 1, [1]), atol=1e-9)
    nothing = {label: torch.zeros_like(row) for label, row in rows.items()}
    assert not method.combine(nothing, 1, [0, 1]).any()


def test_with_a_factor_the_referees_are_rows_and_balanced_against_the_priors() -> None:
    rows = conflicting()
    method = made({"name": "mgda", "factor": 0.5}, referees=[{"name": "toy"}], priors=[{"name": "smooth"}])
    told = {"toy": rows["term0"], "toy-2": rows["term1"], "smooth": rows["term2"]}
    referees = made({"name": "mgda"}).combine({"a": rows["term0"], "b": rows["term1"]}, 0, [0, 1, 2])
    scale = 0.5 * rows["term2"].norm(dim=1, keepdim=True) / referees.norm(dim=1, keepdim=True)
    assert torch.allclose(method.combine(told, 0, [0, 1, 2]), scale * referees + rows["term2"])
    assert torch.equal(method.combine({"smooth": rows["term2"]}, 0, [0, 1, 2]), rows["term2"])


@pytest.mark.parametrize("factor", [None, 0.5])
def test_at_the_image_one_pull_back_serves_all_referees(factor: float | None) -> None:
    fields: dict[str, Any] = {"priors": [{"name": "toy_sds", "weight": 0.5}]}
    engine = build(toy_config(combine={"name": "upgrad", "at": "image", "factor": factor}, **fields))
    found = gradient(engine)
    # By hand: the referees' gradients at the image, by torchjd, pulled back; then the latent prior.
    params = start(engine)
    leaf = params["latent"].clone().requires_grad_()
    image = engine.decode({"latent": leaf}, Moment(2, 6))
    cut = image.detach().requires_grad_()
    parts = []
    for use in engine.panel.referees:
        views = engine.panel.groups["main"].open(cut, use.referee.input_size, engine.keys, Moment(2, 6))
        losses = use.referee.judge(
            views.make(range(6)), use.conditioning, torch.tensor(use.prompt_index)[views.sample], use.term.wanted
        )
        (g,) = torch.autograd.grad(losses.view(2, 3).mean(1).sum(), views.source)
        parts.append(views.pull_back(g).flatten(1) * use.term.weight_at(2, 6))
    combined = torch.stack([jd.UPGrad()(torch.stack([part[a] for part in parts])) for a in range(2)])
    (pulled,) = torch.autograd.grad(image, leaf, combined.view_as(image))
    referees = pulled.flatten(1)
    prior = gradient(build(toy_config(referees=[], **fields)))
    if factor is not None:
        referees = referees * factor * prior.norm(dim=1, keepdim=True) / referees.norm(dim=1, keepdim=True)
    assert torch.allclose(found, referees + prior, rtol=0, atol=1e-9)


def test_a_run_repeats_and_leaves_the_global_generator_alone() -> None:
    config = toy_config(combine={"name": "pcgrad"}, steps=3)
    state = torch.get_rng_state()
    first = run(config).params["latent"]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(run(config).params["latent"], first)


def test_what_is_missing_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchjd.aggregation", None)
    with pytest.raises(RefcoreError, match=r"combine is mgda, which needs torchjd.*refcore\[jacobian\]"):
        build(toy_config(combine={"name": "mgda"}))


def test_a_missing_solver_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*args: Any, **kwargs: Any) -> None:
        raise ImportError("ecos is not installed")

    monkeypatch.setattr(jd, "NashMTL", missing)
    with pytest.raises(RefcoreError, match=r"nash_mtl, which needs.*ecos is not installed.*refcore\[jacobian\]"):
        build(toy_config(combine={"name": "nash_mtl"}))


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"combine\.factor falls below 0"):
        toy_config(combine={"name": "mgda", "factor": -1})
    with pytest.raises(ConfigError, match=r'combine\.name: "mgdaa" is unknown; .*did you mean "mgda"'):
        toy_config(combine={"name": "mgdaa"})
    assert isinstance(RunConfig.from_settings(toy_config(combine={"name": "cagrad", "c": 0.2}).settings()), RunConfig)


G = torch.Generator().manual_seed(8)
V, W = torch.randn(2, 40, generator=G, dtype=torch.float64), torch.randn(2, 40, generator=G, dtype=torch.float64)
ROWS: dict[str, tuple[list[Tensor], Tensor | None]] = {
    "one": ([V], V),
    "one beside a satisfied one": ([V, V * 0], V),
    "one, small": ([V * 1e-12], V * 1e-12),
    "one, large": ([V * 1e12], V * 1e12),
    "none moves": ([V * 0, V * 0], V * 0),
    "opposite": ([V, -V], V * 0),
    "opposite, of other lengths": ([V, -0.5 * V], V * 0),
    "opposite, of other scales": ([V * 1e12, -V * 1e-12], V * 0),
    "three on a line": ([V, -V, 2 * V], V * 0),
    "equal": ([V, V], None),
    "parallel": ([V, 3 * V], None),
    "small": ([V * 1e-12, W * 1e-12], None),
    "large": ([V * 1e12, W * 1e12], None),
    "of other scales": ([V * 1e-12, W * 1e12], None),
}


@pytest.mark.fault("2.2")
@pytest.mark.parametrize("case", ROWS)
@pytest.mark.parametrize("name", [*NAMES, "sum", "norm_balance"])
def test_every_combiner_has_an_answer_to_degenerate_rows(name: str, case: str) -> None:
    rows, expected = ROWS[case]
    sides = name == "norm_balance"
    if sides and len(rows) > 2:
        rows = rows[:2]
    labels = ["referees", "priors"] if sides else [f"term{t}" for t in range(len(rows))]
    made_of = combiner(toy_config(combine={"name": name}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = made_of.combine(dict(zip(labels, rows, strict=False)), 5, [3, 4])
    scale = max(float(row.norm()) for row in rows)
    assert found.shape == (2, 40)
    assert found.isfinite().all()
    assert float(found.norm()) <= 4 * scale
    if name == "sum":
        expected = torch.stack(rows).sum(0)
    if sides and len(rows) == 2:
        zero = float(rows[0].norm()) == 0 or float(rows[1].norm()) == 0
        expected = rows[1] if zero else rows[0] / rows[0].norm(dim=1, keepdim=True) * rows[1].norm(dim=1, keepdim=True)
        expected = expected if zero else expected + rows[1]
    if expected is not None:
        assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12 * scale)
    elif case in ("equal", "parallel"):  # along the line
        assert torch.allclose(found / found.norm(dim=1, keepdim=True), V / V.norm(dim=1, keepdim=True), atol=1e-9)
    else:
        assert float(found.norm()) > 0


@pytest.mark.fault("2.2")
@pytest.mark.parametrize("name", NAMES)
def test_common_scale_of_the_rows_scales_the_answer(name: str) -> None:
    made_of = made({"name": name})
    unit = made_of.combine({"a": V, "b": W}, 5, [3, 4])
    for scale in (1e-12, 1e12):
        scaled = made_of.combine({"a": V * scale, "b": W * scale}, 5, [3, 4])
        assert torch.allclose(scaled / scale, unit, rtol=1e-5, atol=1e-7)


@pytest.mark.fault("2.2")
@pytest.mark.parametrize("name", NAMES)
def test_a_window_that_is_over_and_a_satisfied_referee_leave_the_other_term_as_it_is(name: str) -> None:
    over = [{"name": "toy", "window": [0, 1]}, {"name": "toy", "label": "kept", "config": {"seed": 1}}]
    satisfied = [{"name": "toy", "satisfied_at": 1e9}, {"name": "toy", "label": "kept", "config": {"seed": 1}}]
    single = [{"name": "toy", "label": "kept", "config": {"seed": 1}}]
    for referees, step in ((over, 2), (satisfied, 0), (single, 0)):
        gradients = []
        for combine in ({"name": name}, {"name": "sum"}):
            engine = build(toy_config(referees=referees, priors=[], combine=combine))
            gradients.append(engine.gradients(start(engine), [0, 1], step).combined["latent"])
        assert torch.allclose(*gradients, rtol=1e-9, atol=1e-14)
