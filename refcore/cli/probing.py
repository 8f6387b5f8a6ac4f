"""`refcore probe referee`: prints what a referee knows, what its gradient makes, and what a view costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from refcore.checkpoint import needed_by
from refcore.cli.output import print_json, print_table, stdout

if TYPE_CHECKING:
    from refcore_playground.probe import Page


def run(name: str, scenes: int, prompts: int, seed: int, overrides: list[str], out: Path | None, as_json: bool) -> None:
    from refcore_playground.probe import probe, run_of

    with needed_by(None):
        page = probe(run_of(name, overrides), scenes, prompts, seed, out)
    if as_json:
        print_json(page.to_dict())
    else:
        _print(page)


def _print(page: Page) -> None:
    stdout.print(f"referee {page.referee}, on the playground", markup=False)
    _heading("Agreement with the truth: a scene, its caption, and one with a single wrong fact")
    print_table(
        ["what is wrong", "ROC AUC", "prefers the true one", "scenes"],
        [
            (kind, f"{found.auc:.2f} ± {found.plus_minus:.2f}", f"{found.preferred:.0%}", found.scenes)
            for kind, found in page.agreement.items()
        ],
    )
    _heading("Gradient: its loss alone, descended from noise")
    ascent = page.ascent
    shares = [
        (f"{share.value:.0%}", f"{share.low:.0%} to {share.high:.0%} of {share.n} prompts")
        for share in (ascent.satisfied, ascent.fooled)
    ]
    print_table(
        ["", "", "95 % interval"],
        [
            ("the judge says yes", *shares[0]),
            ("fooled: the judge says no, below a true scene's loss", *shares[1]),
            ("facts that hold", f"{ascent.facts:.0%}", ""),
            ("steps", ascent.steps, f"{ascent.seconds_per_step:.2f} s each, for all prompts"),
        ],
    )
    stdout.print()
    print_table(
        ["prompt", "judge", "facts", "loss at first", "at last", "of a true scene"],
        [
            (
                made.prompt,
                "yes" if made.satisfied else "no",
                f"{made.facts:.0%}",
                f"{made.loss_first:.3f}",
                f"{made.loss_last:.3f}",
                f"{made.loss_of_true_scene:.3f}",
            )
            for made in ascent.attempts
        ],
    )
    cost = page.cost
    _heading(f"Cost of a view of {cost.height}x{cost.width} pixels, {cost.views} at a time")
    print_table(
        ["forward", "backward", "held for the backward pass"],
        [(f"{1000 * cost.forward:.1f} ms", f"{1000 * cost.backward:.1f} ms", f"{cost.megabytes:.1f} MB")],
    )


def _heading(text: str) -> None:
    stdout.print(f"\n[bold]{text}[/]")
