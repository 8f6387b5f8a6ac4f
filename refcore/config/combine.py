"""Combiners, which turn the gradients of several terms into one."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from refcore.config.schedule import Schedule
from refcore.config.section import Section

VOTES = (
    "How the referees' gradients are summed, before anything else. weighted: each times its weight, so that a steep "
    "loss counts for more. equal: each is scaled, for each sample, to the magnitude of its weight at the decoded "
    "image, so that weights are votes, as in CARINOX (arXiv 2509.17458); a satisfied referee has none."
)


class Sum(Section):
    """The sum of all weighted gradients."""

    name: Literal["sum"] = Field("sum", description="The sum of all weighted gradients.")
    votes: Literal["weighted", "equal"] = Field("weighted", description=VOTES)


class NormBalance(Section):
    """Referees balanced against priors by gradient norm, as in the paper."""

    name: Literal["norm_balance"] = Field(
        "norm_balance",
        description="The referees' summed gradient is scaled, for each sample, to `factor` times the norm of the "
        "priors' gradient. In steps without a prior it is not scaled.",
    )
    factor: Schedule = Field(1.0, description="Ratio of the norm of the referees' gradient to that of the priors'.")
    votes: Literal["weighted", "equal"] = Field("weighted", description=VOTES)


class ConflictAware(Section):
    """Base of the combiners that resolve conflicts between terms: one gradient per term, weighted by torchjd."""

    name: str
    at: Literal["parameters", "image"] = Field(
        "parameters",
        description="Where conflicts are resolved. parameters: between all terms, at the canvas's parameters, which "
        "takes one backward pass through the canvas per term. image: between referees and image priors, at the decoded "
        "image, which takes one backward pass in all; latent priors are added afterwards.",
    )
    factor: Schedule | None = Field(
        None,
        description="null: priors are combined as the referees are. A number or schedule: only referees are combined, "
        "and the result is scaled to this many times the norm of the priors' gradient, as in norm_balance.",
    )


class Pcgrad(ConflictAware):
    """Projecting conflicting gradients: Yu et al. (arXiv 2001.06782), algorithm 1."""

    name: Literal["pcgrad"] = Field(
        "pcgrad",
        description="Each gradient loses its component against every gradient that it conflicts with, in random order.",
    )


class Mgda(ConflictAware):
    """Multiple gradient descent: Desideri (2012), solved as in Sener and Koltun (arXiv 1810.04650), algorithm 2."""

    name: Literal["mgda"] = Field("mgda", description="The convex combination of the gradients with the smallest norm.")


class Upgrad(ConflictAware):
    """Unconflicting projection: Quinton and Rey, Jacobian descent (arXiv 2406.16232)."""

    name: Literal["upgrad"] = Field(
        "upgrad", description="The mean of the gradients, each projected onto the cone where no term gets worse."
    )


class Cagrad(ConflictAware):
    """Conflict-averse gradient descent: Liu et al. (arXiv 2110.14048), algorithm 1."""

    name: Literal["cagrad"] = Field(
        "cagrad", description="The gradient in a ball around the mean that improves the worst-off term most."
    )
    c: float = Field(0.5, ge=0, description="Radius of the ball as a fraction of the mean gradient's norm.")


class ImtlG(ConflictAware):
    """Impartial multi-task learning, the gradient part: Liu et al. (ICLR 2021)."""

    name: Literal["imtl_g"] = Field(
        "imtl_g", description="The combination with equal projections onto the directions of all gradients."
    )


class NashMtl(ConflictAware):
    """Multi-task learning as a bargaining game: Navon et al. (arXiv 2202.01017), algorithm 1."""

    name: Literal["nash_mtl"] = Field("nash_mtl", description="The Nash bargaining solution between the terms.")
    iterations: int = Field(
        20, ge=1, le=10_000, description="Maximum number of iterations of the solver, in each step."
    )


Combine = Sum | NormBalance | Pcgrad | Mgda | Upgrad | Cagrad | ImtlG | NashMtl
