"""Where a run starts: a sample of a prior's model, and how many candidates each sample has."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from refcore.config.section import Section
from refcore.config.views import CLEAN


class Candidates(Section):
    """Several independent tries at every sample, of which the referees keep the best: successive halving.

    Jamieson and Talwalkar, "Non-stochastic Best Arm Identification" (AISTATS 2016), with the referees' consensus as
    the judge: see `refcore.engine.candidates`.
    """

    count: int = Field(
        1, ge=1, description="Candidates that every sample starts with, each with its own draws; 1 for none."
    )
    keep: list[tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=1)]]] = Field(
        default_factory=list,
        description="[step, n] pairs: after so many steps (0: before the first, by a look at `views`) the n best "
        "candidates of each sample go on, the others are dropped with their memory. What is left at the run's end, "
        "before later pairs, is narrowed to the best one.",
    )
    recent: int = Field(
        10,
        ge=0,
        description="Steps over which the losses that are compared are averaged (a moving average); 0: one look at "
        "`views` of the averaged image instead.",
    )
    views: str = Field(CLEAN, description="View group of that look, the same views for every candidate of a sample.")
    by: Literal["consensus", "loss"] = Field(
        "consensus",
        description="consensus: each referee counts the same, in its own standard deviations; loss: the weighted sum "
        "of the losses, which is better where they are log-probabilities and say by themselves how sure they are.",
    )

    @model_validator(mode="after")
    def _falling(self) -> Self:
        steps, counts = [step for step, _ in self.keep], [n for _, n in self.keep]
        if steps != sorted(set(steps)) or [self.count, *counts] != sorted({self.count, *counts}, reverse=True):
            raise ValueError(
                f"keep is {[list(pair) for pair in self.keep]}; expected [step, n] pairs of growing steps, "
                f"and of n that falls from below count ({self.count})"
            )
        return self

    def kept_after(self, step: int, steps: int) -> int | None:
        """How many candidates of a sample go on once `step` steps are done; None where nothing is dropped then."""
        if step == steps:
            return 1
        return dict(self.keep).get(step)


class SampleStart(Section):
    """A start from a sample of a prior's own generative model."""

    prior: str | None = Field(
        None, description="Label of the prior whose model is sampled; null is the first one that can be."
    )
    steps: int = Field(50, ge=1, description="Steps of the sampler (DDIM, without noise on the way).")
    guidance: float = Field(7.5, ge=0, description="Classifier-free guidance scale; 1 is none.")
    rounds: list[tuple[Annotated[int, Field(ge=1)], Annotated[float, Field(gt=0, le=1)]]] = Field(
        default_factory=list,
        description="[n, strength] pairs: in each round the n best candidates of each sample stay, and the others are "
        "sampled again around them, from noise of that strength (as in diffusers' image-to-image). A search before the "
        "first step, with `candidates.count` candidates.",
    )


SAMPLE = "sample"
"""`init: sample` stands for a SampleStart with its defaults."""
