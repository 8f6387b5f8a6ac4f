"""GenEval's verdict from detections alone: which requirements of a prompt hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from refcore_plugins.metrics.box_scores import directions
from refcore_plugins.metrics.geneval_facts import Requirement
from refcore_plugins.models.detections import Detection

Colours = Callable[[Requirement, Sequence[int]], list[str]]
"""(requirement, indices of the detections of its class) -> the colour of each."""


def judge(needed: Sequence[Requirement], found: Mapping[str, Sequence[Detection]], colours: Colours) -> dict[str, bool]:
    """Requirement in words -> whether it holds (djghosh13/geneval at af4902f, evaluation/evaluate_images.py).

    Of each class the best `count` detections are used. A colour needs as many of them, and a place needs every pair of
    them and of the things that it refers to, if those were found with all that was asked of them. The colour and the
    place of too few things are not looked at, and count as missing.

    Args:
        needed: what the prompt asks for.
        found: class -> its detections, by falling score.
        colours: asked only where a colour is needed and there are enough things.
    """
    holds: dict[str, bool] = {}

    def note(requirement: str, held: bool) -> bool:
        holds[requirement] = held and holds.get(requirement, True)
        return held

    groups: list[Sequence[Detection] | None] = []
    for one in needed:
        there = found.get(one.name, ())
        if one.excluded:
            note(str(one), len(there) < one.count)
            continue
        used = there[: one.count]
        right = note(str(one), len(used) == one.count)
        if one.colour is not None:
            seen = colours(one, range(one.count)) if right else []
            right = note(f"{one.count} {one.colour} {one.name}", right and seen.count(one.colour) >= one.count)
        if one.position is not None:
            relation, index = one.position
            others = groups[index]
            pairs = [(a, b) for a in used for b in others or ()]
            placed = right and others is not None and all(relation in directions(a, b) for a, b in pairs)
            right = note(f"{one.name} {relation} {needed[index].name}", placed)
        groups.append(used if right else None)
    return holds
