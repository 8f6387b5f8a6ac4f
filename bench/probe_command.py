"""`refcore probe`: a referee's agreement with the truth, the images of its gradient, and the cost of a view."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from refcore.checkpoints import needed_by
from refcore.cli import output
from refcore.cli.options import Json, LocalPlugins, Overrides, PluginsDir

if TYPE_CHECKING:
    from refcore_bench.probe import ProbeReport


def probe(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A referee; see `refcore plugins`.")],
    scenes: Annotated[int, typer.Option("--scenes", min=2, help="Scenes per kind of wrong caption.")] = 24,
    prompts: Annotated[
        int, typer.Option("--prompts", min=1, help="Prompts to make images of by its gradient alone.")
    ] = 6,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Random seed of scenes, prompts and the start.")] = 0,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Keep the images in this folder.")] = None,
    json: Json = False,
    plugins_dir: PluginsDir = None,
    local_plugins: LocalPlugins = False,
) -> None:
    """Show a referee's agreement with the truth, the images its gradient alone makes, and the cost of a view."""
    from refcore_bench.probe import probe, run_of  # local: keeps --help fast

    with needed_by(None):
        report = probe(run_of(name, overrides or []), scenes, prompts, seed, out)
    if json:
        output.print_json(report.to_dict())
    else:
        _print(report)


def _print(report: ProbeReport) -> None:
    output.stdout.print(f"referee {report.referee}, on the playground", markup=False)
    _heading("Agreement with the truth: true captions of scenes against captions with a single wrong fact")
    output.print_table(
        ["wrong fact", "ROC AUC", "prefers the true caption", "scenes"],
        [
            (kind, f"{found.auc:.2f} ± {found.plus_minus:.2f}", f"{found.preferred:.0%}", found.scenes)
            for kind, found in report.agreement.items()
        ],
    )
    _heading("Gradient: its loss alone, minimised from noise")
    ascent = report.ascent
    shares = [
        (f"{share.value:.0%}", f"{share.low:.0%} to {share.high:.0%} of {share.n} prompts")
        for share in (ascent.satisfied, ascent.fooled)
    ]
    output.print_table(
        ["", "", "95 % interval"],
        [
            ("the judge says yes", *shares[0]),
            ("fooled: loss below a true scene's, the judge says no", *shares[1]),
            ("facts that hold", f"{ascent.facts:.0%}", ""),
            ("steps", ascent.steps, f"{ascent.seconds_per_step:.2f} s each, for all prompts"),
        ],
    )
    output.stdout.print()
    output.print_table(
        ["prompt", "judge", "facts", "loss at the start", "at the end", "of a true scene"],
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
    cost = report.cost
    _heading(f"Cost of a view of {cost.height}x{cost.width} pixels, in batches of {cost.views}")
    output.print_table(
        ["forward", "backward", "held for the backward pass"],
        [(f"{1000 * cost.forward:.1f} ms", f"{1000 * cost.backward:.1f} ms", f"{cost.megabytes:.1f} MB")],
    )


def _heading(text: str) -> None:
    output.stdout.print(f"\n[bold]{text}[/]")
