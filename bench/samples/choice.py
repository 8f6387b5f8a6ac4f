"""The choice among several samples of a prompt by referees: what all variants that draw samples share."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from refcore.config.section import Section


class Choice(Section):
    """Settings of the choice. The presets that it names are resolved once, into a variant's budget and scorers."""

    choose: bool = Field(
        False, description="Draw several samples and keep the one that the referees of a preset choose."
    )
    by: Literal["consensus", "loss"] = Field(
        "consensus", description="Criterion of the choice, as `candidates.by` of a run; loss: the sum of their losses."
    )
    count: int | None = Field(
        None, ge=1, description="Number of samples to choose from; null: as many as the `budget` allows."
    )
    equal: Literal["evaluations", "seconds"] = Field(
        "evaluations",
        description="What the number of samples makes equal to the budget's: model evaluations an image, or seconds, "
        "timed once in turns. Where the budget's config has `candidates.tries`, those of all tries.",
    )
    budget_preset: str | None = Field(
        None,
        exclude=True,
        description="Preset whose image may cost as much; null: the task's. `budget.FIELD` changes it.",
    )
    by_preset: str | None = Field(
        None, exclude=True, description="Preset whose referees choose; null: that of the budget."
    )
