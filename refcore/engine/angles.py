"""The angles between the gradients of one step: which terms pull the same way, and which against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from refcore.config.labels import EVERYTHING, PRIORS, REFEREES
from refcore.engine.combine import VOTES

MOST_BYTES = 2**28
"""Of the gradients that are held to be compared with those to come; what does not fit is left out."""


class Angles:
    """The angles of a step, pair by pair, from gradients that the step has anyway.

    Only gradients of one space are compared: those at the image with each other, and those at the parameters with each
    other and with what was pulled back to them. Nothing is judged or pulled back for it.
    """

    def __init__(self) -> None:
        self.found: dict[tuple[str, str], Tensor] = {}
        """(label, label) -> [A] degrees, 0 .. 180; NaN where one of the two gradients is 0."""
        self._held: dict[str, dict[str, Tensor]] = {}

    def add(self, space: str, label: str, gradient: Tensor) -> None:
        """Compares a gradient [A, ...] with those of its space, and holds it for the next."""
        direction = _direction(gradient)
        for other, before in self._held.get(space, {}).items():
            self.found[other, label] = degrees(before, direction)
        self._hold(space, label, direction)

    def know(self, space: str, gradients: Mapping[str, Tensor]) -> None:
        """Holds gradients for the next, without comparing them with each other."""
        for label, gradient in gradients.items():
            self._hold(space, label, _direction(gradient))

    def _hold(self, space: str, label: str, direction: Tensor) -> None:
        held = [tensor.nbytes for own in self._held.values() for tensor in own.values()]
        if sum(held) + direction.nbytes <= MOST_BYTES:
            self._held.setdefault(space, {})[label] = direction


def degrees(first: Tensor, second: Tensor) -> Tensor:
    """[A] angles in degrees between unit rows [A, D].

    By Kahan's formula, 2 atan(|u - v| / |u + v|), which is exact where a cosine is not: near 0 and 180 degrees.
    """
    return torch.rad2deg(2 * torch.atan2((first - second).norm(dim=1), (first + second).norm(dim=1)))


def pulled_back(rows: Mapping[str, Tensor], labels: Sequence[str], referees: Sequence[str]) -> dict[str, Tensor]:
    """The rows that a combiner has pulled back, named by what they are the sum of.

    Args:
        rows: by the combiner's own keys: a label, or a name of a sum.
        labels: of the terms that acted at the image.
        referees: those of them that are referees.
    """
    named = {}
    for key, row in rows.items():
        members = [label for label in labels if label not in rows]
        if key in labels:
            members = [key]
        elif key in ("referees", VOTES):
            members = [label for label in members if label in referees]
        elif key == "priors":
            members = [label for label in members if label not in referees]
        named[_name(members, referees)] = row
    return named


def _name(members: Sequence[str], referees: Sequence[str]) -> str:
    if len(members) == 1:
        return members[0]
    own = {label in referees for label in members}
    return EVERYTHING if len(own) == 2 else REFEREES if own == {True} else PRIORS


def _direction(gradient: Tensor) -> Tensor:
    """[A, D] unit rows; NaN where a row is 0."""
    flat = gradient.detach().flatten(1)
    norm: Tensor = flat.norm(dim=1, keepdim=True)
    return flat / norm
