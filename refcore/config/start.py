"""The start of a run: samples of a prior's model, and several candidates for each sample."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from refcore.config.section import Section
from refcore.config.views import CLEAN


class Candidates(Section):
    """Several independent candidates for every sample, narrowed to the best by successive halving.

    Jamieson and Talwalkar, "Non-stochastic Best Arm Identification" (AISTATS 2016), ranked by the referees; see
    `refcore.engine.candidates`.
    """

    count: int = Field(
        1,
        ge=1,
        le=1_000,
        description="Number of candidates of every sample at the start, each with its own random draws. At most 1,000, "
        "since all are optimised side by side until they are dropped.",
    )
    keep: list[tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=1)]]] = Field(
        default_factory=list,
        description="[step, n] pairs: after this many steps the n best candidates of each sample are kept, and the "
        "others are dropped and their memory freed. Step 0 is before the first step, ranked on `views`. At the end of "
        "the run, the best one is kept.",
    )
    recent: int = Field(
        10,
        ge=0,
        description="Window, in steps, of the moving average of the losses by which candidates are ranked; 0: rank by "
        "the losses on `views` of the (averaged) image.",
    )
    views: str = Field(CLEAN, description="View group to rank on, with the same views for every candidate of a sample.")
    by: Literal["consensus", "loss"] = Field(
        "consensus",
        description="Ranking. consensus: every referee counts equally, in units of its own standard deviation. loss: "
        "by the weighted sum of the losses, better for log-probabilities, which reflect each referee's confidence.",
    )

    @model_validator(mode="after")
    def _falling(self) -> Self:
        steps, counts = [step for step, _ in self.keep], [n for _, n in self.keep]
        if steps != sorted(set(steps)) or [self.count, *counts] != sorted({self.count, *counts}, reverse=True):
            raise ValueError(
                f"keep is {[list(pair) for pair in self.keep]}; expected [step, n] pairs with increasing "
                f"steps and decreasing n, below count ({self.count})"
            )
        return self

    def kept_after(self, step: int, steps: int) -> int | None:
        """Number of candidates per sample kept after `step` steps; None if none is dropped then."""
        if step == steps:
            return 1
        return dict(self.keep).get(step)


class SampleStart(Section):
    """A start from a sample of a prior's generative model."""

    prior: str | None = Field(
        None, description="Label of the prior whose model is sampled; null: the first prior that can be sampled."
    )
    steps: int = Field(
        50, ge=1, le=1_000, description="Number of sampler steps (DDIM, eta = 0); at most the model's 1,000 timesteps."
    )
    guidance: float = Field(7.5, ge=0, description="Classifier-free guidance scale; 1 for none.")
    rounds: list[tuple[Annotated[int, Field(ge=1)], Annotated[float, Field(gt=0, le=1)]]] = Field(
        default_factory=list,
        description="Search before the first step, with `candidates.count` candidates: [n, strength] pairs, one per "
        "round. Each round keeps the n best candidates of each sample and resamples the others from these, noised with "
        "that strength (as in diffusers' image-to-image).",
    )


SAMPLE = "sample"
"""`init: sample` is short for a SampleStart with default settings."""
