"""A term that judges parts: whole * loss(whole) + weight * reduce(loss of each part), view by view."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from toys import ToyReferee, run, toy_config

from refcore import registry
from refcore.config.run import RunConfig
from refcore.contracts.parser import ParsedPrompt, Parser, Phrase, Relation
from refcore.engine.build import build, resolve
from refcore.engine.start import start
from refcore.engine.step import Engine
from refcore.errors import ConfigError, ParseError, RefcoreError
from refcore.moment import Moment
from refcore.objective import Objective, referee_term

PROMPTS = ["cat", "dog, cow, pig", "fox, hen"]
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}


class Commas(Parser):
    """Pieces between commas; the first two are related where the config says so."""

    class Config(Parser.Config):
        related: bool = False

    config: Config

    def parse(self, prompt: str) -> ParsedPrompt:
        pieces = [piece.strip() for piece in prompt.split(",")]
        if not all(pieces):
            raise ParseError(f'"{prompt}" has an empty piece')
        relations = (Relation(0, "by", 1),) if self.config.related and len(pieces) > 1 else ()
        return ParsedPrompt(prompt, tuple(Phrase(piece, None, piece) for piece in pieces), relations)


@pytest.fixture(autouse=True, scope="module")
def _commas() -> Iterator[None]:
    registry.register("parsers", "commas", Commas, "of the tests")
    yield
    registry.unregister("parsers", "commas")


def config(parts: Any, prompts: list[str] = PROMPTS, term: dict[str, Any] | None = None, **fields: Any) -> RunConfig:
    own = {"name": "toy", "weight": 2.0, "phrases": parts, **(term or {})}
    return toy_config(prompts=prompts, referees=[own], priors=[], **fields)


def gradient(engine: Engine, samples: list[int] | None = None) -> torch.Tensor:
    """[A, D], the combined gradient of step 2 at the starting parameters."""
    params = start(engine)
    samples = list(range(len(engine.panel.seeds))) if samples is None else samples
    found = engine.gradients({name: p[samples] for name, p in params.items()}, samples, 2).combined
    return torch.cat([g.flatten(1) for g in found.values()], 1)


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


def by_hand(settings: dict[str, Any], wanted: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradient of step 2 and the losses [B], every question of every view written out in a plain loop."""
    engine = build(config(settings, term={"wanted": wanted}))
    z = start(engine)["latent"].clone().requires_grad_()
    use = engine.panel.referees[0]
    opened = engine.panel.groups["main"].open(
        engine.canvas.decode({"latent": z}, Moment(2, 6)), (16, 16), engine.panel.seeds, Moment(2, 6)
    )
    opened.source = opened.small  # leave the graph whole
    made = opened.make(range(9))
    losses = []
    for b, prompt in enumerate(PROMPTS):
        views = []
        for view in made[3 * b : 3 * b + 3]:
            pieces = [piece.strip() for piece in prompt.split(",")]
            asked = use.referee.read([prompt, *pieces])
            rows = torch.arange(1 + len(pieces))
            whole, *parts = use.referee.judge(view.expand(len(rows), -1, -1, -1), asked, rows, wanted)
            reduced = max(parts) if settings.get("reduce") == "max" else torch.stack(parts).mean()
            views.append(settings.get("whole", 1.0) * whole + settings.get("weight", 1.0) * reduced)
        losses.append(torch.stack(views).mean())
    total = 2.0 * torch.stack(losses).sum()
    (found,) = torch.autograd.grad(total, z)
    return found.flatten(1), torch.stack(losses).detach()


CASES: list[dict[str, Any]] = [
    {"parser": "commas"},
    {"parser": "commas", "reduce": "max", "weight": 0.7, "whole": 0.4},
    {"parser": "commas", "whole": 0.0, "weight": 3.0},
    {"parser": "commas", "whole": 0.0, "reduce": "max"},
]


@pytest.mark.parametrize("settings", CASES)
@pytest.mark.parametrize("wanted", [True, False])
def test_the_gradient_and_the_loss_are_those_of_the_formula(settings: dict[str, Any], wanted: bool) -> None:
    expected, losses = by_hand(settings, wanted)
    engine = build(config(settings, term={"wanted": wanted}))
    assert relative(gradient(engine), expected) < 1e-12
    found = engine.gradients(start(engine), [0, 1, 2], 2)
    assert torch.allclose(found.losses["toy"], losses, rtol=1e-12)


@pytest.mark.parametrize("settings", CASES)
def test_the_gradient_is_the_slope_of_the_loss(settings: dict[str, Any]) -> None:
    engine = build(config(settings, views={"main": {"count": 2}}))
    params = start(engine)
    found = engine.gradients(params, [0, 1, 2], 0)
    way = torch.randn(params["latent"].shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def losses(shift: float) -> torch.Tensor:
        moved = {"latent": params["latent"] + shift * way}
        return 2.0 * engine.losses(engine.decode(moved, Moment(0, 6)), [0, 1, 2], "main", Moment(0, 6))["toy"]

    slope = (losses(1e-5) - losses(-1e-5)) / 2e-5
    assert torch.allclose(slope, (found.combined["latent"] * way).flatten(1).sum(1), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("reduce", ["mean", "max"])
def test_a_sample_does_not_depend_on_the_parts_of_its_mates(dtype: str, reduce: str) -> None:
    settings = {"parser": "commas", "reduce": reduce}
    engine = build(config(settings, dtype=dtype))
    whole = gradient(engine)
    for b, prompt in enumerate(PROMPTS):
        alone = gradient(build(config(settings, [prompt], dtype=dtype)))
        assert relative(whole[b : b + 1], alone) < TOLERANCE[dtype]
    assert relative(gradient(engine, [0, 2]), whole[[0, 2]]) < TOLERANCE[dtype]


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 7])
def test_chunks_count_judgements_and_do_not_change_the_gradient(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"parser": "commas"}
    whole = gradient(build(config(settings)))
    sizes: list[int] = []
    judge = ToyReferee.judge

    def counted(self: ToyReferee, views: torch.Tensor, *rest: Any) -> torch.Tensor:
        sizes.append(len(views))
        return judge(self, views, *rest)

    monkeypatch.setattr(ToyReferee, "judge", counted)
    assert relative(gradient(build(config(settings, chunk=chunk))), whole) < 1e-12
    assert max(sizes) <= max(chunk, 4)  # one view of "dog, cow, pig" has four questions
    assert sum(sizes) == 3 * (2 + 4 + 3)


def test_the_parts_of_a_relation_and_the_template_are_asked_for() -> None:
    parser = {"name": "commas", "config": {"related": True}}
    engine = build(config({"parser": parser}, ["fox, hen"], {"prompt": "a photo of {prompt}"}))
    assert engine.panel.referees[0].conditioning.prompts == (
        "a photo of fox, hen",
        "a photo of fox",
        "a photo of hen",
        "a photo of fox by hen",
    )
    assert engine.notes == ('"toy", "fox, hen": its phrases, by the parser "commas": fox; hen; fox by hen',)


def test_hardest_views_are_ranked_by_the_loss_with_its_parts() -> None:
    settings = {"parser": "commas", "whole": 0.0}
    engine = build(config(settings, views={"main": {"count": 5, "hardest": 2}}))
    image = engine.decode(start(engine), Moment(0, 6)).detach().requires_grad_()
    opened = engine.panel.groups["main"].open(image, (16, 16), engine.panel.seeds, Moment(0, 6))
    made, use = opened.make(range(15)), engine.panel.referees[0]
    found = engine.gradients(start(engine), [0, 1, 2], 0)
    for b, prompt in enumerate(PROMPTS):
        pieces = [piece.strip() for piece in prompt.split(",")]
        conditioning = use.referee.read(pieces)
        rows = torch.arange(len(pieces)).repeat_interleave(5)
        losses = use.referee.judge(made[5 * b : 5 * b + 5].repeat(len(pieces), 1, 1, 1), conditioning, rows)
        assert torch.allclose(found.losses["toy"][b], losses.view(-1, 5).mean(0).topk(2).values.mean())


def test_scores_stay_those_of_the_whole_prompt_and_history_has_the_terms_loss() -> None:
    plain, with_parts = run(config(None), 1), run(config("commas"), 1)
    images = plain.images()
    assert torch.equal(plain.scores(images)["toy"], with_parts.scores(images)["toy"])
    first = with_parts.engine.gradients(start(with_parts.engine), [0, 1, 2], 0).losses["toy"]
    whole = plain.engine.gradients(start(plain.engine), [0, 1, 2], 0).losses["toy"]
    assert not torch.allclose(first, whole)


def test_a_run_is_the_same_with_the_parser_by_name_or_by_settings() -> None:
    short = config("commas")
    long = config({"parser": {"name": "commas", "config": {}}, "weight": 1, "whole": 1, "reduce": "mean"})
    assert short == long
    assert resolve(short).referees[0].phrases.parser.config == {"related": False}  # type: ignore[union-attr]
    assert torch.equal(run(short).images(), run(resolve(long)).images())


def test_an_objective_keeps_its_parts() -> None:
    objective = 2 * referee_term("toy", term={"phrases": {"parser": "commas", "reduce": "max"}}) - referee_term("toy")
    assert Objective.from_settings(json.loads(json.dumps(objective.settings()))) == objective
    assert Objective.of(objective.into(config(None))) == objective
    assert "reduce" in str(objective)
    assert "phrases" not in str(referee_term("toy"))


@pytest.mark.parametrize(
    ("term", "told"),
    [
        ({"phrases": {"parser": "commas", "weight": 0}}, r"phrases\.weight: .*greater than 0"),
        ({"phrases": {"parser": "commas", "whole": -1}}, r"phrases\.whole: .*greater than or equal to 0"),
        ({"phrases": {"parser": "commas", "reduce": "min"}}, r'phrases\.reduce: "min" is unknown; expected mean, max'),
        ({"phrases": {}}, r"phrases\.parser: required, but missing"),
        ({"phrases": {"parser": "commas", "wieght": 1}}, r'phrases\.wieght: unknown field.*did you mean "weight"'),
        ({"phrases": "commas", "prompt": "blurry"}, r'prompt is "blurry"; expected \{prompt\} in it'),
        ({"phrases": "commas", "satisfied_at": {"quantile": 0.5, "calibration": "c"}}, r"use satisfied_at\.loss"),
    ],
)
def test_wrong_settings_are_named(term: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        toy_config(referees=[{"name": "toy", **term}])


def test_an_unknown_parser_field_or_prompt_is_refused_where_it_stands() -> None:
    with pytest.raises(RefcoreError, match=r'unknown parser "comas" in referees\.0\.phrases\.parser.*"commas"'):
        build(config("comas"))
    with pytest.raises(ConfigError, match=r"referees\.0\.phrases\.parser\.config\.relatd: unknown field"):
        resolve(config({"parser": {"name": "commas", "config": {"relatd": True}}}))
    with pytest.raises(ParseError, match='"toy" cannot judge the phrases of a prompt: "cat,," has an empty piece'):
        build(config("commas", ["cat,,"]))


def test_enough_is_of_the_terms_own_loss() -> None:
    engine = build(config("commas"))
    free = engine.gradients(start(engine), [0, 1, 2], 0).losses["toy"]
    gated = build(config("commas", term={"satisfied_at": float(free.median())}))
    norms = gated.gradients(start(gated), [0, 1, 2], 0).norms["toy"]
    assert ((norms == 0) == (free <= free.median())).all()
