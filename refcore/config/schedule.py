"""Schedules: numbers that change over a run, as constants, ramps, cosines, warm-ups, bumps and pieces.

A field of a config, a plugin's own included, that may change over a run has the type `Schedule`, with bounds as for a
number: `Field(30.0, ge=0, le=180)`. A schedule is within them if it is so at every step of a run of any length.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias, TypeVar, get_args

from pydantic import ConfigDict, Discriminator, Field, GetCoreSchemaHandler, Tag, ValidationInfo, model_validator
from pydantic_core import CoreSchema

from refcore.config.section import Section

LARGEST = 1e30
"""Largest number of a schedule, by magnitude: float32 ends at 3e38, and numbers are multiplied with others."""
Number = Annotated[float, Field(allow_inf_nan=False, ge=-LARGEST, le=LARGEST)]
SAMPLES = 10_000
"""Steps at which a sum or product of schedules is looked at for its extremes."""


class _Kind(Section):
    def at(self, step: int, steps: int) -> float:
        """The value at `step`, counted from 0, of a run of `steps`."""
        raise NotImplementedError

    def scaled(self, factor: float) -> Self:
        """The schedule with every value multiplied by `factor`."""
        raise NotImplementedError

    def span(self) -> tuple[float, float]:
        """(lowest, highest): no value lies beyond them, whatever the number of steps."""
        raise NotImplementedError

    # The comparisons of a field's bounds, as pydantic makes them: with a number, of all values.
    def __ge__(self, bound: float) -> bool:
        return self.span()[0] >= bound

    def __gt__(self, bound: float) -> bool:
        return self.span()[0] > bound

    def __le__(self, bound: float) -> bool:
        return self.span()[1] <= bound

    def __lt__(self, bound: float) -> bool:
        return self.span()[1] < bound


class _Ramp(_Kind):
    start: Number = Field(description="Value up to step `first`.")
    end: Number = Field(description="Value from step `last` on.")
    first: int = Field(0, ge=0, description="Step at which the ramp begins.")
    last: int | None = Field(
        None, ge=1, description="Step at which it reaches `end`; null: the run's number of steps, one past its last."
    )

    def _progress(self, step: int, steps: int) -> float:
        """From 0 at `first` to 1 at `last`."""
        last = steps if self.last is None else self.last
        if last <= self.first:
            return float(step >= self.first)
        return min(1.0, max(0.0, (step - self.first) / (last - self.first)))

    def scaled(self, factor: float) -> Self:
        return self.model_copy(update={"start": self.start * factor, "end": self.end * factor})

    def span(self) -> tuple[float, float]:
        return min(self.start, self.end), max(self.start, self.end)


class Linear(_Ramp):
    """A straight line from `start` to `end`."""

    kind: Literal["linear"] = Field("linear", description="A straight line from `start` to `end`.")

    def at(self, step: int, steps: int) -> float:
        return self.start + (self.end - self.start) * self._progress(step, steps)


class Cosine(_Ramp):
    """Half a cosine from `start` to `end`: slow at both ends."""

    kind: Literal["cosine"] = Field("cosine", description="Half a cosine from `start` to `end`: slow at both ends.")

    def at(self, step: int, steps: int) -> float:
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * self._progress(step, steps))) / 2


class WarmupCosine(_Kind):
    """`peak * (t + 1) / warmup` for t < warmup, then half a cosine from `peak` to `end`: the paper's eta_t."""

    kind: Literal["warmup_cosine"] = Field(
        "warmup_cosine", description="A linear warm-up to `peak`, then half a cosine to `end`."
    )
    peak: Number = Field(description="Value at step `warmup`.")
    end: Number = Field(description="Value from step `last` on.")
    warmup: int = Field(ge=0, description="Number of warm-up steps; step t has peak * (t + 1) / warmup.")
    last: int | None = Field(
        None, ge=1, description="Step at which it reaches `end`; null: the run's number of steps, one past its last."
    )

    def at(self, step: int, steps: int) -> float:
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        return Cosine(start=self.peak, end=self.end, first=self.warmup, last=self.last).at(step, steps)

    def scaled(self, factor: float) -> Self:
        return self.model_copy(update={"peak": self.peak * factor, "end": self.end * factor})

    def span(self) -> tuple[float, float]:
        numbers = (self.peak, self.end, *([self.peak / self.warmup] if self.warmup else []))
        return min(numbers), max(numbers)


class Gaussian(_Kind):
    """`peak * exp(-((t / T - centre) / width) ** 2 / 2)` at step t of T: a bump that comes and goes.

    With the same `peak` and `width` on every layer of a network and centres from 0 to 1, it is a bump over the layers
    that moves from the first to the last: the frequency schedule of CLIP^-1 (arXiv 2505.23161).
    """

    kind: Literal["gaussian"] = Field("gaussian", description="A bell curve around `centre`.")
    peak: Number = Field(description="Value at `centre`.")
    centre: float = Field(ge=-10, le=10, description="Fraction of the run at its middle; may lie outside 0 .. 1.")
    width: float = Field(gt=0.001, le=100, description="Standard deviation, as a fraction of the run.")

    def at(self, step: int, steps: int) -> float:
        return self._at(step / steps)

    def _at(self, progress: float) -> float:
        """The value at a fraction of the run."""
        return self.peak * math.exp(-(((progress - self.centre) / self.width) ** 2) / 2)

    def scaled(self, factor: float) -> Self:
        return self.model_copy(update={"peak": self.peak * factor})

    def span(self) -> tuple[float, float]:
        reached = [self._at(progress) for progress in (0.0, 1.0, min(1.0, max(0.0, self.centre)))]
        return min(reached), max(reached)


class Piece(Section):
    """One piece of a piecewise schedule."""

    until: int | None = Field(None, ge=1, description="First step after this piece; null for the last piece.")
    value: Schedule = Field(description="A number or a schedule, with steps counted from the start of the run.")


class Piecewise(_Kind):
    """One schedule after another."""

    kind: Literal["piecewise"] = Field("piecewise", description="One schedule after another.")
    pieces: list[Piece] = Field(min_length=1, description="Pieces in order of `until`; the last one holds to the end.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        ends = [piece.until for piece in self.pieces]
        inner = [end for end in ends[:-1] if end is not None]
        if len(inner) < len(ends) - 1 or inner != sorted(set(inner)) or ends[-1] is not None:
            raise ValueError(f"`until` is {ends}; expected increasing steps, and null in the last piece only")
        return self

    def at(self, step: int, steps: int) -> float:
        piece = next(p for p in self.pieces if p.until is None or step < p.until)
        return value_at(piece.value, step, steps)

    def scaled(self, factor: float) -> Self:
        pieces = [p.model_copy(update={"value": scaled(p.value, factor)}) for p in self.pieces]
        return self.model_copy(update={"pieces": pieces})

    def span(self) -> tuple[float, float]:
        lows, highs = zip(*(span(piece.value) for piece in self.pieces), strict=True)
        return min(lows), max(highs)


class Hypot(_Kind):
    """The root of the sum of squares, by which standard deviations of independent noises add."""

    kind: Literal["hypot"] = Field(
        "hypot", description="The root of the sum of squares, by which standard deviations of independent noises add."
    )
    of: list[Schedule] = Field(min_length=2, description="Numbers or schedules.")

    def at(self, step: int, steps: int) -> float:
        return math.hypot(*(value_at(part, step, steps) for part in self.of))

    def scaled(self, factor: float) -> Self:
        return self.model_copy(update={"of": [scaled(part, factor) for part in self.of]})

    def span(self) -> tuple[float, float]:
        parts = [span(part) for part in self.of]
        lows = [0.0 if low <= 0 <= high else min(abs(low), abs(high)) for low, high in parts]
        return math.hypot(*lows), math.hypot(*(max(abs(low), abs(high)) for low, high in parts))


class Product(_Kind):
    """The product of schedules at each step."""

    kind: Literal["product"] = Field("product", description="The product of schedules at each step.")
    of: list[Schedule] = Field(min_length=2, description="Numbers or schedules.")

    def at(self, step: int, steps: int) -> float:
        return math.prod(value_at(part, step, steps) for part in self.of)

    def scaled(self, factor: float) -> Self:
        return self.model_copy(update={"of": [scaled(self.of[0], factor), *self.of[1:]]})

    def span(self) -> tuple[float, float]:
        """What the factors could give at once, which may be wider than what they give at the same step."""
        low, high = span(self.of[0])
        for part in self.of[1:]:
            ends = [a * b for a in (low, high) for b in span(part)]
            low, high = min(ends), max(ends)
        return low, high


KINDS: dict[str, type[_Kind]] = {
    "linear": Linear,
    "cosine": Cosine,
    "warmup_cosine": WarmupCosine,
    "gaussian": Gaussian,
    "piecewise": Piecewise,
    "hypot": Hypot,
    "product": Product,
}


def _tag(value: Any) -> str:
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    if isinstance(value, dict):
        return kind if isinstance(kind, str) and kind in KINDS else "kind"
    return kind or "number"


class _Unknown(_Kind):
    """Stands for a mapping without a known kind, so that the error is about `kind`."""

    model_config = ConfigDict(extra="ignore")

    kind: Literal["linear", "cosine", "warmup_cosine", "gaussian", "piecewise", "hypot", "product"]


_Kinds = (
    Annotated[Linear, Tag("linear")]
    | Annotated[Cosine, Tag("cosine")]
    | Annotated[WarmupCosine, Tag("warmup_cosine")]
    | Annotated[Gaussian, Tag("gaussian")]
    | Annotated[Piecewise, Tag("piecewise")]
    | Annotated[Hypot, Tag("hypot")]
    | Annotated[Product, Tag("product")]
    | Annotated[_Unknown, Tag("kind")]
)

if TYPE_CHECKING:
    Schedule: TypeAlias = float | Linear | Cosine | WarmupCosine | Gaussian | Piecewise | Hypot | Product
    WholeSchedule: TypeAlias = int | Linear | Cosine | WarmupCosine | Gaussian | Piecewise | Hypot | Product
else:
    # Classes, so that the bounds of a field are applied to the whole and not to the members of a union.

    class Schedule:
        """A number, or a mapping with a `kind`. Steps are counted from 0."""

        __value__ = Annotated[Annotated[Number, Tag("number")] | _Kinds, Discriminator(_tag)]
        number = "number"

        @classmethod
        def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
            return handler.generate_schema(cls.__value__)

    class WholeSchedule(Schedule):
        """A whole number, or a mapping with a `kind` whose values are rounded (`Moment.whole`)."""

        __value__ = Annotated[Annotated[int, Tag("number")] | _Kinds, Discriminator(_tag)]
        number = "integer"


for _model in (Piece, Piecewise, Hypot, Product):
    _model.model_rebuild()


def value_at(schedule: Any, step: int, steps: int) -> float:
    """The value of a `Schedule` at `step`, counted from 0, of a run of `steps`.

    >>> value_at(WarmupCosine(peak=1, end=0.5, warmup=10, last=160), 4, 160)
    0.5
    """
    return schedule.at(step, steps) if isinstance(schedule, _Kind) else float(schedule)


def changed_from(schedule: Any, step: int, value: float) -> float | Piecewise:
    """A `Schedule` that is as before up to a step, and a number from then on.

    >>> changed_from(0.5, 0, 2.0)
    2.0
    >>> later = changed_from(changed_from(Linear(start=0, end=1), 4, 2.0), 6, 3.0)
    >>> [value_at(later, step, 8) for step in (2, 4, 6)]
    [0.25, 2.0, 3.0]
    >>> len(later.pieces)
    3
    """
    if step == 0:
        return value
    pieces = schedule.pieces if isinstance(schedule, Piecewise) else [Piece(until=None, value=schedule)]
    before = [piece for piece in pieces if piece.until is not None and piece.until < step]
    cut = pieces[len(before)].model_copy(update={"until": step})
    return Piecewise(pieces=[*before, cut, Piece(until=None, value=value)])


def number_of(annotation: Any) -> str | None:
    """What a field's type takes besides schedules, "number" or "integer"; None for a type that is no schedule's."""
    is_schedule_type = annotation in (Schedule, WholeSchedule)
    return str(annotation.number) if is_schedule_type else None


def takes_schedule(annotation: Any) -> bool:
    """Whether a field of this type may hold a schedule, alone or within a tuple or list."""
    parts = get_args(annotation)
    return number_of(annotation) is not None or any(takes_schedule(part) for part in parts)


def span(schedule: Any) -> tuple[float, float]:
    """(lowest, highest) of a `Schedule`, in a run of any length; a product's may be wider than its values.

    >>> span(0.5), span(Linear(start=3, end=-1))
    ((0.5, 0.5), (-1.0, 3.0))
    """
    return schedule.span() if isinstance(schedule, _Kind) else (float(schedule), float(schedule))


Pair = TypeVar("Pair", bound=tuple[Any, Any])


def ascending(pair: Pair, info: ValidationInfo) -> Pair:
    """A pair of schedules [low, high], refused where low is above high: at any step of the run, if its number of steps
    is known (`steps` of the validation's context), or at step 0. For pydantic's `AfterValidator`.
    """
    known: int | None = (info.context or {}).get("steps")
    steps = 1 if known is None else known
    moving = known is not None and any(isinstance(schedule, _Kind) for schedule in pair)
    for step in range(0, steps + 1, max(1, steps // SAMPLES)) if moving else [0]:
        low, high = (value_at(schedule, step, steps) for schedule in pair)
        if low > high:
            where = f" at step {step}" if any(isinstance(schedule, _Kind) for schedule in pair) else ""
            raise ValueError(f"[{low:g}, {high:g}]{where}: expected [low, high] with low <= high")
    return pair


def extremes(schedule: Any, steps: int, window: tuple[int, int | None] = (0, None)) -> tuple[float, float]:
    """The lowest and the highest value in `window`: (first step, first step after it or None for the run's end).

    Exact but for sums and products of schedules over more than SAMPLES steps, which are sampled evenly.

    Returns:
        (0, 0) where the window has no step of the run.
    """
    first, end = window
    end = steps if end is None else min(end, steps)
    if first >= end:
        return 0.0, 0.0
    found = [value_at(schedule, step, steps) for step in sorted(_turning(schedule, steps, first, end))]
    return min(found), max(found)


def _turning(schedule: Any, steps: int, first: int, end: int) -> set[int]:
    """Steps of [first, end) among which are those of the lowest and the highest value."""
    if not isinstance(schedule, _Kind):
        return {first}
    if isinstance(schedule, Hypot | Product):
        between = range(first, end, max(1, (end - first) // SAMPLES))
        parts = [_turning(part, steps, first, end) for part in schedule.of]
        return {*between, end - 1}.union(*parts)
    turning = {first, end - 1}
    if isinstance(schedule, Piecewise):
        for piece in schedule.pieces:
            until = end if piece.until is None else min(piece.until, end)
            if first < until:
                turning |= _turning(piece.value, steps, first, until)
            first = max(first, until)
    elif isinstance(schedule, Gaussian):
        middle = schedule.centre * steps
        turning |= {step for step in (math.floor(middle), math.ceil(middle)) if first <= step < end}
    else:  # these rise or fall between their first step, their last and the end of their warm-up
        turns = [getattr(schedule, name, None) for name in ("first", "last", "warmup")]
        turning |= {step for turn in turns if turn is not None for step in (turn - 1, turn) if first <= step < end}
    return turning


def is_schedule(value: Any) -> bool:
    """Whether the value is a schedule object, not a number or a mapping."""
    return isinstance(value, _Kind)


def scaled(schedule: Any, factor: Any) -> Any:
    """`factor` times `schedule`, each a number or a schedule; two numbers give a number."""
    if isinstance(factor, _Kind):
        return Product(of=[factor, schedule]) if isinstance(schedule, _Kind) else factor.scaled(schedule)
    return schedule.scaled(factor) if isinstance(schedule, _Kind) else schedule * factor
