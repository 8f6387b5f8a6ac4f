"""`refcore bench`: runs the benchmarks and shows their results. The imports inside functions keep `--help` fast."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from refcore.cli import output
from refcore.cli.options import Json, PluginsDir
from refcore.errors import RefcoreError, printable, unknown
from refcore.prompts import parse_seeds, read_prompts
from refcore.runs.rundir import refuse_existing, to_json
from refcore_bench.executors.options import RayAddress, Workers

if TYPE_CHECKING:
    from refcore_bench.results import Results
    from refcore_bench.tables import Table
    from refcore_bench.task import Task, TaskPrompt

app = typer.Typer(help="Compare variants, or runs, paired by prompt and seed.", no_args_is_help=True)
COUNT, QUICK_COUNT = 60, 6
QUICK_CLASSES = 3
WIDE = 220
"""Characters per line of a table that is not printed on a terminal: nothing is truncated or wrapped."""

Out = Annotated[
    str,
    typer.Option(
        "--out",
        metavar="DIR|URL",
        help="Results folder, a path or such as s3://bucket/folder; an earlier run is continued.",
    ),
]
Named = Annotated[
    list[str] | None,
    typer.Option(
        "--variant",
        metavar="NAME|NAME=SOURCE,field=value",
        help="A baseline or preset, or a name for one (or for a YAML config) with overrides. Repeatable; by default "
        "the benchmark's preset and all its baselines.",
    ),
]
Seeds = Annotated[str, typer.Option("--seeds", metavar="0,1", help="Random seeds; one image per prompt and seed.")]
Batch = Annotated[int, typer.Option("--batch", min=1, help="Images made side by side.")]


@app.command("playground")
def playground(
    out: Out,
    variant: Named = None,
    count: Annotated[
        int | None, typer.Option("--count", min=1, help=f"Total number of prompts; by default {COUNT}.")
    ] = None,
    category: Annotated[
        list[str] | None, typer.Option("--category", metavar="NAME", help="Only this category. Repeatable.")
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="seen, unseen, or both (the default), in equal parts.")
    ] = None,
    prompts_seed: Annotated[
        int | None,
        typer.Option(
            "--prompts-seed",
            min=0,
            help="Seed of the prompts: 1 (the default) for tuning, 2031 for reported numbers; of the blind task 21 and "
            "2034.",
        ),
    ] = None,
    prior: Annotated[
        str, typer.Option("--prior", help="told: priors get the prompt. blind: they get none, whatever the variant.")
    ] = "told",
    seeds: Seeds = "0",
    batch: Batch = 20,
    workers: Workers = 1,
    ray: RayAddress = None,
    quick: Annotated[
        bool, typer.Option("--quick", help=f"By default three variants on {QUICK_COUNT} seen prompts.")
    ] = False,
    plugins_dir: PluginsDir = None,
) -> None:
    """Run variants over drawn prompts, judged by the truth. If interrupted, the same command continues."""
    numbers = parse_seeds(seeds)
    from refcore_bench.tasks import playground_prompts
    from refcore_bench.tasks.playground import BLIND, PLAYGROUND

    tasks = {"told": PLAYGROUND, "blind": BLIND}
    if prior not in tasks:
        raise unknown("prior", prior, tasks, "--prior")
    task = tasks[prior]
    prompts_seed = task.tuning_seed if prompts_seed is None else prompts_seed
    count = count or (QUICK_COUNT if quick else COUNT)
    split = split or ("seen" if quick else playground_prompts.BOTH)
    prompts = playground_prompts.draw(count, prompts_seed, split, category or [])
    _run(task, out, variant, prompts, prompts_seed, numbers, batch, workers, quick, plugins_dir or [], ray)


@app.command("natural")
def natural(
    out: Out,
    variant: Named = None,
    classes: Annotated[
        str, typer.Option("--classes", metavar="NAME", help="List of classes: tuning, or reporting (reported numbers).")
    ] = "tuning",
    count: Annotated[
        int | None, typer.Option("--count", min=1, help="Maximum number of classes, taken from the groups in turn.")
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option("--group", metavar="NAME", help="Only this group: animals, objects, scenes. Repeatable."),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            metavar="NAME",
            help="Only this class; with --classes tuning, any outside the reporting list. Repeatable.",
        ),
    ] = None,
    seeds: Seeds = "0",
    batch: Batch = 1,
    workers: Workers = 1,
    ray: RayAddress = None,
    quick: Annotated[
        bool, typer.Option("--quick", help=f"By default three variants on {QUICK_CLASSES} classes.")
    ] = False,
    witnesses: Annotated[
        Path | None,
        typer.Option("--witnesses", metavar="FILE", help="YAML list of further witnesses, a detector for example."),
    ] = None,
    plugins_dir: PluginsDir = None,
) -> None:
    """Run variants over ImageNet classes, judged by witnesses. If interrupted, the same command continues."""
    numbers = parse_seeds(seeds)
    from refcore_bench.tasks.natural import NATURAL, draw

    if count is None and quick and not name:
        count = QUICK_CLASSES
    prompts = draw(classes, group or [], name or [], count)
    from refcore_bench import witnesses as several

    several.entries(witnesses)  # refused before hours of work
    results = _run(NATURAL, out, variant, prompts, classes, numbers, batch, workers, quick, plugins_dir or [], ray)
    several.measure(results, witnesses, _print_progress)
    _print(several.tables(results))


@app.command("prompts")
def prompts(
    out: Out,
    prompts_file: Annotated[
        Path,
        typer.Option(
            "--prompts-file",
            metavar="FILE",
            help="File with your prompts, one per line; lines that begin with # are comments (\\# is the sign).",
        ),
    ],
    panel: Annotated[
        list[str],
        typer.Option(
            "--panel",
            metavar="NAME,...",
            help="Witnesses that score every image: referees by name, PRESET:NAME, FILE.yaml with a list `witnesses`, "
            "or {name: NAME, config: {...}}. Repeatable.",
        ),
    ],
    variant: Named = None,
    seeds: Seeds = "0",
    batch: Batch = 1,
    workers: Workers = 1,
    ray: RayAddress = None,
    quick: Annotated[bool, typer.Option("--quick", help="By default three variants.")] = False,
    plugins_dir: PluginsDir = None,
) -> None:
    """Run variants over your own prompts, scored by a panel of witnesses; nobody gives a verdict."""
    numbers, texts = parse_seeds(seeds), read_prompts(prompts_file)
    from refcore_bench.tasks.prompts import OWN, Prompts, listed
    from refcore_bench.witness_panel import read_panel

    task = Prompts(read_panel(panel, texts))
    _run(task, out, variant, listed(texts), OWN, numbers, batch, workers, quick, plugins_dir or [], ray)


@app.command("show")
def show(
    folder: Annotated[str, typer.Argument(metavar="DIR|URL", help="Results of a benchmark.")],
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables as Markdown.")] = False,
    json: Json = False,
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
    from refcore_bench.results import Results

    _refuse_both(markdown, json)
    for option, path in (("--html", html), ("--plot", plot), ("--grid", grid)):
        if path is not None:
            refuse_existing(path, option)
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
        output.echo_json(to_json(summary, indent=2))
    if markdown:
        from refcore_bench import tables, witnesses

        output.echo(tables.markdown([*tables.tables(summary), *witnesses.tables(results, against)]).removesuffix("\n"))


@app.command("compare")
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
    _refuse_both(markdown, json)
    from refcore_bench import comparison_tables, run_comparison, tables

    found = run_comparison.compare(run_comparison.read_runs(folders), evaluations)
    if json:
        output.echo_json(to_json(found, indent=2))
    elif markdown:
        output.echo(tables.markdown(comparison_tables.comparison_tables(found)).removesuffix("\n"))
    else:
        _print(comparison_tables.comparison_tables(found))
    if not json:
        for line in comparison_tables.remarks(found):
            output.echo(line)


def _refuse_both(markdown: bool, json: bool) -> None:
    if markdown and json:
        raise RefcoreError("both --markdown and --json were given; expected one of them")


def _run(
    task: Task,
    out: str,
    named: Sequence[str] | None,
    prompts: Sequence[TaskPrompt],
    source: int | str,
    seeds: Sequence[int],
    batch: int,
    workers: int,
    quick: bool,
    plugin_folders: Sequence[Path],
    ray: str | None = None,
) -> Results:
    from refcore_bench import running, variants
    from refcore_bench.executors.choice import chosen as executor_of
    from refcore_bench.extras import need

    need("polars")
    texts = named or (task.quick() if quick else task.names())
    chosen = [variants.variant_from_text(text, task) for text in texts]
    runs = [variant.settings if variant.method == "inversion" else None for variant in chosen]
    executor = executor_of(workers, ray, runs, min(batch, len(prompts)), plugin_folders, _print_progress)
    results = running.run(
        out, chosen, prompts, source, seeds, batch, progress=_print_progress, task=task, executor=executor
    )
    _print_tables(results, None, everything=False)
    output.echo(f"more: refcore bench show {out}; contact sheets in {results.storage}/sheets")
    return results


def _print_tables(results: Results, against: str | None, everything: bool) -> None:
    from refcore_bench import witnesses
    from refcore_bench.summary import summarise
    from refcore_bench.tables import tables

    _print(tables(summarise(results, against))[: None if everything else 1])
    if everything:
        _print(witnesses.tables(results, against))


def _print(found: Sequence[Table]) -> None:
    from rich.table import Table as RichTable

    console = output.stdout if output.stdout.is_terminal else output.console(width=WIDE)
    for table in found:
        columns, title = map(output.cell_text, table.columns), output.cell_text(table.title)
        shown = RichTable(*columns, title=title, title_justify="left", box=None, pad_edge=False)
        for row in table.rows:
            shown.add_row(*map(output.cell_text, row))
        console.print(shown)
        console.print(table.note + "\n" if table.note else "", markup=False)


def _print_progress(line: str) -> None:
    typer.echo(printable(line), err=True)
