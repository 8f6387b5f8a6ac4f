"""`refcore probe`: what a referee knows, what its gradient makes, and what a view costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from refcore.checkpoints import needed_by
from refcore.cli import output
from refcore.cli.options import Json, LocalPlugins, Overrides, PluginsDir

if TYPE_CHECKING:
    from refcore_bench.probe import Page


def probe(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A referee; see `refcore plugins`.")],
    scenes: Annotated[int, typer.Option("--scenes", min=2, help="Scenes for each kind of wrong caption.")] = 24,
    prompts: Annotated[int, typer.Option("--prompts", min=1, help="Prompts made by its gradient alone.")] = 6,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Random seed of scenes, prompts and the start.")] = 0,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Keep the pictures in this folder.")] = None,
    json: Json = False,
    plugins_dir: PluginsDir = None,
    local_plugins: LocalPlugins = False,
) -> None:
    """Show what a referee knows, whether its gradient alone makes what is asked, and what a view costs."""
    from refcore_bench.probe import probe, run_of

    with needed_by(None):
        page = probe(run_of(name, overrides or []), scenes, prompts, seed, out)
    if json:
        output.print_json(page.to_dict())
    else:
        _print(page)


def _print(page: Page) -> None:
    output.stdout.print(f"referee {page.referee}, on the playground", markup=False)
    _heading("Agreement with the truth: a scene, its caption, and one with a single wrong fact")
    output.print_table(
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
    output.print_table(
        ["", "", "95 % interval"],
        [
            ("the judge says yes", *shares[0]),
            ("fooled: the judge says no, below a true scene's loss", *shares[1]),
            ("facts that hold", f"{ascent.facts:.0%}", ""),
            ("steps", ascent.steps, f"{ascent.seconds_per_step:.2f} s each, for all prompts"),
        ],
    )
    output.stdout.print()
    output.print_table(
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
    output.print_table(
        ["forward", "backward", "held for the backward pass"],
        [(f"{1000 * cost.forward:.1f} ms", f"{1000 * cost.backward:.1f} ms", f"{cost.megabytes:.1f} MB")],
    )


def _heading(text: str) -> None:
    output.stdout.print(f"\n[bold]{text}[/]")
