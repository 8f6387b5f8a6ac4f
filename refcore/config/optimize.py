"""Updates of the parameters: the optimiser, the moving average, the best image, and early stopping."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from refcore.config.schedule import LARGEST, Cosine, Linear
from refcore.config.section import Section
from refcore.config.views import CLEAN


class Optimizer(Section):
    """The optimiser of the canvas's parameters."""

    name: Literal["sgd", "adam", "adamw"] = Field("adam", description="Optimiser of torch.optim.")
    lr: float = Field(0.05, gt=0, le=1e6, description="Peak learning rate; at most 1e6, since parameters are float32.")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="Decay of the learning rate after the warm-up, to `final` * lr at the run's end."
    )
    warmup: int = Field(0, ge=0, description="Number of linear warm-up steps; step t has lr * (t + 1) / warmup.")
    final: float = Field(0.0, ge=0, le=1e6, description="Final learning rate as a fraction of lr (linear, cosine).")
    momentum: float = Field(0.0, ge=0, lt=1, description="Momentum (sgd).")
    nesterov: bool = Field(False, description="Nesterov momentum (sgd, with momentum).")
    betas: tuple[float, float] = Field(
        (0.9, 0.999), description="Decay rates of the first and second moments (adam, adamw)."
    )
    eps: float = Field(1e-8, gt=0, le=1e6, description="Added to the root of the second moment (adam, adamw).")
    weight_decay: float = Field(0.0, ge=0, le=1e6, description="Weight decay of the parameters toward 0.")
    normalize: Literal["none", "sample"] = Field(
        "none", description="sample: scale each sample's gradient to norm 1 before the update. none: leave it as it is."
    )
    clip: float | None = Field(
        None,
        gt=0,
        le=LARGEST,
        description="Maximum gradient norm of a sample; larger gradients are scaled down to it. null: no limit.",
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

    every: int = Field(10, ge=1, description="Steps between two checks; the last step is always checked.")
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
