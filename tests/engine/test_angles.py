"""The angles between terms: exact at both ends, named by what is compared, and free of any other gradient."""

from __future__ import annotations

import pytest
import torch
from toys import toy_config

from refcore.config.labels import EVERYTHING, PRIORS, REFEREES
from refcore.config.run import RunConfig
from refcore.engine import angles
from refcore.engine.angles import Angles, degrees, pulled_back
from refcore.engine.build import build
from refcore.engine.combine import VOTES
from refcore.engine.inversion import Inversion, StepResult
from refcore.engine.start import start

TWICE = [{"name": "toy", "label": "one"}, {"name": "toy", "label": "two"}]


def first_step(config: RunConfig) -> StepResult:
    return next(Inversion(config))


def test_a_term_is_at_0_degrees_to_itself_and_at_180_to_its_opposite() -> None:
    same = first_step(toy_config(referees=TWICE, priors=[])).angles["one", "two"]
    assert torch.equal(same, torch.zeros_like(same))
    opposed = [{**TWICE[0], "name": "bounded"}, {**TWICE[1], "name": "bounded", "weight": -3.0}]
    other = first_step(toy_config(referees=opposed, priors=[])).angles["one", "two"]
    assert torch.allclose(other, torch.full_like(other, 180.0))


def test_right_angles_and_what_lies_between_are_told_exactly() -> None:
    u = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    tiny = 1e-4
    v = torch.tensor([[0.0, 1.0], [0.5, 0.75**0.5], [torch.cos(torch.tensor(tiny)), tiny]])
    assert torch.allclose(degrees(u, v), torch.tensor([90.0, 60.0, 180 / torch.pi * tiny]))


def test_terms_at_the_image_are_compared_with_each_other_and_the_latent_prior_with_their_sum() -> None:
    step = first_step(toy_config())
    assert set(step.angles) == {
        ("toy", "toy-2"),
        ("toy", "smooth"),
        ("toy-2", "smooth"),
        (EVERYTHING, "toy_sds"),
    }
    assert all(angle.shape == (2,) for angle in step.angles.values())
    record = step.record()
    assert record["angles"]["toy"]["toy-2"] == pytest.approx(step.angles["toy", "toy-2"].tolist(), abs=1e-4)


def test_the_angle_to_the_sum_is_that_of_the_gradients_themselves() -> None:
    config = toy_config()
    without = config.model_copy(update={"priors": [config.priors[1]]})

    def flat(config: RunConfig) -> torch.Tensor:
        engine = build(config)
        return engine.gradients(start(engine, [0, 1]), [0, 1], 0).combined["latent"].flatten(1)

    image, whole = flat(without), flat(config)
    prior = whole - image
    expected = torch.rad2deg(torch.acos(torch.nn.functional.cosine_similarity(image, prior)))
    assert torch.allclose(first_step(config).angles[EVERYTHING, "toy_sds"], expected)


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"combine": {"name": "norm_balance", "factor": 1.0}}, {REFEREES, "smooth"}),
        ({"combine": {"name": "sum", "votes": "equal"}}, {REFEREES, "smooth"}),
        ({"combine": {"name": "pcgrad"}}, {"toy", "toy-2", "smooth"}),
        ({"combine": {"name": "pcgrad", "at": "image"}}, {EVERYTHING}),
        ({"combine": {"name": "pcgrad", "at": "image", "factor": 1.0}}, {REFEREES, "smooth"}),
        ({"referees": [TWICE[0]], "priors": [{"name": "toy_sds"}]}, {"one"}),
        ({"priors": [{"name": "toy_sds"}]}, {REFEREES}),
    ],
)
def test_what_a_combiner_pulls_back_is_named_by_the_terms_in_it(fields: dict[str, object], names: set[str]) -> None:
    found = {first for first, second in first_step(toy_config(**fields)).angles if second == "toy_sds"}
    assert found == names


def test_the_sum_of_priors_alone_is_called_so() -> None:
    row = torch.ones(1, 3)
    assert list(pulled_back({"priors": row}, ["tv", "smooth"], ["clip"])) == [PRIORS]
    assert list(pulled_back({VOTES: row, "tv": row}, ["clip", "blip2", "tv"], ["clip", "blip2"])) == [REFEREES, "tv"]


def test_a_satisfied_referee_has_no_direction() -> None:
    satisfied = [TWICE[0], {**TWICE[1], "satisfied_at": 1e6}]
    step = first_step(toy_config(referees=satisfied, priors=[]))
    assert step.angles["one", "two"].isnan().all()
    assert step.norms["two"].eq(0).all()


def test_what_does_not_fit_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(angles, "MOST_BYTES", 20)
    found = Angles()
    for label in ("a", "b", "c"):
        found.add("image", label, torch.ones(1, 5))
    assert set(found.found) == {("a", "b"), ("a", "c")}
