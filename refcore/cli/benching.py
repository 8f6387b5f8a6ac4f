"""`refcore bench`: runs the playground's benchmark and shows what came of it; the help imports nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from refcore import registry
from refcore.plugin import RefcoreError

app = typer.Typer(help="Measure variants where the truth is known.", no_args_is_help=True)
COUNT, QUICK_COUNT = 60, 6
WIDE = 220
"""Characters of a table that is not printed on a terminal: nothing is cut or wrapped."""


@app.command("playground")
def playground(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the results; the same one goes on.")],
    variant: Annotated[
        list[str] | None,
        typer.Option(
            "--variant",
            metavar="NAME|NAME=SOURCE,field=value",
            help="A baseline or preset, or a name for one (or for a YAML config) with overrides. Repeatable; by "
            "default the preset playground and all its baselines.",
        ),
    ] = None,
    count: Annotated[int | None, typer.Option("--count", min=1, help=f"Prompts in all; by default {COUNT}.")] = None,
    category: Annotated[
        list[str] | None, typer.Option("--category", metavar="NAME", help="Only this category. Repeatable.")
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="seen, unseen, or both in equal parts, which is the default.")
    ] = None,
    prompts_seed: Annotated[
        int | None,
        typer.Option(
            "--prompts-seed", min=0, help="Draws the prompts: 1, the default, for tuning; 2027 for what is reported."
        ),
    ] = None,
    seeds: Annotated[str, typer.Option("--seeds", metavar="0,1", help="One image a prompt and seed.")] = "0",
    batch: Annotated[int, typer.Option("--batch", min=1, help="Images made side by side.")] = 20,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes, of one thread each if several.")] = 1,
    quick: Annotated[
        bool, typer.Option("--quick", help=f"Three variants on {QUICK_COUNT} seen prompts, unless said otherwise.")
    ] = False,
    plugins_dir: Annotated[
        list[Path] | None,
        typer.Option("--plugins-dir", metavar="DIR", help="Also the plugin files of this folder. Repeatable."),
    ] = None,
) -> None:
    """Run variants over drawn prompts, judged by the truth. Interrupted, the same command goes on."""
    from refcore.cli.inverting import parse_seeds

    numbers = parse_seeds(seeds)
    from refcore_playground.bench import baselines, prompts, running, variants
    from refcore_playground.bench.libraries import need

    need("polars")
    for folder in plugins_dir or []:
        registry.add_folder(folder)
    prompts_seed = prompts.TUNING_SEED if prompts_seed is None else prompts_seed
    count = count or (QUICK_COUNT if quick else COUNT)
    split = split or ("seen" if quick else prompts.BOTH)
    asked = prompts.draw(count, prompts_seed, split, category or [])
    named = variant or (variants.quick() if quick else baselines.names())
    parsed = [variants.parse(text) for text in named]
    results = running.run(
        out, parsed, asked, prompts_seed, numbers, batch, workers, plugin_folders=plugins_dir or [], tell=_tell
    )
    _print_tables(results, None, everything=False)
    typer.echo(f"more: refcore bench show {out}; contact sheets in {results.path / 'sheets'}")


@app.command("show")
def show(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Results of `refcore bench playground`.")],
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables as Markdown.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a gallery of every image, in one file.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Write a figure: .png, .svg, .pdf.")
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", metavar="VARIANT", help="What the others are compared with.")
    ] = None,
) -> None:
    """Show accuracy, hack rate and cost with 95 % intervals."""
    from refcore_playground.bench.results import Results

    if markdown and json:
        raise RefcoreError("both --markdown and --json were given; expected one of them")
    results = Results.existing(folder)
    if html is None and plot is None and not markdown and not json:
        _print_tables(results, against, everything=True)
        return
    from refcore_playground.bench.summary import summarise

    summary = summarise(results, against)
    if html is not None:
        from refcore_playground.bench.gallery import write_gallery

        write_gallery(results, summary, html)
    if plot is not None:
        from refcore_playground.bench.plot import write_plot

        write_plot(summary, plot)
    if json:
        from refcore import rundir

        typer.echo(rundir.to_json(summary, indent=2))
    if markdown:
        from refcore_playground.bench.tables import tables

        typer.echo("\n".join(table.markdown() for table in tables(summary)), nl=False)


def _print_tables(results: Any, against: str | None, everything: bool) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from refcore.cli.output import stdout
    from refcore_playground.bench.summary import summarise
    from refcore_playground.bench.tables import tables

    console = stdout if stdout.is_terminal else Console(width=WIDE, highlight=False)
    for table in tables(summarise(results, against))[: None if everything else 1]:
        shown = Table(*table.columns, title=table.title, title_justify="left", box=None, pad_edge=False)
        for row in table.rows:
            shown.add_row(*map(escape, row))
        console.print(shown)
        console.print(table.note + "\n" if table.note else "", markup=False)


def _tell(line: str) -> None:
    typer.echo(line, err=True)
