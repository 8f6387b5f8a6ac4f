"""Draws requests, scenes that satisfy them, prompt sets by category and split, and captions with one wrong fact."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from refcore_playground.facts import satisfies
from refcore_playground.grammar import Phrase, Request, write
from refcore_playground.world import (
    COLOURS,
    DOMINANCE,
    GAP,
    INVERSE,
    MAX_THINGS,
    RADII,
    RELATIONS,
    SHAPES,
    SIZE,
    TEXTURES,
    Scene,
    Thing,
    relation,
)

CATEGORIES: tuple[str, ...] = ("colour", "shape", "texture", "spatial", "numeracy", "complex")
SPLITS: tuple[str, ...] = ("seen", "unseen")
NEGATIVES: tuple[str, ...] = ("colour", "shape", "texture", "size", "relation", "count", "swap", "drop", "add")
_COLOURS = tuple(COLOURS)
_PATTERNS = tuple(t for t in TEXTURES if t != "solid")


def draw_request(rng: random.Random, category: str | None = None, split: str = "seen") -> Request:
    """A request of a category (default: any). `seen` has no held-out combination; `unseen` has at least one.

    Raises:
        ValueError: unknown category or split.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; known: {', '.join(SPLITS)}")
    if category is not None and category not in CATEGORIES:
        raise ValueError(f"unknown category {category!r}; known: {', '.join(CATEGORIES)}")
    while True:
        request = _DRAW[category or rng.choice(CATEGORIES)](rng)
        if request.unseen == (split == "unseen") and _unambiguous(request):
            return request


def draw_scene(request: Request, rng: random.Random) -> Scene:
    """A scene that satisfies the request. Sizes it leaves open are drawn; textures it leaves open are solid."""
    for _ in range(1000):
        slots = [p for p in request.phrases for _ in range(p.count)]
        radii = [rng.choice(RADII[p.size or rng.choice(("small", "large"))]) for p in slots]
        places = _place(radii, request.relation, rng)
        if places is None:
            continue
        things = [
            Thing(p.colour, p.shape, p.texture or "solid", r, x, y)
            for p, r, (x, y) in zip(slots, radii, places, strict=True)
        ]
        level = rng.randint(218, 252)
        ground = tuple(min(255, level + rng.randint(-4, 4)) for _ in range(3))
        return Scene(tuple(things), ground)  # type: ignore[arg-type]
    raise RuntimeError(f"no room for {write(request)!r}")


def draw_pair(rng: random.Random, category: str | None = None, split: str = "seen") -> tuple[Scene, Request]:
    """A scene and a request that it satisfies."""
    request = draw_request(rng, category, split)
    return draw_scene(request, rng), request


def draw_negative(scene: Scene, request: Request, rng: random.Random, kind: str | None = None) -> tuple[Request, str]:
    """A request that differs from `request` in one fact and is false of `scene`, and the kind of difference.

    It has no held-out combination unless `request` has one, so it can be used in training.

    Raises:
        ValueError: `kind` does not apply to this request (a relation where there is none, say).
    """
    kinds = [k for k in ([kind] if kind else NEGATIVES) if applies(k, request)]
    for _ in range(40 if kinds else 0):
        chosen = rng.choice(kinds)
        wrong = _perturb(request, chosen, rng)
        if wrong is None or wrong.total > MAX_THINGS or satisfies(wrong, scene.things):
            continue
        if wrong.unseen and not request.unseen:
            continue
        return wrong, chosen
    raise ValueError(f"no {kind or 'wrong'} caption for {write(request)!r}")


def applies(kind: str, request: Request) -> bool:
    """Whether a kind of `NEGATIVES` applies to a request."""
    match kind:
        case "relation":
            return request.relation is not None
        case "size":
            return any(p.size for p in request.phrases)
        case "swap" | "drop":
            return len(request.phrases) > 1
        case "add":
            return request.total < MAX_THINGS
    return True


def draw_prompts(n: int, seed: int, category: str | None = None, split: str = "seen") -> list[str]:
    """`n` distinct prompts in their plainest form; by default cycling through all categories."""
    rng = random.Random(f"prompts-{seed}-{category}-{split}")
    prompts: list[str] = []
    while len(prompts) < n:
        prompt = write(draw_request(rng, category or CATEGORIES[len(prompts) % len(CATEGORIES)], split))
        if prompt not in prompts:
            prompts.append(prompt)
    return prompts


def categorise(index: int) -> str:
    """Category of prompt `index` in a set that `draw_prompts` drew from all categories."""
    return CATEGORIES[index % len(CATEGORIES)]


def _phrase(rng: random.Random, p_texture: float = 0.0, p_size: float = 0.0, **fixed: object) -> Phrase:
    """A phrase that names a pattern with probability `p_texture` and a size with probability `p_size`."""
    named = rng.choice(_PATTERNS) if rng.random() < p_texture else ("solid" if rng.random() < 0.12 else None)
    sized = rng.choice(tuple(RADII)) if rng.random() < p_size else None
    return replace(Phrase(rng.choice(_COLOURS), rng.choice(SHAPES), named, sized), **fixed)  # type: ignore[arg-type]


def _draw_colour(rng: random.Random) -> Request:
    a, b = rng.sample(_COLOURS, 2)
    phrases = (_phrase(rng, 0, 0.1, colour=a), _phrase(rng, 0, 0.1, colour=b))
    return Request(phrases if rng.random() < 0.8 else phrases[:1])


def _draw_shape(rng: random.Random) -> Request:
    a, b = rng.sample(SHAPES, 2)
    colour = rng.choice(_COLOURS)
    phrases = (_phrase(rng, 0.1, 0.1, shape=a, colour=colour), _phrase(rng, 0.1, 0.1, shape=b, colour=colour))
    return Request(phrases if rng.random() < 0.8 else phrases[:1])


def _draw_texture(rng: random.Random) -> Request:
    a, b = rng.sample(TEXTURES, 2)
    phrases = (_phrase(rng, 0, 0.1, texture=a), _phrase(rng, 0, 0.1, texture=b))
    return Request(phrases if rng.random() < 0.7 else phrases[:1])


def _draw_spatial(rng: random.Random) -> Request:
    return Request((_phrase(rng, 0.12, 0.1), _phrase(rng, 0.12, 0.1)), rng.choice(RELATIONS))


def _draw_numeracy(rng: random.Random) -> Request:
    form = rng.randrange(3)
    if form == 2:
        return Request((_phrase(rng, 0.15, 0.1, count=2), _phrase(rng, 0.15, 0.1)))
    return Request((_phrase(rng, 0.15, 0.1, count=form + 2),))


def _draw_complex(rng: random.Random) -> Request:
    phrases = tuple(_phrase(rng, 0.45, 0.3) for _ in range(rng.choice((2, 3, 3))))
    if len(phrases) == 2 or rng.random() < 0.4:
        return Request(phrases, rng.choice(RELATIONS))
    return Request(phrases)


_DRAW: dict[str, Callable[[random.Random], Request]] = {
    "colour": _draw_colour,
    "shape": _draw_shape,
    "texture": _draw_texture,
    "spatial": _draw_spatial,
    "numeracy": _draw_numeracy,
    "complex": _draw_complex,
}


def _unambiguous(request: Request) -> bool:
    """Whether no thing fits two phrases: they differ in colour, in shape, or in a texture that both name."""
    for i, a in enumerate(request.phrases):
        for b in request.phrases[:i]:
            alike = (a.colour, a.shape) == (b.colour, b.shape)
            if alike and (a.texture is None or b.texture is None or a.texture == b.texture):
                return False
    return True


def _place(radii: list[int], wanted: str | None, rng: random.Random) -> list[tuple[int, int]] | None:
    """Centres of things inside the image and apart, the first two in the wanted relation; None if they do not fit."""
    for _ in range(60):
        places: list[tuple[int, int]] = []
        for r in radii:
            for _ in range(12):
                x, y = (rng.randint(r + 1, SIZE - r - 2) for _ in range(2))
                if all(max(abs(x - u), abs(y - v)) >= r + s + GAP for (u, v), s in zip(places, radii, strict=False)):
                    places.append((x, y))
                    break
            else:
                break
        if len(places) < len(radii):
            continue
        if wanted:
            dx, dy = places[0][0] - places[1][0], places[0][1] - places[1][1]
            long, short = max(abs(dx), abs(dy)), min(abs(dx), abs(dy))
            if long < DOMINANCE * short:
                continue
            if relation(dx, dy) == INVERSE[wanted] and radii[0] == radii[1]:
                places[0], places[1] = places[1], places[0]
            elif relation(dx, dy) != wanted:
                continue
        return places
    return None


def _perturb(request: Request, kind: str, rng: random.Random) -> Request | None:
    phrases = list(request.phrases)
    i = rng.randrange(len(phrases))
    p = phrases[i]
    match kind:
        case "colour":
            phrases[i] = replace(p, colour=rng.choice([c for c in _COLOURS if c != p.colour]))
        case "shape":
            phrases[i] = replace(p, shape=rng.choice([s for s in SHAPES if s != p.shape]))
        case "texture":
            phrases[i] = replace(p, texture=rng.choice([t for t in TEXTURES if t != (p.texture or "solid")]))
        case "size":
            if p.size is None:
                return None
            phrases[i] = replace(p, size="large" if p.size == "small" else "small")
        case "relation":
            if request.relation is None:
                return None
            return replace(request, relation=rng.choice([r for r in RELATIONS if r != request.relation]))
        case "count":
            if request.relation and i < 2:
                return None
            phrases[i] = replace(p, count=rng.choice([n for n in (1, 2, 3) if n != p.count]))
        case "swap":  # one attribute changes places between two phrases
            if len(phrases) < 2:
                return None
            j = rng.choice([j for j in range(len(phrases)) if j != i])
            names = rng.choice((("colour",), ("shape",), ("texture",), ("texture", "size")))
            a, b = phrases[i], phrases[j]
            phrases[i] = replace(a, **{n: getattr(b, n) for n in names})
            phrases[j] = replace(b, **{n: getattr(a, n) for n in names})
        case "drop":
            if len(phrases) < 2:
                return None
            del phrases[i]
            if i < 2 and request.relation:
                return Request(tuple(phrases))
        case "add":
            phrases.append(_phrase(rng, 0.2, 0.1))
        case _:
            raise ValueError(f"unknown kind {kind!r}; known: {', '.join(NEGATIVES)}")
    return Request(tuple(phrases), request.relation)
