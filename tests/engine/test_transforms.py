"""Transforms at their three places, in the config's order, and what they cannot be combined with."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from toys import toy_config

from refcore import registry
from refcore.contracts.canvas import CanvasParams
from refcore.contracts.transform import Transform
from refcore.engine.inversion import Inversion
from refcore.errors import ConfigError, ContractError, RefcoreError
from refcore.moment import Moment

SGD = {"name": "sgd", "lr": 1.0}


def moved(steps: int = 1, **fields: Any) -> torch.Tensor:
    """[B, D] by which the parameters of a run of toys have moved; the optimiser is plain descent."""
    config = toy_config(**{"optimizer": SGD, "steps": steps, **fields})
    start, end = Inversion(config), Inversion(config)
    for _ in end:
        pass
    return torch.cat([(end.params[name] - start.params[name]).detach().flatten(1) for name in start.params], 1)


def test_the_gradient_is_changed_in_the_order_of_the_list(toys: None) -> None:
    plain = moved()
    clip, sign = {"name": "clip", "config": {"norm": 0.01}}, {"name": "sign"}
    assert torch.allclose(moved(transforms=[clip]).norm(dim=1), torch.full((len(plain),), 0.01).double())
    assert torch.equal(moved(transforms=[clip, sign]).sign(), plain.sign())
    short = moved(transforms=[sign, clip])
    assert torch.allclose(short.norm(dim=1), torch.full((len(plain),), 0.01).double())
    assert torch.allclose(short.abs(), short.abs().amax(1, keepdim=True).expand_as(short))


def test_a_gradient_over_several_tensors_is_normalised_as_one(toys: None) -> None:
    fields: dict[str, Any] = {"canvas": {"name": "toy_pixel"}, "priors": []}
    norms = moved(**fields, transforms=[{"name": "normalize"}]).norm(dim=1)
    assert torch.allclose(norms, torch.ones_like(norms))


@pytest.mark.parametrize("combine", [{"name": "sum"}, {"name": "norm_balance"}])
def test_terms_are_changed_one_by_one_before_they_are_combined(combine: dict[str, Any], toys: None) -> None:
    """With a norm of 1 for each term, the sum is that of the directions of runs of one term each."""
    terms: dict[str, Any] = {
        "referees": [{"name": "toy"}, {"name": "toy", "label": "second", "weight": 3.0}],
        "priors": [{"name": "toy_sds", "weight": 0.2}],
    }
    on_terms = [{"name": "normalize", "at": "terms"}]
    alone = []
    for kind, several in terms.items():
        for term in several:
            own = {"referees": [], "priors": [], kind: [{**term, "label": term.get("label", term["name"])}]}
            alone.append(torch.nn.functional.normalize(moved(**own), dim=1))
    together = moved(**terms, transforms=on_terms, combine=combine)
    referees = alone[0] + alone[1]
    if combine["name"] == "norm_balance":
        referees = torch.nn.functional.normalize(referees, dim=1)
    assert torch.allclose(together, referees + alone[2], atol=1e-9)


def test_the_parameters_are_changed_after_the_update_and_its_noise(toys: None) -> None:
    config = toy_config(optimizer=SGD, noise=0.3, steps=3, transforms=[{"name": "renormalize"}])
    start, end = Inversion(config), Inversion(config)
    for _ in end:
        pass
    for name, value in start.params.items():
        assert torch.allclose(value.flatten(1).norm(dim=1), end.params[name].flatten(1).norm(dim=1))
        assert not torch.allclose(value, end.params[name])


def test_without_transforms_terms_are_combined_as_ever(toys: None) -> None:
    """Clipping terms at a norm that none reaches changes nothing but the order of sums."""
    loose = [{"name": "clip", "at": "terms", "config": {"norm": 1e9}}]
    for combine in ({"name": "sum"}, {"name": "norm_balance"}):
        assert torch.allclose(moved(combine=combine), moved(combine=combine, transforms=loose), atol=1e-12)


def test_a_run_with_transforms_goes_on_to_the_same_bits(toys: None) -> None:
    config = toy_config(steps=4, transforms=[{"name": "clip", "config": {"norm": 0.1}}, {"name": "renormalize"}])
    whole, half = Inversion(config), Inversion(config)
    for _ in whole:
        pass
    next(half), next(half)
    rest = Inversion(config, state=half.state_dict())
    for _ in rest:
        pass
    assert torch.equal(rest.params["latent"], whole.params["latent"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"transforms": [{"name": "clipp"}]}, r'unknown transform "clipp" in transforms\.0; .*did you mean "clip"'),
        ({"transforms": [{"name": "clip", "config": {"norm": 0}}]}, r"transforms\.0\.config\.norm"),
        (
            {"transforms": [{"name": "sign", "at": "parameters"}]},
            r'transforms\.0\.at is "parameters".*gradient or terms',
        ),
        (
            {"transforms": [{"name": "renormalize", "at": "terms"}]},
            r'transforms\.0\.at is "terms".*expected parameters',
        ),
    ],
)
def test_what_is_wrong_with_a_transform_is_said_with_its_field(fields: Any, message: str, toys: None) -> None:
    with pytest.raises(RefcoreError, match=message):
        Inversion(toy_config(**fields))


@pytest.mark.parametrize("named", [True, False])
def test_terms_that_are_merged_before_they_are_pulled_back_cannot_be_changed(toys: None, named: bool) -> None:
    """Whether the place is written, or is the transform's own first one."""

    class OnTerms(Transform):
        places = ("terms",)

        def apply(self, x: CanvasParams, before: CanvasParams, at: Moment) -> CanvasParams:
            return x

    registry.register("transforms", "on_terms", OnTerms, "only on terms")
    on_terms = [{"name": "clip", "at": "terms"} if named else {"name": "on_terms"}]
    for combine, message in (
        ({"name": "sum", "votes": "equal"}, r"combine\.votes is equal"),
        ({"name": "pcgrad", "at": "image"}, r"combine\.at is image"),
    ):
        with pytest.raises(ConfigError, match=message):
            Inversion(toy_config(transforms=on_terms, combine=combine))


def test_a_transform_that_loses_a_tensor_is_named(toys: None) -> None:
    class Lossy(Transform):
        def apply(self, x: CanvasParams, before: CanvasParams, at: Moment) -> CanvasParams:
            return {}

    registry.register("transforms", "lossy", Lossy, "loses all")
    with pytest.raises(ContractError, match=r'transform "lossy" \(apply\) returned the keys \[\]; expected .*latent'):
        next(Inversion(toy_config(transforms=[{"name": "lossy"}])))
