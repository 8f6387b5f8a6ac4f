"""Dense auxiliary losses: the thing under each patch, the facts of a scene, the content of a caption.

A contrastive or matching loss gives one signal per pair, from which attributes are bound to things only late. These
heads train each tower directly; they are discarded afterwards, so the checkpoints keep their native formats.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from refcore_playground.grammar import PLURALS, Phrase, Request
from refcore_playground.world import (
    COLOURS,
    INVERSE,
    MAX_THINGS,
    RELATIONS,
    SHAPES,
    SIZE,
    TEXTURES,
    Scene,
    Thing,
    relation,
)

PATCH_CLASSES: dict[str, int] = {"colour": len(COLOURS), "shape": len(SHAPES), "texture": len(TEXTURES), "size": 2}
PHRASE_CLASSES: dict[str, int] = {
    "colour": len(COLOURS),
    "shape": len(SHAPES),
    "texture": len(TEXTURES) + 1,
    "size": 3,
    "count": MAX_THINGS,
    "relation": len(RELATIONS) + 1,
}
"""Number of classes that a noun's state must predict of its phrase; the last texture, size and relation mean "not
named"."""
_COLOURS = tuple(COLOURS)
_SIZES = ("small", "large")


def patch_targets(scenes: list[Scene], patch: int) -> tuple[dict[str, Tensor], Tensor]:
    """The thing at each patch centre: class indices (-100 for ground or textures without a word), and its centre.

    Returns:
        classes: name -> [N, P] long; places [N, P, 2], x and y of the thing's centre in units of 16 px from the image's
        centre, NaN on the ground. P = (64 / patch)^2. Places are absolute: a tower trained on offsets forgets where its
        patches are, and then nothing that reads it can learn left from right.
    """
    side = SIZE // patch
    centre = torch.arange(side) * patch + patch / 2
    y, x = (c.reshape(-1) for c in torch.meshgrid(centre, centre, indexing="ij"))
    classes = {name: torch.full((len(scenes), side * side), -100) for name in PATCH_CLASSES}
    places = torch.full((len(scenes), side * side, 2), float("nan"))
    for i, scene in enumerate(scenes):
        for thing in scene.things:
            dx, dy = thing.x - x, thing.y - y
            under = torch.maximum(dx.abs(), dy.abs()) <= thing.radius + 1
            classes["colour"][i, under] = _COLOURS.index(thing.colour)
            classes["shape"][i, under] = SHAPES.index(thing.shape)
            classes["texture"][i, under] = TEXTURES.index(thing.texture) if thing.texture in TEXTURES else -100
            classes["size"][i, under] = int(thing.size == "large")
            places[i, under] = torch.tensor([thing.x - SIZE / 2, thing.y - SIZE / 2]) / 16
    return classes, places


class PatchHead(nn.Module):
    """Predicts the thing under each patch from its token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, sum(PATCH_CLASSES.values()) + 2 + 1)

    def loss(self, tokens: Tensor, scenes: list[Scene], patch: int) -> Tensor:
        """Cross-entropy of each attribute and of thing against ground, plus L1 of the place. `tokens` is [N, P, W]."""
        classes, places = patch_targets(scenes, patch)
        out = self.out(self.norm(tokens.float()))
        *logits, place, ground = out.split([*PATCH_CLASSES.values(), 2, 1], dim=-1)
        thing = classes["colour"] >= 0
        total = F.binary_cross_entropy_with_logits(ground[..., 0], thing.float())
        total = total + F.l1_loss(place[thing], places[thing])
        for name, logit in zip(PATCH_CLASSES, logits, strict=True):
            total = total + (2 if name == "shape" else 1) * F.cross_entropy(logit[thing], classes[name][thing])
        return total


_PAIRS = {
    ("colour", "shape"): (_COLOURS, SHAPES),
    ("colour", "texture"): (_COLOURS, TEXTURES),
    ("shape", "texture"): (SHAPES, TEXTURES),
    ("colour", "size"): (_COLOURS, _SIZES),
    ("shape", "size"): (SHAPES, _SIZES),
}
_NAMES: list[tuple[object, ...]] = [
    *(((a, b), x, y) for (a, b), (xs, ys) in _PAIRS.items() for x in xs for y in ys),
    *(("things", n) for n in range(1, MAX_THINGS + 1)),
    *((attribute, x, "twice") for attribute, xs in (("colour", _COLOURS), ("shape", SHAPES)) for x in xs),
    *(
        (attribute, x, r, y)
        for attribute, xs in (("colour", _COLOURS), ("shape", SHAPES))
        for x in xs
        for y in xs
        if x != y
        for r in RELATIONS
    ),
]
FACTS: dict[tuple[object, ...], int] = {name: i for i, name in enumerate(_NAMES)}
"""Every fact that binds two attributes or two things -> its index in the vectors below."""


def scene_facts(scenes: Sequence[Scene]) -> Tensor:
    """Whether each fact holds of each scene: [N, F] of 0 and 1."""
    truth = torch.zeros(len(scenes), len(FACTS))
    for i, scene in enumerate(scenes):
        holds: list[tuple[object, ...]] = [("things", len(scene.things))]
        for thing in scene.things:
            holds += [((a, b), getattr(thing, a), getattr(thing, b)) for a, b in _PAIRS]
        for attribute in ("colour", "shape"):
            values = [getattr(t, attribute) for t in scene.things]
            holds += [(attribute, v, "twice") for v in values if values.count(v) > 1]
            for (a, s), (b, t) in permutations(zip(values, scene.things, strict=True), 2):
                if values.count(a) == values.count(b) == 1:
                    holds.append((attribute, a, relation(s.x - t.x, s.y - t.y), b))
        truth[i, [FACTS[name] for name in holds]] = 1
    return truth


def request_facts(requests: Sequence[Request]) -> tuple[Tensor, Tensor]:
    """Whether each request makes each fact true, and whether it decides the fact: [N, F] and [N, F] of 0 and 1."""
    truth, known = torch.zeros(len(requests), len(FACTS)), torch.ones(len(requests), len(FACTS))
    for i, request in enumerate(requests):
        holds: list[tuple[object, ...]] = [("things", request.total)]
        open_: list[tuple[object, ...]] = []
        for phrase in request.phrases:
            for (a, b), (_, choices) in _PAIRS.items():
                x, y = getattr(phrase, a), getattr(phrase, b)
                if x is not None and y is not None:
                    holds.append(((a, b), x, y))
                else:
                    xs = (x,) if x is not None else _PAIRS[a, b][0]
                    open_ += [((a, b), u, v) for u in xs for v in (choices if y is None else (y,))]
        for attribute in ("colour", "shape"):
            values = [getattr(p, attribute) for p in request.phrases for _ in range(p.count)]
            holds += [(attribute, v, "twice") for v in values if values.count(v) > 1]
            single = [v for v in values if values.count(v) == 1]
            pairs = list(permutations(single, 2))
            if request.relation:
                a, b = (getattr(p, attribute) for p in request.phrases[:2])
                if a in single and b in single:
                    holds += [(attribute, a, request.relation, b), (attribute, b, INVERSE[request.relation], a)]
                    pairs = [p for p in pairs if set(p) != {a, b}]
            open_ += [(attribute, a, r, b) for a, b in pairs for r in RELATIONS]
        known[i, [FACTS[name] for name in open_]] = 0
        places = [FACTS[name] for name in holds]
        truth[i, places] = 1
        known[i, places] = 1
    return truth, known


class FactHead(nn.Module):
    """Predicts bound facts from a pooled embedding; a head shared by pictures and captions aligns their embeddings."""

    rare = 12.0
    """Additional weight of a fact that holds: only a handful of several hundred do."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, len(FACTS))
        nn.init.constant_(self.out.bias, -2.0)

    def _loss(self, pooled: Tensor, truth: Tensor, known: Tensor) -> Tensor:
        weight = known * (1 + self.rare * truth)
        error = F.binary_cross_entropy_with_logits(self.out(self.norm(pooled.float())), truth, reduction="none")
        return (error * weight).sum() / weight.sum()

    def of_scenes(self, pooled: Tensor, scenes: Sequence[Scene]) -> Tensor:
        """Weighted cross-entropy of all facts of the scenes; `pooled` is [N, W]."""
        truth = scene_facts(scenes)
        return self._loss(pooled, truth, torch.ones_like(truth))

    def of_requests(self, pooled: Tensor, requests: Sequence[Request]) -> Tensor:
        """Weighted cross-entropy of the facts that each request decides; `pooled` is [N, W]."""
        return self._loss(pooled, *request_facts(requests))


def noun_ids(vocabulary: dict[str, int]) -> Tensor:
    """Token ids of every shape's name, singular and plural, in a CLIP or a BERT vocabulary."""
    nouns = (*PLURALS, *PLURALS.values())
    return torch.tensor([vocabulary.get(noun + "</w>", vocabulary.get(noun)) for noun in nouns])


class PhraseHead(nn.Module):
    """Predicts a whole phrase from its noun's state; for text encoders whose tokens are attended to one by one."""

    def __init__(self, width: int, vocabulary: dict[str, int]) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, sum(PHRASE_CLASSES.values()))
        self.register_buffer("nouns", noun_ids(vocabulary), persistent=False)

    def loss(self, states: Tensor, ids: Tensor, requests: Sequence[Request]) -> Tensor:
        """Mean cross-entropy of each attribute. `states` is [N, T, W], `ids` [N, T]; captions keep phrases in order."""
        at = torch.isin(ids, self.nouns)  # type: ignore[arg-type]
        targets: dict[str, list[int]] = {name: [] for name in PHRASE_CLASSES}
        for request in requests:
            for place, phrase in enumerate(request.phrases):
                targets["colour"].append(_COLOURS.index(phrase.colour))
                targets["shape"].append(SHAPES.index(phrase.shape))
                targets["texture"].append(TEXTURES.index(phrase.texture) if phrase.texture else len(TEXTURES))
                targets["size"].append(_SIZES.index(phrase.size) if phrase.size else 2)
                targets["count"].append(phrase.count - 1)
                named = request.relation if place == 1 else None
                targets["relation"].append(RELATIONS.index(named) if named else len(RELATIONS))
        logits = self.out(self.norm(states[at].float())).split(list(PHRASE_CLASSES.values()), dim=-1)
        losses = [
            F.cross_entropy(logit, torch.tensor(targets[name]))
            for name, logit in zip(PHRASE_CLASSES, logits, strict=True)
        ]
        return torch.stack(losses).mean()


class GroundingHead(nn.Module):
    """Predicts, from each noun of a caption read beside an image, whether the image has such a thing, and where.

    At the second noun it also predicts whether the caption's relation holds. A matching loss has one signal per caption
    and learns relations last; these targets help (grounding as in MDETR, arXiv 2104.12763, with points for boxes).
    """

    def __init__(self, width: int, vocabulary: dict[str, int]) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, 4)
        self.register_buffer("nouns", noun_ids(vocabulary), persistent=False)

    def loss(self, states: Tensor, ids: Tensor, requests: Sequence[Request], scenes: Sequence[Scene]) -> Tensor:
        """Cross-entropy of presence and relation, L1 of the place. `states` is [N, T, W], `ids` [N, T]."""
        at = torch.isin(ids, self.nouns)  # type: ignore[arg-type]
        there, held = [], []
        places: list[tuple[float, float]] = []
        unknown = float("nan")
        for request, scene in zip(requests, scenes, strict=True):
            found = [[t for t in scene.things if _answers(phrase, t)] for phrase in request.phrases]
            for k, (phrase, things) in enumerate(zip(request.phrases, found, strict=True)):
                there.append(float(len(things) == phrase.count))
                single = len(things) == 1
                places.append((things[0].x / SIZE, things[0].y / SIZE) if single else (unknown, unknown))
                pair = request.relation and k == 1 and len(found[0]) == len(found[1]) == 1
                if pair:
                    a, b = found[0][0], found[1][0]
                    held.append(float(relation(a.x - b.x, a.y - b.y) == request.relation))
                else:
                    held.append(unknown)
        out = self.out(self.norm(states[at].float()))
        presence, place, relates = out[:, 0], out[:, 1:3], out[:, 3]
        total = F.binary_cross_entropy_with_logits(presence, torch.tensor(there))
        target = torch.tensor(places)
        known = ~target[:, 0].isnan()
        total = total + 4 * F.l1_loss(place[known], target[known])
        related = torch.tensor(held)
        known = ~related.isnan()
        if known.any():
            total = total + F.binary_cross_entropy_with_logits(relates[known], related[known])
        return total


def _answers(phrase: Phrase, thing: Thing) -> bool:
    if (phrase.colour, phrase.shape) != (thing.colour, thing.shape):
        return False
    return phrase.texture in (None, thing.texture) and phrase.size in (None, thing.size)
