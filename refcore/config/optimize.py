"""How parameters move: the optimiser, the moving average, the best image, and early stops."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from refcore.config.schedule import Cosine, Linear
from refcore.config.section import Section
from refcore.config.views import CLEAN


class Optimizer(Section):
    """How a gradient becomes an update of the canvas's parameters."""

    name: Literal["sgd", "adam", "adamw"] = Field("adam", description="The torch.optim optimiser.")
    lr: float = Field(0.05, gt=0, description="Learning rate, at the height of its schedule.")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="How the learning rate falls after the warm-up, to `final` times lr at the run's end."
    )
    warmup: int = Field(0, ge=0, description="Steps of linear warm-up: step t has lr * (t + 1) / warmup.")
    final: float = Field(0.0, ge=0, description="Learning rate at the end as a fraction of lr (not for constant).")
    momentum: float = Field(0.0, ge=0, lt=1, description="Momentum (sgd).")
    nesterov: bool = Field(False, description="Nesterov momentum (sgd, with momentum).")
    betas: tuple[float, float] = Field((0.9, 0.999), description="Decay rates of the two moments (adam, adamw).")
    eps: float = Field(1e-8, gt=0, description="Added to the root of the second moment (adam, adamw).")
    weight_decay: float = Field(0.0, ge=0, description="Pull of the parameters toward 0.")
    normalize: Literal["none", "sample"] = Field(
        "none", description="sample: each sample's gradient is scaled to norm 1 before the optimiser sees it."
    )
    clip: float | None = Field(
        None,
        gt=0,
        description="Largest norm of a sample's gradient; larger ones are scaled down to it. null: no limit.",
    )

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov is true, but momentum is 0; expected a momentum such as 0.9")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas are {list(self.betas)}; expected two numbers in [0, 1)")
        return self

    def lr_at(self, step: int, steps: int) -> float:
        """The learning rate at a step of a run of `steps`."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        if self.schedule == "constant":
            return self.lr
        ramp = Cosine if self.schedule == "cosine" else Linear
        return ramp(start=self.lr, end=self.lr * self.final, first=self.warmup).at(step, steps)


class Ema(Section):
    """Exponential moving average of the parameters."""

    decay: float = Field(
        0.95, ge=0, lt=1, description="ema <- decay * ema + (1 - decay) * parameters, after each step."
    )
    start: int = Field(0, ge=0, description="First step that is averaged; up to it the average is the parameters.")
    restarts: list[Annotated[int, Field(ge=0)]] = Field(
        default_factory=list, description="Steps (from 0) after which the parameters are set to a copy of the average."
    )
    momentum: Literal["keep", "reset"] = Field(
        "keep", description="What a restart does to the optimiser's momentum and moments."
    )


class Best(Section):
    """How `output: best` finds the best image."""

    every: int = Field(10, ge=1, description="Steps between two looks; the last step is always looked at.")
    views: str = Field(
        CLEAN,
        description="View group that decides, the same views at every look; the image looked at is the average where "
        "there is one.",
    )


class EarlyStop(Section):
    """When a sample is left as it is while the batch goes on."""

    every: int = Field(
        10, ge=1, description="Steps between two looks at the clean image (the average, if there is one)."
    )
    first: int = Field(0, ge=0, description="No sample stops before this step.")
    patience: int | None = Field(
        None,
        ge=1,
        description="Looks without improvement of the weighted loss after which a sample stops; null: never.",
    )
    min_delta: float = Field(0.0, ge=0, description="By how much the loss must fall to count as an improvement.")
