"""The transforms of a run, at their three places: terms, gradient, parameters."""

from __future__ import annotations

from collections.abc import Sequence

from refcore import registry
from refcore.config.combine import Combine, ConflictAware, NormBalance, Sum
from refcore.config.run import RunConfig
from refcore.contracts.canvas import CanvasParams
from refcore.contracts.transform import Place, Transform
from refcore.engine import checks
from refcore.errors import ConfigError, RefcoreError
from refcore.moment import Moment


class Transforms:
    """The transforms of each place, in the config's order."""

    def __init__(self, placed: Sequence[tuple[Place, Transform]] = ()) -> None:
        self._placed = tuple(placed)

    def on(self, place: Place) -> bool:
        """Whether anything is changed there."""
        return any(own == place for own, _ in self._placed)

    def apply(self, place: Place, x: CanvasParams, before: CanvasParams, at: Moment) -> CanvasParams:
        """`x`, each tensor [A, ...], changed by the transforms of a place; arguments as for `Transform.apply`."""
        for own, transform in self._placed:
            if own == place:
                x = checks.transform(transform, x, before, at)
        return x


def transforms(config: RunConfig) -> Transforms:
    """The transforms that a config asks for.

    Raises:
        RefcoreError: an unknown or broken plugin, a wrong field, a place that a transform does not support,
            transforms on terms beside a combiner that leaves no gradients of single terms, or on gradients with lbfgs.
    """
    placed: list[tuple[Place, Transform]] = []
    for i, use in enumerate(config.transforms):
        where = f"transforms.{i}"
        made: Transform = registry.create("transforms", use.name, use.config, where)
        place = use.at or made.places[0]
        if place not in made.places:
            allowed = " or ".join(made.places)
            raise RefcoreError(f'{where}.at is "{place}", where {use.name} cannot stand; expected {allowed}')
        if config.optimizer.name == "lbfgs" and place != "parameters":
            remedy = f"leave {use.name} out" if "parameters" not in made.places else f"expected {where}.at=parameters"
            raise ConfigError(
                f"{where}.at is {place}, but optimizer.name is lbfgs, whose line search needs the gradient of the "
                f"losses as it is; {remedy}, or another optimizer"
            )
        placed.append((place, made))
    if any(place == "terms" for place, _ in placed):
        _refuse_combiner(config.combine)
    return Transforms(placed)


def _refuse_combiner(combine: Combine) -> None:
    """Raises ConfigError where a combiner leaves no gradients of single terms."""
    if isinstance(combine, Sum | NormBalance) and combine.votes == "equal":
        told, remedy = "votes is equal", "votes=weighted"
    elif isinstance(combine, ConflictAware) and combine.at == "image":
        told, remedy = "at is image", "at=parameters"
    else:
        return
    raise ConfigError(
        f"combine.{told}, which leaves no gradients of single terms for the transforms on terms; "
        f"expected combine.{remedy}, or transforms on the gradient"
    )
