"""The engine's claims: samples never meet, chunks do not matter, gradients are those of the plain sum."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from toys import ToyReferee, run, toy_config

from refcore.contracts.augmentation import select
from refcore.engine.build import build
from refcore.engine.inversion import Inversion
from refcore.engine.start import start
from refcore.engine.step import Engine
from refcore.engine.views import FIXED
from refcore.errors import ConfigError, NonFiniteError, RefcoreError
from refcore.moment import Moment
from refcore.rng import Rng

TOLERANCE = {"float32": 1e-5, "float64": 1e-10}


def gradient(engine: Engine, step: int = 0, samples: list[int] | None = None) -> Tensor:
    """[A, D], the combined gradient at the starting parameters."""
    params = start(engine)
    samples = list(range(len(engine.panel.seeds))) if samples is None else samples
    found = engine.gradients({name: p[samples] for name, p in params.items()}, samples, step).combined
    return torch.cat([g.flatten(1) for g in found.values()], 1)


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_the_draws_of_a_sample_do_not_depend_on_its_mates() -> None:
    image = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    group = build(toy_config()).panel.groups["main"]
    together = group.open(image, (16, 16), [5, 6, 7], Moment(4, 10))
    alone = group.open(image[1:2], (16, 16), [6], Moment(4, 10))
    assert together.matrix is not None
    assert alone.matrix is not None
    assert torch.equal(together.matrix[3:6], alone.matrix)
    for (_, a), (_, b) in zip(together.photometric, alone.photometric, strict=True):
        among, own = select(a, range(3, 6)), select(b, range(3))
        assert all(torch.equal(among[name], own[name]) for name in among)
    later = group.open(image[1:2], (16, 16), [6], Moment(5, 10))
    assert later.matrix is not None
    assert not torch.equal(later.matrix, alone.matrix)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "combine",
    [
        {"name": "sum"},
        {"name": "norm_balance", "factor": 1.5},
        {"name": "sum", "votes": "equal"},
        {"name": "norm_balance", "votes": "equal"},
    ],
)
@pytest.mark.parametrize("canvas", ["toy_latent", "toy_pixel"])
def test_the_gradient_of_a_batch_is_that_of_its_samples_alone(dtype: str, combine: Any, canvas: str) -> None:
    fields = {"dtype": dtype, "combine": combine, "canvas": {"name": canvas}}
    whole = gradient(build(toy_config(**fields)), step=2)
    for i, prompt in enumerate(["a cat", "a dog"]):
        alone = gradient(build(toy_config(**fields, prompts=[prompt])), step=2)
        assert relative(whole[i : i + 1], alone) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_the_gradient_in_chunks_is_the_whole_gradient(dtype: str, chunk: int) -> None:
    whole = gradient(build(toy_config(dtype=dtype)))
    assert relative(gradient(build(toy_config(dtype=dtype, chunk=chunk))), whole) < TOLERANCE[dtype]


def test_the_summed_gradient_is_that_of_one_plain_loss() -> None:
    """Every term written out and differentiated at once, with no cut, no chunk and no row."""
    engine = build(toy_config())
    params = start(engine)
    z = params["latent"].clone().requires_grad_()
    image = engine.canvas.decode({"latent": z}, Moment(0, 6))
    total = torch.zeros((), dtype=torch.float64)
    for use in engine.panel.referees:
        views = engine.panel.groups["main"].open(image, use.referee.input_size, engine.panel.seeds, Moment(0, 6))
        views.source = views.small  # leave the graph whole
        made = views.make(range(6))
        text = use.conditioning["text"].double()[[0, 0, 0, 1, 1, 1]]
        logits = use.referee.logits(made, text)  # type: ignore[attr-defined]
        losses = -F.logsigmoid(logits if use.term.wanted else -logits)
        total = total + use.term.weight_at(0, 6) * losses.view(2, 3).mean(1).sum()
    total = total + image.diff(dim=-1).square().flatten(1).mean(1).sum()
    (expected,) = torch.autograd.grad(total, z)
    sds = engine.priors[0]
    rng = Rng(engine.panel.seeds, 0, "prior/toy_sds")
    expected = expected + 0.5 * sds.prior.gradient(z.detach(), sds.conditioning, Moment(0, 6), rng)[0]
    assert relative(gradient(engine), expected.flatten(1)) < 1e-12


def test_samples_that_take_part_get_the_gradient_that_they_have_in_the_whole_batch() -> None:
    engine = build(toy_config(seeds=[1, 2]))
    whole = gradient(engine)
    assert relative(gradient(engine, samples=[1, 3]), whole[[1, 3]]) < 1e-10


def test_the_hardest_views_alone_get_gradients() -> None:
    views = {"main": {"count": 5, "hardest": 2, "augment": [{"name": "affine", "config": {}}]}}
    referees = [{"name": "toy", "weight": 1.0}]
    engine = build(toy_config(views=views, referees=referees, priors=[]))
    image = engine.decode(start(engine), Moment(0, 6)).detach().requires_grad_()
    opened = engine.panel.groups["main"].open(image, (16, 16), engine.panel.seeds, Moment(0, 6))
    use = engine.panel.referees[0]
    losses = use.referee.judge(opened.make(range(10)), use.conditioning, opened.sample.clone()).view(2, 5)
    hardest = losses.topk(2).values
    step = engine.gradients(start(engine), [0, 1], 0)
    assert torch.allclose(step.losses["toy"], hardest.mean(1))
    (expected,) = torch.autograd.grad(hardest.mean(1).sum(), opened.source)
    assert torch.allclose(step.norms["toy"], opened.pull_back(expected).flatten(1).norm(dim=1))


def test_no_views_are_ranked_where_all_are_used() -> None:
    calls = []
    for hardest in (None, 3, 2):
        views = {"main": {"count": 3, "hardest": hardest}}
        engine = build(toy_config(views=views, referees=[{"name": "toy"}], priors=[]))
        gradient(engine)
        referee = engine.panel.referees[0].referee
        assert isinstance(referee, ToyReferee)
        calls.append(referee.calls)
    assert calls == [1, 1, 2]


def test_norm_balance_scales_the_referees_sample_by_sample() -> None:
    fields = {"combine": {"name": "norm_balance", "factor": 0.7}}
    balanced = gradient(build(toy_config(**fields)))
    referees = gradient(build(toy_config(priors=[])))
    priors = gradient(build(toy_config(referees=[])))
    for b in range(2):
        expected = 0.7 * priors[b].norm() / referees[b].norm() * referees[b] + priors[b]
        assert relative(balanced[b], expected) < 1e-10


@pytest.mark.parametrize("factor", [None, 0.7])
def test_equal_votes_have_the_norms_of_their_weights_at_the_image(factor: float | None) -> None:
    combine = {"name": "sum", "votes": "equal"} if factor is None else {"name": "norm_balance", "factor": factor}
    engine = build(toy_config(combine={**combine, "votes": "equal"}))
    found = gradient(engine)
    latent = start(engine)["latent"].requires_grad_()
    image = engine.decode({"latent": latent}, Moment(0, 6))
    votes = torch.zeros_like(image)
    for judge, own, _ in engine.panel.gradients(image.detach().requires_grad_(), engine.keys, [0, 1], Moment(0, 6)):
        votes += judge.term.weight_at(0, 6) * own / own.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    referees = torch.autograd.grad(image, latent, votes)[0].flatten(1)
    priors = gradient(build(toy_config(referees=[])))
    scale = 1.0 if factor is None else factor * priors.norm(dim=1, keepdim=True) / referees.norm(dim=1, keepdim=True)
    assert relative(found, scale * referees + priors) < 1e-10


def test_a_satisfied_referee_has_no_vote() -> None:
    satisfied = {"name": "toy", "weight": 2.0, "satisfied_at": 1e6}
    other = {"name": "toy", "config": {"seed": 1, "side": 20}}
    combine = {"name": "sum", "votes": "equal"}
    both = gradient(build(toy_config(referees=[satisfied, other], combine=combine)))
    alone = gradient(build(toy_config(referees=[{**other, "label": "toy-2"}], combine=combine)))
    assert relative(both, alone) < 1e-10


def test_terms_outside_their_window_cost_nothing() -> None:
    engine = build(toy_config(referees=[{"name": "toy", "window": [0, 3]}], priors=[{"name": "toy_sds"}]))
    step = engine.gradients(start(engine), [0, 1], 3)
    assert set(step.norms) == {"toy_sds"}
    assert engine.canvas.decodes == 0  # type: ignore[attr-defined]
    assert set(engine.gradients(start(engine), [0, 1], 2).norms) == {"toy", "toy_sds"}


def test_equal_terms_share_one_loaded_referee() -> None:
    twice = [
        {"name": "toy"},
        {"name": "toy", "prompt": "blurry", "wanted": False},
        {"name": "toy", "config": {"seed": 9}},
    ]
    uses = build(toy_config(referees=twice)).panel.referees
    assert uses[0].referee is uses[1].referee
    assert uses[0].referee is not uses[2].referee
    assert [use.label for use in uses] == ["toy", "toy-2", "toy-3"]
    assert uses[1].conditioning.prompts == ("blurry",)


def test_a_negative_weight_is_refused_on_an_unbounded_loss_alone() -> None:
    with pytest.raises(RefcoreError, match=r"referees\.1\.weight falls to -0\.3.*no upper bound.*wanted: false"):
        build(toy_config(referees=[{"name": "toy"}, {"name": "toy", "weight": -0.3}]))
    build(toy_config(referees=[{"name": "toy"}, {"name": "bounded", "weight": -0.3}]))


def test_a_negative_prior_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"priors\.0\.weight falls to -0.8"):
        toy_config(priors=[{"name": "smooth", "weight": {"kind": "linear", "start": 1, "end": -1.2}}])


def test_nan_names_step_and_term_and_leaves_the_parameters() -> None:
    referees = [{"name": "toy"}, {"name": "toy", "label": "sick", "config": {"nan_at": 2}}]
    inversion = Inversion(toy_config(referees=referees))
    next(inversion)
    next(inversion)
    before = inversion.state_dict()["tensors"]
    with pytest.raises(
        NonFiniteError, match='step 2: "sick" gave NaN or infinity in float64; try a lower weight'
    ) as caught:
        next(inversion)
    assert (caught.value.step, caught.value.terms) == (2, ("sick",))
    after = inversion.state_dict()["tensors"]
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert inversion.images().isfinite().all()


@pytest.mark.fault("1.14")
def test_nan_names_the_dtype_and_a_remedy_that_fits_it() -> None:
    half = str(NonFiniteError(3, {"canvas": "float16", "clip": "bfloat16"}))
    assert half.startswith(
        'step 3: "canvas", "clip" gave NaN or infinity in float16, bfloat16; float16 overflows above'
    )
    assert "canvas.config.dtype float32 or bfloat16" in half
    assert "diverged: try a lower optimizer.lr" in str(NonFiniteError(3, {"canvas": "float32"}))
    assert "try dtype float32 without autocast for it" in str(NonFiniteError(3, {"clip": "bfloat16"}))
    referees = [{"name": "toy", "label": "a", "autocast": "bfloat16"}, {"name": "toy", "label": "b"}]
    priors = [{"name": "toy_sds", "dtype": "float32"}]
    engine = Inversion(toy_config(referees=referees, priors=priors)).engine
    found = [engine.dtype_name(label) for label in ("a", "b", "toy_sds", "canvas")]
    assert found == ["bfloat16", "float64", "float32", "float64"]


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("canvas", ["toy_latent", "toy_pixel"])
def test_canvases_need_not_be_square(fit: str, canvas: str) -> None:
    views = {"main": {"count": 2, "augment": [{"name": "affine", "config": {}}], "fit": fit}}
    inversion = run(toy_config(size=[24, 40], canvas={"name": canvas}, views=views, steps=2))
    assert inversion.images().shape == (2, 3, 24, 40)
    assert all(score.shape == (2,) and score.isfinite().all() for score in inversion.scores().values())


def test_a_witness_sees_a_coarse_copy_and_gives_no_gradient() -> None:
    witnesses = [{"name": "toy", "coarse": 8, "label": "far"}, {"name": "toy", "label": "near"}]
    engine = build(toy_config(witnesses=witnesses))
    image = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    fine = image + 0.2 * torch.tensor([1.0, -1.0]).repeat(16)  # one-pixel stripes, which 8 px cannot show
    a, b = engine.panel.scores(image), engine.panel.scores(fine)
    assert torch.allclose(a["far"], b["far"])
    assert not torch.allclose(a["near"], b["near"])
    assert relative(gradient(engine), gradient(build(toy_config()))) == 0


def test_clean_losses_are_the_same_at_every_call() -> None:
    engine = build(toy_config())
    image = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    first, again = engine.losses(image, [0, 1], "main"), engine.losses(image, [0, 1], "main")
    assert all(torch.equal(first[label], again[label]) for label in first)
    assert FIXED < 0  # no step of a run has these draws


def test_a_half_precision_referee_gives_the_gradient_of_the_full_one() -> None:
    half = [{"name": "toy", "autocast": "bfloat16"}]
    low = gradient(build(toy_config(dtype="float32", referees=half, priors=[])))
    full = gradient(build(toy_config(dtype="float32", referees=[{"name": "toy"}], priors=[])))
    assert 0 < relative(low, full) < 0.05


def test_what_a_model_does_not_read_is_a_warning_or_with_strict_an_error() -> None:
    referees = [{"name": "toy", "config": {"context": 3}}]
    assert build(toy_config(referees=referees)).warnings[1] == (
        '"toy" does not read the end of the prompt "a dog": "og" is cut'
    )
    with pytest.raises(RefcoreError, match=r'"at" is cut; shorten the prompt'):
        build(toy_config(referees=referees, strict=True))


def test_what_cannot_be_built_is_refused_with_its_field() -> None:
    with pytest.raises(RefcoreError, match=r'unknown referee "tyo" in referees\.0; known: .*did you mean "toy"'):
        build(toy_config(referees=[{"name": "tyo"}]))
    with pytest.raises(ConfigError, match=r'referees\.0\.config\.sied: unknown field.*did you mean "si?[ed]'):
        build(toy_config(referees=[{"name": "toy", "config": {"sied": 8}}]))
    with pytest.raises(ConfigError, match=r"views\.main\.augment\.0\.config\.degrees: .*given: 999"):
        build(toy_config(views={"main": {"augment": [{"name": "affine", "config": {"degrees": 999}}]}}))
    with pytest.raises(RefcoreError, match="prompts is empty"):
        build(toy_config(prompts=[]))
    with pytest.raises(RefcoreError, match='device "cuda:77" is not available'):
        build(toy_config(device="cuda:77"))
    with pytest.raises(RefcoreError, match="multiples of 4"):
        build(toy_config(size=30))
