"""How the gradients of several terms become one: the fields of each combiner."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from refcore.config.schedule import Schedule
from refcore.config.section import Section


class Sum(Section):
    """All weighted gradients are added."""

    name: Literal["sum"] = Field("sum", description="All weighted gradients are added.")


class NormBalance(Section):
    """Referees against priors by norm: the paper's balance."""

    name: Literal["norm_balance"] = Field(
        "norm_balance",
        description="The referees' summed gradient is scaled, sample by sample, to `factor` times the norm of the "
        "priors' gradient. In steps without a prior it passes as it is.",
    )
    factor: Schedule = Field(1.0, description="Norm of the referees' gradient over that of the priors'.")


class ConflictAware(Section):
    """Base of the combiners that look at conflicts between terms: every term is a row, and torchjd weights the rows."""

    name: str
    at: Literal["parameters", "image"] = Field(
        "parameters",
        description="Where conflicts are looked at. parameters: of the canvas, all terms, one pull-back through it for "
        "each. image: among referees and image priors at the decoded image, which costs one pull-back; latent priors "
        "are then added.",
    )
    factor: Schedule | None = Field(
        None,
        description="null: priors are rows as the referees are. A number or schedule: only referees are, and their "
        "combination is scaled to this times the norm of the priors' gradient, as norm_balance does.",
    )


class Pcgrad(ConflictAware):
    """Projecting conflicting gradients: Yu et al. (arXiv 2001.06782), algorithm 1."""

    name: Literal["pcgrad"] = Field(
        "pcgrad", description="Each gradient loses what conflicts with another, in an order drawn by sample and step."
    )


class Mgda(ConflictAware):
    """Multiple gradient descent: Desideri (2012), solved as in Sener and Koltun (arXiv 1810.04650), algorithm 2."""

    name: Literal["mgda"] = Field("mgda", description="The shortest convex combination of the gradients.")


class Upgrad(ConflictAware):
    """Unconflicting projection: Quinton and Rey, Jacobian descent (arXiv 2406.16232)."""

    name: Literal["upgrad"] = Field(
        "upgrad", description="Each gradient is projected onto the cone where no term gets worse; then their mean."
    )


class Cagrad(ConflictAware):
    """Conflict-averse gradient descent: Liu et al. (arXiv 2110.14048), algorithm 1."""

    name: Literal["cagrad"] = Field(
        "cagrad", description="The mean gradient, moved within a ball so that the worst-off term gains most."
    )
    c: float = Field(0.5, ge=0, description="Radius of the ball, as a fraction of the mean gradient's norm.")


class ImtlG(ConflictAware):
    """Impartial multi-task learning, the gradient part: Liu et al. (ICLR 2021)."""

    name: Literal["imtl_g"] = Field(
        "imtl_g", description="The combination whose projections onto all gradients' directions are equal."
    )


class NashMtl(ConflictAware):
    """Multi-task learning as a bargaining game: Navon et al. (arXiv 2202.01017), algorithm 1."""

    name: Literal["nash_mtl"] = Field("nash_mtl", description="The Nash bargaining solution between the terms.")
    iterations: int = Field(20, ge=1, description="Of the solver.")


Combine = Sum | NormBalance | Pcgrad | Mgda | Upgrad | Cagrad | ImtlG | NashMtl
