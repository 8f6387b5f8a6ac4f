"""The report of the task `playground` as tables."""

from __future__ import annotations

from refcore_bench.examinations.probe import ProbeReport
from refcore_bench.table import Table


def tables(report: ProbeReport) -> list[Table]:
    """Agreement with the truth, what the gradient makes, and the cost of a view."""
    return [_agreement(report), *_ascent(report), _cost(report)]


def _agreement(report: ProbeReport) -> Table:
    return Table(
        "Agreement with the truth: true captions of scenes against captions with a single wrong fact",
        ["wrong fact", "ROC AUC", "prefers the true caption", "scenes"],
        [
            [kind, f"{found.auc:.2f} ± {found.plus_minus:.2f}", f"{found.preferred:.0%}", str(found.scenes)]
            for kind, found in report.agreement.items()
        ],
    )


def _ascent(report: ProbeReport) -> list[Table]:
    ascent = report.ascent
    shares = [
        [f"{share.value:.0%}", f"{share.low:.0%} to {share.high:.0%} of {share.n} prompts"]
        for share in (ascent.satisfied, ascent.fooled)
    ]
    whole = Table(
        "Gradient: its loss alone, minimised from noise",
        ["", "", "95 % interval"],
        [
            ["the judge says yes", *shares[0]],
            ["fooled: loss below a true scene's, the judge says no", *shares[1]],
            ["facts that hold", f"{ascent.facts:.0%}", ""],
            ["steps", str(ascent.steps), f"{ascent.seconds_per_step:.2f} s each, for all prompts"],
        ],
    )
    single = Table(
        "Picture by picture",
        ["prompt", "judge", "facts", "loss at the start", "at the end", "of a true scene"],
        [
            [
                made.prompt,
                "yes" if made.satisfied else "no",
                f"{made.facts:.0%}",
                f"{made.loss_first:.3f}",
                f"{made.loss_last:.3f}",
                f"{made.loss_of_true_scene:.3f}",
            ]
            for made in ascent.attempts
        ],
    )
    return [whole, single]


def _cost(report: ProbeReport) -> Table:
    cost = report.cost
    return Table(
        f"Cost of a view of {cost.height}x{cost.width} pixels, in batches of {cost.views}",
        ["forward", "backward", "held for the backward pass"],
        [[f"{1000 * cost.forward:.1f} ms", f"{1000 * cost.backward:.1f} ms", f"{cost.megabytes:.1f} MB"]],
    )
