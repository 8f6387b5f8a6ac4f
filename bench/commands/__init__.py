"""`refcore bench`: runs the benchmarks and shows their results, a file for each family of commands."""

from __future__ import annotations

import typer

from refcore_bench.commands import cards, published, show, worlds

app = typer.Typer(help="Compare variants, or runs, paired by prompt and seed.", no_args_is_help=True)
for family in (worlds, published, show, cards):
    family.add(app)
