"""Checks the facts of a request against the things in a scene."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

from refcore.contracts.judge import Fact
from refcore_playground.grammar import Phrase, Request
from refcore_playground.world import Thing, relation


def check(request: Request, things: Sequence[Thing]) -> list[Fact]:
    """Every fact of the request, checked against `things` under the assignment that satisfies most of them.

    The first fact is the number of things, so that surplus things count against the image.
    """
    slots = [p for p in request.phrases for _ in range(p.count)]
    best: list[Fact] | None = None
    pool: list[Thing | None] = [*things, *[None] * max(0, len(slots) - len(things))]
    for chosen in permutations(pool, len(slots)):
        facts = _facts(request, slots, chosen)
        if best is None or sum(f.ok for f in facts) > sum(f.ok for f in best):
            best = facts
    assert best is not None
    total = Fact(f"{request.total} in all", f"{len(things)} in all", request.total == len(things))
    return [total, *best]


def satisfies(request: Request, things: Sequence[Thing]) -> bool:
    """Whether every fact holds and there are no other things."""
    return len(things) == request.total and all(f.ok for f in check(request, things))


def _facts(request: Request, slots: Sequence[Phrase], chosen: Sequence[Thing | None]) -> list[Fact]:
    facts = []
    for slot, thing in zip(slots, chosen, strict=True):
        for name in ("colour", "shape", "texture", "size"):
            asked = getattr(slot, name)
            if asked is None:
                continue
            found = getattr(thing, name) if thing else "nothing"
            facts.append(Fact(asked, found, asked == found))
    if request.relation:
        a, b = chosen[0], chosen[1]
        found = relation(a.x - b.x, a.y - b.y) if a and b else "nothing"
        facts.append(Fact(request.relation, found, found == request.relation))
    return facts
