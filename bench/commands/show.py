"""`refcore bench show` and `compare`. The imports inside functions keep `--help` fast."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from refcore.cli import output
from refcore.cli.options import Json, PluginsDir
from refcore.errors import RefcoreError
from refcore.runs.rundir import refuse_existing, to_json
from refcore_bench.commands.parts import print_all, print_tables


def add(app: typer.Typer) -> None:
    """Adds the commands to `refcore bench`."""
    app.command("show")(show)
    app.command("compare")(compare)


def show(
    folder: Annotated[str, typer.Argument(metavar="DIR|URL", help="Results of a benchmark.")],
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables as Markdown.")] = False,
    json: Json = False,
    latex: Annotated[
        bool, typer.Option("--latex", help="Print a published benchmark's table as LaTeX, for booktabs.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a gallery of all images, as one file.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Write a figure: .png, .svg or .pdf.")
    ] = None,
    grid: Annotated[
        Path | None,
        typer.Option("--grid", metavar="FILE", help="Write all images, variants side by side: .png or .jpg."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="VARIANT",
            help="Compare the others with this variant; default: the preset, or the first.",
        ),
    ] = None,
) -> None:
    """Show accuracy and hack rate, or a panel's scores, and cost with 95 % confidence intervals."""
    from refcore_bench.storing.results import Results

    _refuse_several(markdown=markdown, json=json, latex=latex)
    for option, path in (("--html", html), ("--plot", plot), ("--grid", grid)):
        if path is not None:
            refuse_existing(path, option)
    results = Results.existing(folder)
    if not any((html, plot, grid, markdown, json, latex)):
        print_tables(results, against, everything=True)
        return
    from refcore_bench.showing.summary import summarise

    summary = summarise(results, against)
    if html is not None:
        from refcore_bench.showing.gallery import write_gallery

        write_gallery(results, summary, html)
    if plot is not None:
        from refcore_bench.showing.plot import write_plot

        write_plot(summary, plot)
    if grid is not None:
        from refcore_bench.showing.grid import write_grid

        write_grid(results, grid)
    if json:
        output.echo_json(to_json(summary, indent=2))
    if latex:
        from refcore_bench.published.tables import latex as as_latex

        if "metrics" not in summary:
            raise RefcoreError(f'--latex: "{folder}" is of no published benchmark; use --markdown')
        output.echo(as_latex(summary).removesuffix("\n"))
    if markdown:
        from refcore_bench import witnesses
        from refcore_bench.showing.tables import tables
        from refcore_bench.table import markdown as as_markdown

        output.echo(as_markdown([*tables(summary), *witnesses.tables(results, against)]).removesuffix("\n"))


def compare(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders of finished runs.")],
    evaluations: Annotated[
        bool,
        typer.Option(
            "--evaluations", help="Also count model evaluations, by making the first image of each run once more."
        ),
    ] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables as Markdown.")] = False,
    json: Json = False,
    plugins_dir: PluginsDir = None,
) -> None:
    """Compare runs made by `refcore invert`: what differs in their configs, and their scores by prompt and seed.

    With intervals over prompts. Pictures and curves side by side, on a page: refcore compare.
    """
    _refuse_several(markdown=markdown, json=json)
    from refcore_bench import table
    from refcore_bench.showing import comparison_tables, run_comparison

    found = run_comparison.compare(run_comparison.read_runs(folders), evaluations)
    if json:
        output.echo_json(to_json(found, indent=2))
    elif markdown:
        output.echo(table.markdown(comparison_tables.comparison_tables(found)).removesuffix("\n"))
    else:
        print_all(comparison_tables.comparison_tables(found))
    if not json:
        for line in comparison_tables.remarks(found):
            output.echo(line)


def _refuse_several(**given: bool) -> None:
    named = [f"--{name}" for name, wanted in given.items() if wanted]
    if len(named) > 1:
        raise RefcoreError(f"both {' and '.join(named)} were given; expected one of them")
