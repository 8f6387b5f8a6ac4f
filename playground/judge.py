"""The judge: reads an image back into things, from pixels alone and with no network, and holds them to a prompt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from refcore.contracts.judge import Judge, Verdict
from refcore.errors import ParseError
from refcore.images import Levels
from refcore_playground.facts import check
from refcore_playground.grammar import GrammarError, Request, parse
from refcore_playground.match import Fit, fit_shapes
from refcore_playground.segment import SPECK, Array, Mask, Percept, coverage_of, parts, perceive, regions, splits
from refcore_playground.surface import UNCLEAR, Surface, paint, read_surface
from refcore_playground.world import MAX_THINGS, SIZE, Thing

CLEAR_OVERLAP = 0.8
"""Soft intersection over union from which a region has a shape. Noisy renders reach 0.93, wobbly drawings 0.85."""
CLEAR_LEAD = 0.015
"""Lead in overlap over the next shape; less is a shape between two."""
DENT_AT_MOST = 0.4
"""Average error of coverage at the worst place of an outline; a quarter cut off a shape leaves 0.4 to 0.9."""
HIDDEN_AT_MOST = 0.25
"""Of a shape, behind another thing or outside the image."""
ACCEPTED_RADIUS = (5.5, 22.0)
"""Pixels; the world's own are 8 to 15. A smaller thing is a blob to the eye, a larger one is hardly drawn."""
REACH = 2
"""Pixels around a thing that count as its blurred or wobbly edge."""
STRIKING = 0.085
"""OKLab distance to the ground, on average over the stronger half of a smudge, from which a person says that something
is there: nearly half of what yellow, the palest colour, has. Below it lie the ghosts that a person overlooks."""
STRIKING_MASS = 1.6
"""Sum of a smudge's OKLab distances from which it is large enough to be something: 7 pixels of pink, 3 of blue."""
CORE = 0.8
FRINGE = 0.1
"""Coverage by the fitted shape from which a pixel shows the thing's own surface, and from which it shows any of it."""
FLOAT_BOUND = 2.0
"""Float pixels may overshoot [0, 1], as decoders' do, but beyond this they must be in another unit."""
MOST_THINGS = 8
"""No more regions are looked at: no prompt asks for so many, and the facts try every assignment."""


@dataclass(frozen=True)
class Finding:
    """A thing that was found, and how sure the judge may be of it. Attributes of `thing` may be UNCLEAR."""

    thing: Thing
    overlap: float
    """Soft intersection over union of region and shape, 0..1."""
    surface: Surface
    claim: Mask = field(repr=False, compare=False)
    """[SIZE, SIZE]: the pixels that it accounts for, its soft edge included."""

    @property
    def clear(self) -> bool:
        """Whether it has a shape and one colour."""
        return UNCLEAR not in (self.thing.shape, self.thing.colour)


@dataclass(frozen=True)
class Recognition:
    """What is in an image."""

    findings: tuple[Finding, ...]
    """What is clearly there but no thing of this world counts too, with UNCLEAR attributes."""
    rubbish: float
    """Share of the image, 0..1, that is visible but belongs to no clear thing."""

    @property
    def things(self) -> tuple[Thing, ...]:
        return tuple(f.thing for f in self.findings)

    @property
    def confidence(self) -> float:
        """Overlap of the least certain thing, 0..1; 1 for an empty image."""
        return min((f.overlap for f in self.findings), default=1.0)


@dataclass(frozen=True)
class SceneVerdict(Verdict):
    """A verdict with the things that were found."""

    things: tuple[Thing, ...] = ()


class PlaygroundJudge(Judge):
    """Reads pictures of the playground's world from their pixels, without any network."""

    name = "playground"

    def reads(self, prompt: str) -> bool:
        """Whether the prompt belongs to the playground's grammar."""
        try:
            parse(prompt)
        except GrammarError:
            return False
        return True

    def judge(self, levels: Levels, prompt: str) -> SceneVerdict:
        """See `Judge.judge` and the function `judge`."""
        try:
            return judge(levels, prompt)
        except GrammarError as error:
            raise ParseError(f"the judge cannot read this prompt: {error}") from error


def judge(image: ArrayLike, prompt: str | Request) -> SceneVerdict:
    """Whether `image` (as for `read`) shows every fact of `prompt` and nothing else.

    Raises:
        GrammarError: the prompt is outside the playground's grammar.
        ValueError: `image` is no RGB image.
    """
    request = parse(prompt) if isinstance(prompt, str) else prompt
    things = read(image).things
    facts = check(request, things)
    return SceneVerdict(all(fact.ok for fact in facts), facts, things)


def read(image: ArrayLike) -> Recognition:
    """The things in an image [H, W, 3], float in [0, 1] or uint8, sRGB; other sizes than 64 x 64 are resized by area.

    Raises:
        ValueError: `image` is no RGB image, holds NaN, or is in another range.
    """
    percept = perceive(_standardise(image))
    found = regions(percept)[:MOST_THINGS]
    findings: list[Finding] = []
    for region in found:
        hidden = _around((other for other in found if other is not region), REACH)
        crowd = len(found) > MAX_THINGS  # too many things anyway: no need to look for more
        findings += [_look(percept, region, hidden)] if crowd else _explain(percept, region, hidden)
    for region in _unclaimed(percept, findings)[: max(0, MOST_THINGS - len(findings))]:
        findings.append(_look(percept, region, _union(f.claim for f in findings)))
    rubbish = percept.seen & ~_union(f.claim for f in findings if f.clear)
    return Recognition(tuple(findings), float(rubbish.mean()))


def _explain(percept: Percept, region: Mask, hidden: Mask) -> list[Finding]:
    """A region as one thing if it is one, else as the several that it can be parted into, else as something unclear."""
    whole = _look(percept, region, hidden)
    if whole.clear:
        return [whole]
    for pieces in splits(region, percept.hue):
        if len(pieces) > MAX_THINGS:
            continue
        findings = [
            _look(percept, piece, hidden | _around(other for other in pieces if other is not piece)) for piece in pieces
        ]
        if all(f.clear for f in findings):
            return findings
    return [whole]


def _look(percept: Percept, region: Mask, hidden: Mask) -> Finding:
    """A region as one thing."""
    colour = paint(percept, region)
    fits = fit_shapes(coverage_of(percept, colour), region, hidden)
    best = fits[0]
    clear = _is_clear(fits)
    claim = _around([best.coverage > FRINGE if clear else region], REACH)
    core = region & (best.coverage > CORE)
    surface = read_surface(percept, colour, core if core.sum() >= SPECK else region, claim & ~hidden)
    shape = best.shape if clear else UNCLEAR
    x, y, radius = round(best.x), round(best.y), round(best.radius)
    return Finding(Thing(surface.colour, shape, surface.texture, radius, x, y), best.overlap, surface, claim)


def _is_clear(fits: Sequence[Fit]) -> bool:
    best, second = fits[:2]
    return (
        best.overlap > CLEAR_OVERLAP
        and best.overlap - second.overlap > CLEAR_LEAD
        and best.dent < DENT_AT_MOST
        and best.hidden < HIDDEN_AT_MOST
        and ACCEPTED_RADIUS[0] < best.radius < ACCEPTED_RADIUS[1]
    )


def _unclaimed(percept: Percept, findings: Sequence[Finding]) -> list[Mask]:
    """Regions that a person sees beside the findings, faint ghosts left out."""
    rest = percept.seen & ~_union(f.claim for f in findings)
    return [part for part in parts(rest, least=4) if _is_striking(percept.visibility[part])]


def _is_striking(visibility: Array) -> bool:
    stronger = np.sort(visibility)[len(visibility) // 2 :]
    return bool(stronger.mean() > STRIKING and visibility.sum() > STRIKING_MASS)


def _around(masks: Iterable[Mask], reach: int = 1) -> Mask:
    """The masks together and `reach` pixels more."""
    grown: Mask = ndimage.binary_dilation(_union(masks), iterations=reach)
    return grown


def _union(masks: Iterable[Mask]) -> Mask:
    union: Mask = np.logical_or.reduce([np.zeros((SIZE, SIZE), bool), *masks])
    return union


def _standardise(image: ArrayLike) -> Array:
    """[SIZE, SIZE, 3], float in [0, 1]."""
    pixels = np.asarray(image)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ValueError(f"the judge reads RGB images [H, W, 3]; got an array of shape {list(pixels.shape)}")
    if pixels.dtype == np.uint8:
        pixels = pixels.astype(np.float32) / 255
    elif not np.issubdtype(pixels.dtype, np.floating):
        raise ValueError(f"the judge reads float images in [0, 1] or uint8; got {pixels.dtype}")
    elif not np.isfinite(pixels).all():
        raise ValueError("the judge reads finite pixels; the image holds NaN or infinity")
    elif abs(pixels).max() > FLOAT_BOUND:
        raise ValueError(f"the judge reads float images in [0, 1]; got {pixels.min():g}..{pixels.max():g}")
    height, width = pixels.shape[:2]
    if (height, width) != (SIZE, SIZE):
        pixels = np.einsum("ih,hwc,jw->ijc", _area(height), pixels, _area(width), optimize=True)
    standard: Array = np.clip(pixels, 0, 1).astype(np.float32)
    return standard


def _area(length: int) -> NDArray[np.float64]:
    """Weights [SIZE, length] that average `length` pixels over SIZE equal intervals."""
    edges = np.linspace(0, length, SIZE + 1)
    at = np.arange(length)
    overlap = np.minimum(edges[1:, None], at + 1) - np.maximum(edges[:-1, None], at)
    weights: NDArray[np.float64] = np.clip(overlap, 0, None) * SIZE / length
    return weights
