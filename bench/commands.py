"""`refcore bench`: runs the benchmarks and shows what came of them; the help imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from refcore.cli.options import PluginsDir
from refcore.errors import RefcoreError

app = typer.Typer(help="Hold variants against each other, pair by pair.", no_args_is_help=True)
COUNT, QUICK_COUNT = 60, 6
QUICK_CLASSES = 3
WIDE = 220
"""Characters of a table that is not printed on a terminal: nothing is cut or wrapped."""

Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the results; the same one goes on.")]
Named = Annotated[
    list[str] | None,
    typer.Option(
        "--variant",
        metavar="NAME|NAME=SOURCE,field=value",
        help="A baseline or preset, or a name for one (or for a YAML config) with overrides. Repeatable; by default "
        "the preset of the benchmark's name and all its baselines.",
    ),
]
Seeds = Annotated[str, typer.Option("--seeds", metavar="0,1", help="One image a prompt and seed.")]
Batch = Annotated[int, typer.Option("--batch", min=1, help="Images made side by side.")]
Workers = Annotated[int, typer.Option("--workers", min=1, help="Processes, of one thread each if several.")]


@app.command("playground")
def playground(
    out: Out,
    variant: Named = None,
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
            "--prompts-seed", min=0, help="Draws the prompts: 1, the default, for tuning; 2031 for what is reported."
        ),
    ] = None,
    seeds: Seeds = "0",
    batch: Batch = 20,
    workers: Workers = 1,
    quick: Annotated[
        bool, typer.Option("--quick", help=f"Three variants on {QUICK_COUNT} seen prompts, unless said otherwise.")
    ] = False,
    plugins_dir: PluginsDir = None,
) -> None:
    """Run variants over drawn prompts, judged by the truth. Interrupted, the same command goes on."""
    numbers = _parse_seeds(seeds)
    from refcore_bench.tasks import prompts
    from refcore_bench.tasks.playground import PLAYGROUND

    prompts_seed = prompts.TUNING_SEED if prompts_seed is None else prompts_seed
    count = count or (QUICK_COUNT if quick else COUNT)
    split = split or ("seen" if quick else prompts.BOTH)
    asked = prompts.draw(count, prompts_seed, split, category or [])
    _run(PLAYGROUND, out, variant, asked, prompts_seed, numbers, batch, workers, quick, plugins_dir or [])


@app.command("natural")
def natural(
    out: Out,
    variant: Named = None,
    chosen: Annotated[
        str, typer.Option("--set", metavar="NAME", help="The classes: tuning, or reporting for what is reported.")
    ] = "tuning",
    count: Annotated[
        int | None, typer.Option("--count", min=1, help="Only so many of the classes, in turn of the groups.")
    ] = None,
    group: Annotated[
        list[str] | None, typer.Option("--group", metavar="NAME", help="animals, objects, scenes. Repeatable.")
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option("--class", metavar="NAME", help="Only this class; for tuning any of ImageNet's. Repeatable."),
    ] = None,
    seeds: Seeds = "0",
    batch: Batch = 1,
    workers: Workers = 1,
    quick: Annotated[
        bool, typer.Option("--quick", help=f"Three variants on {QUICK_CLASSES} classes, unless said otherwise.")
    ] = False,
    plugins_dir: PluginsDir = None,
) -> None:
    """Run variants over ImageNet classes, judged by a witness. Interrupted, the same command goes on."""
    numbers = _parse_seeds(seeds)
    from refcore_bench.tasks.natural import NATURAL, draw

    if count is None and quick and not name:
        count = QUICK_CLASSES
    asked = draw(chosen, group or [], name or [], count)
    _run(NATURAL, out, variant, asked, chosen, numbers, batch, workers, quick, plugins_dir or [])


@app.command("show")
def show(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Results of a benchmark.")],
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables as Markdown.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a gallery of every image, in one file.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Write a figure: .png, .svg, .pdf.")
    ] = None,
    grid: Annotated[
        Path | None,
        typer.Option("--grid", metavar="FILE", help="Write the pictures, variants side by side: .png, .jpg."),
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", metavar="VARIANT", help="What the others are compared with.")
    ] = None,
) -> None:
    """Show accuracy, hack rate and cost with 95 % intervals."""
    from refcore_bench.results import Results

    if markdown and json:
        raise RefcoreError("both --markdown and --json were given; expected one of them")
    results = Results.existing(folder)
    if html is None and plot is None and grid is None and not markdown and not json:
        _print_tables(results, against, everything=True)
        return
    from refcore_bench.summary import summarise

    summary = summarise(results, against)
    if html is not None:
        from refcore_bench.gallery import write_gallery

        write_gallery(results, summary, html)
    if plot is not None:
        from refcore_bench.plot import write_plot

        write_plot(summary, plot)
    if grid is not None:
        from refcore_bench.grid import write_grid

        write_grid(results, grid)
    if json:
        from refcore.runs import rundir

        typer.echo(rundir.to_json(summary, indent=2))
    if markdown:
        from refcore_bench import tables

        typer.echo(tables.markdown(tables.tables(summary)), nl=False)


def _parse_seeds(text: str) -> list[int]:
    from refcore.cli.invert import parse_seeds

    return parse_seeds(text)


def _run(
    world: Any,
    out: Path,
    named: Sequence[str] | None,
    asked: Sequence[Any],
    source: int | str,
    seeds: Sequence[int],
    batch: int,
    workers: int,
    quick: bool,
    plugin_folders: Sequence[Path],
) -> None:
    from refcore_bench import running, variants
    from refcore_bench.extras import need

    need("polars")
    parsed = [variants.parse(text, world) for text in named or (world.quick() if quick else world.names())]
    results = running.run(out, parsed, asked, source, seeds, batch, workers, plugin_folders, _tell, world)
    _print_tables(results, None, everything=False)
    typer.echo(f"more: refcore bench show {out}; contact sheets in {results.path / 'sheets'}")


def _print_tables(results: Any, against: str | None, everything: bool) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from refcore.cli.output import stdout
    from refcore_bench.summary import summarise
    from refcore_bench.tables import tables

    console = stdout if stdout.is_terminal else Console(width=WIDE, highlight=False)
    for table in tables(summarise(results, against))[: None if everything else 1]:
        shown = Table(*table.columns, title=table.title, title_justify="left", box=None, pad_edge=False)
        for row in table.rows:
            shown.add_row(*map(escape, row))
        console.print(shown)
        console.print(table.note + "\n" if table.note else "", markup=False)


def _tell(line: str) -> None:
    typer.echo(line, err=True)
