"""The judge: recognises the things in an image from its pixels, without a network, and checks them against a prompt."""

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
"""Share of a shape behind another thing or outside the image."""
ACCEPTED_RADIUS = (5.5, 22.0)
"""Pixels; the world's own are 8 to 15. A smaller thing is a blob to the eye, a larger one is hardly drawn."""
REACH = 2
"""Pixels around a thing that count as its blurred or wobbly edge."""
STRIKING = 0.085
"""Mean OKLab distance to the ground, over the stronger half of a smudge, from which a person sees something there:
nearly half of yellow's, the palest colour. A person overlooks fainter ghosts."""
STRIKING_MASS = 1.6
"""Sum of a smudge's OKLab distances from which it counts as something: 7 pixels of pink, 3 of blue."""
CORE = 0.8
FRINGE = 0.1
"""Coverage by the fitted shape from which a pixel shows only the thing's surface, and from which it shows any of it."""
FLOAT_BOUND = 2.0
"""Float pixels may overshoot [0, 1], as those of decoders do; beyond this bound they must be in another unit."""
MOST_THINGS = 8
"""Maximum number of regions: no prompt asks for so many, and the facts try every assignment."""


@dataclass(frozen=True)
class Finding:
    """A thing found in the image, and the evidence for it. Attributes of `thing` may be UNCLEAR."""

    thing: Thing
    overlap: float
    """Soft intersection over union of region and shape, 0..1."""
    surface: Surface
    claim: Mask = field(repr=False, compare=False)
    """[SIZE, SIZE]: the pixels it explains, its soft edge included."""

    @property
    def clear(self) -> bool:
        """Whether its shape and colour are clear."""
        return UNCLEAR not in (self.thing.shape, self.thing.colour)


@dataclass(frozen=True)
class Recognition:
    """The things found in an image."""

    findings: tuple[Finding, ...]
    """Visible regions that are not a thing of this world are findings, too, with UNCLEAR attributes."""
    rubbish: float
    """Share of the image, 0..1, that is visible but belongs to no clear thing."""

    @property
    def things(self) -> tuple[Thing, ...]:
        return tuple(f.thing for f in self.findings)

    @property
    def confidence(self) -> float:
        """Smallest overlap of a thing, 0..1; 1 for an empty image."""
        return min((f.overlap for f in self.findings), default=1.0)


@dataclass(frozen=True)
class SceneVerdict(Verdict):
    """A verdict with the things that were found."""

    things: tuple[Thing, ...] = ()


class PlaygroundJudge(Judge):
    """Judges pictures of the playground's world from their pixels, without any network."""

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
            raise ParseError(f"the judge cannot read the prompt {error}") from error


def judge(image: ArrayLike, prompt: str | Request) -> SceneVerdict:
    """Whether `image` (as for `read`) shows every fact of `prompt` and nothing else.

    Raises:
        GrammarError: the prompt is outside the playground's grammar.
        ValueError: `image` is not an RGB image.
    """
    request = parse(prompt) if isinstance(prompt, str) else prompt
    things = read(image).things
    facts = check(request, things)
    return SceneVerdict(all(fact.ok for fact in facts), facts, things)


def read(image: ArrayLike) -> Recognition:
    """The things in an image [H, W, 3], float in [0, 1] or uint8, sRGB; sizes other than 64 x 64 are resized by area.

    Raises:
        ValueError: `image` is not an RGB image, has NaN or infinite pixels, or is in another range.
    """
    percept = perceive(_standardise(image))
    found = regions(percept)[:MOST_THINGS]
    findings: list[Finding] = []
    for region in found:
        hidden = _around((other for other in found if other is not region), REACH)
        crowd = len(found) > MAX_THINGS  # too many things already: no need to split any
        findings += [_look(percept, region, hidden)] if crowd else _explain(percept, region, hidden)
    for region in _unclaimed(percept, findings)[: max(0, MOST_THINGS - len(findings))]:
        findings.append(_look(percept, region, _union(f.claim for f in findings)))
    rubbish = percept.seen & ~_union(f.claim for f in findings if f.clear)
    return Recognition(tuple(findings), float(rubbish.mean()))


def _explain(percept: Percept, region: Mask, hidden: Mask) -> list[Finding]:
    """A region as one thing if clear, otherwise split into several clear things, otherwise as one unclear thing."""
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
    """Visible regions outside the findings, without faint ghosts."""
    rest = percept.seen & ~_union(f.claim for f in findings)
    return [part for part in parts(rest, least=4) if _is_striking(percept.visibility[part])]


def _is_striking(visibility: Array) -> bool:
    stronger = np.sort(visibility)[len(visibility) // 2 :]
    return bool(stronger.mean() > STRIKING and visibility.sum() > STRIKING_MASS)


def _around(masks: Iterable[Mask], reach: int = 1) -> Mask:
    """The union of the masks, grown by `reach` pixels."""
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
