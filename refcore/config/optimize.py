"""Updates of the parameters: the optimiser, the moving average, the best image, and early stopping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from refcore.config.schedule import LARGEST, Cosine, Linear, Schedule, span
from refcore.config.section import Section
from refcore.config.views import CLEAN
from refcore.errors import RefcoreError, unknown
from refcore.moment import Moment

ALL_OTHERS = "*"
"""In `optimizer.lr`, the tensors that it does not name."""
FASTEST = 1e6
"""Largest learning rate, since parameters are float32."""
Rate = Annotated[Schedule, Field(ge=0, le=FASTEST)]


def _by_name(value: object) -> str:
    """Whether `lr` is one rate or a mapping of names; a mapping with a word as its `kind` is a schedule."""
    return "names" if isinstance(value, Mapping) and not isinstance(value.get("kind"), str) else "rate"


class Optimizer(Section):
    """The optimiser of the canvas's parameters."""

    name: Literal["sgd", "adam", "adamw", "lbfgs"] = Field(
        "adam",
        description="Optimiser of torch.optim. lbfgs: L-BFGS with a strong Wolfe line search, sample by sample. It "
        "evaluates each sample several times in a step, in the same views, and needs losses: no prior without a value.",
    )
    lr: Annotated[
        Annotated[Rate, Tag("rate")] | Annotated[dict[str, Rate], Field(min_length=1), Tag("names")],
        Discriminator(_by_name),
    ] = Field(
        0.05,
        description="Peak learning rate, from 0 to 1e6: a number, a schedule, or a mapping of the canvas's tensors to "
        'numbers or schedules, in which "*" stands for all that are not named, and an entry such as "layer0.*" for '
        "those of that beginning. A tensor has the rate of its own name, or else of the first entry that fits. 0 keeps "
        "a tensor as it is.",
    )
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant",
        description="Decay of the learning rate after the warm-up, to `final` * lr at the run's end; it multiplies lr.",
    )
    warmup: int = Field(0, ge=0, description="Number of linear warm-up steps; step t has lr * (t + 1) / warmup.")
    final: float = Field(0.0, ge=0, le=1e6, description="Final learning rate as a fraction of lr (linear, cosine).")
    momentum: float = Field(0.0, ge=0, lt=1, description="Momentum (sgd).")
    nesterov: bool = Field(False, description="Nesterov momentum (sgd, with momentum).")
    betas: tuple[float, float] = Field(
        (0.9, 0.999), description="Decay rates of the first and second moments (adam, adamw)."
    )
    eps: float = Field(1e-8, gt=0, le=1e6, description="Added to the root of the second moment (adam, adamw).")
    weight_decay: float = Field(
        0.0, ge=0, le=1e6, description="Weight decay of the parameters toward 0 (sgd, adam, adamw)."
    )
    max_iter: int = Field(10, ge=1, le=1000, description="Most iterations in a step, each with a line search (lbfgs).")
    history: int = Field(3, ge=1, le=1000, description="Updates that the curvature is estimated from (lbfgs).")

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov is true, but momentum is 0; expected a momentum such as 0.9")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas are {list(self.betas)}; expected two numbers in [0, 1)")
        if self.name == "lbfgs":
            for field in ("momentum", "weight_decay"):
                if value := getattr(self, field):
                    raise ValueError(f"{field} is {value:g}, which lbfgs does not have; expected 0, or another name")
            if isinstance(self.lr, dict):
                raise ValueError(
                    f"lr names {', '.join(self.lr)}, but lbfgs moves all tensors along one direction; expected one "
                    "rate, such as 1.0"
                )
        if not isinstance(self.lr, dict) and not any(span(self.lr)):
            raise ValueError("lr is 0, so that nothing moves; expected a number above 0, such as 0.05")
        return self

    @property
    def rates(self) -> dict[str, Schedule]:
        """Entry of `lr` -> its peak rate: a tensor's name, a beginning with "*", or "*" for the others."""
        return self.lr if isinstance(self.lr, dict) else {ALL_OTHERS: self.lr}

    def tensors_of(self, names: Sequence[str]) -> dict[str, list[str]]:
        """Entry of `lr` -> the tensors that move at its rate, in the order of `names`; none has two entries.

        Raises:
            RefcoreError: an entry is no tensor of the canvas, or a tensor has no entry.
        """
        entry_of = {name: entry for name in names if (entry := self._entry_of(name)) is not None}
        for entry in self.rates:
            if entry != ALL_OTHERS and not any(fnmatchcase(name, entry) for name in names):
                raise unknown("tensor of the canvas", entry, [*names, ALL_OTHERS], "optimizer.lr")
        if left := [name for name in names if name not in entry_of]:
            raise RefcoreError(
                f'optimizer.lr says nothing of the tensor "{left[0]}" of the canvas; name it, or add '
                f'"{ALL_OTHERS}" for all others'
            )
        return {entry: [name for name in names if entry_of[name] == entry] for entry in self.rates}

    def _entry_of(self, name: str) -> str | None:
        """The entry of `lr` whose rate a tensor has; None without one."""
        if name in self.rates:
            return name
        fitting = [entry for entry in self.rates if entry != ALL_OTHERS and fnmatchcase(name, entry)]
        return next(iter(fitting), ALL_OTHERS if ALL_OTHERS in self.rates else None)

    def lr_at(self, at: Moment) -> float | dict[str, float]:
        """The learning rate at a step; by the entries of `lr` where it is a mapping."""
        if isinstance(self.lr, dict):
            return {entry: self._rate(at.of(peak), at) for entry, peak in self.lr.items()}
        return self._rate(at.of(self.lr), at)

    def _rate(self, peak: float, at: Moment) -> float:
        """A peak rate after warm-up and decay."""
        if at.step < self.warmup:
            return peak * (at.step + 1) / self.warmup
        if self.schedule == "constant":
            return peak
        ramp = Cosine if self.schedule == "cosine" else Linear
        return at.of(ramp(start=peak, end=peak * self.final, first=self.warmup))


class Ema(Section):
    """Exponential moving average of the parameters."""

    decay: float = Field(
        0.95, ge=0, lt=1, description="ema <- decay * ema + (1 - decay) * parameters, after each step."
    )
    start: int = Field(
        0,
        ge=0,
        description="First step, counted from 0, that is averaged. Until then the average equals the parameters. "
        "0: the average starts from the initial parameters; 1: from those after the first step.",
    )
    restarts: list[Annotated[int, Field(ge=0)]] = Field(
        default_factory=list, description="Steps, counted from 0, after which the parameters are set to the average."
    )
    momentum: Literal["keep", "reset"] = Field(
        "keep", description="Whether a restart keeps or resets the optimiser's momentum and moments."
    )


class Best(Section):
    """The search for the best image of a run, for `output: best`."""

    every: int = Field(
        10, ge=1, description="Steps between two checks; the start and the last step are always checked."
    )
    views: str = Field(
        CLEAN,
        description="View group that decides, with the same views at every check. The image is that of the moving "
        "average, if there is one.",
    )


class EarlyStop(Section):
    """Early stopping of single samples while the rest of the batch continues."""

    every: int = Field(
        10, ge=1, description="Steps between two checks on the clean image (of the moving average, if there is one)."
    )
    first: int = Field(0, ge=0, description="First step at which a sample may stop.")
    patience: int | None = Field(
        None,
        ge=1,
        description="Checks in a row without improvement of the weighted loss after which a sample stops; null: never.",
    )
    min_delta: float = Field(0.0, ge=0, le=LARGEST, description="Decrease of the loss that counts as an improvement.")
