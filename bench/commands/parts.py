"""What the commands of `refcore bench` share: options, running a task, and printing its tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from refcore.cli import output
from refcore.errors import printable

if TYPE_CHECKING:
    from refcore_bench.storing.results import Results
    from refcore_bench.table import Table
    from refcore_bench.task import Task, TaskPrompt

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
        help="A baseline or preset, or a name for one (or for a YAML config, or diffusers:MODEL) with overrides. "
        "Repeatable; by default the benchmark's preset and all its baselines.",
    ),
]
Seeds = Annotated[str, typer.Option("--seeds", metavar="0,1", help="Random seeds; one image per prompt and seed.")]
Batch = Annotated[int, typer.Option("--batch", min=1, help="Images made side by side.")]


def run(
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
    show: bool = True,
) -> Results:
    """Runs variants of a task; prints the first table unless `show` is false."""
    from refcore_bench import running, variants
    from refcore_bench.executors.choice import chosen as executor_of
    from refcore_bench.extras import need

    need("polars")
    texts = named or (task.quick() if quick else task.names())
    chosen = [variants.variant_from_text(text, task) for text in texts]
    runs = [variant.settings if variant.method == "inversion" else None for variant in chosen]
    executor = executor_of(workers, ray, runs, min(batch, len(prompts)), plugin_folders, print_progress)
    results = running.run(
        out, chosen, prompts, source, seeds, batch, progress=print_progress, task=task, executor=executor
    )
    if show:
        finish(results)
    return results


def finish(results: Results) -> None:
    """Writes the folder's card, and prints the first table."""
    from refcore_bench.showing.card import write_card

    write_card(results)
    print_first(results)


def print_first(results: Results) -> None:
    """The most important table, and where the others are."""
    print_tables(results, None, everything=False)
    output.echo(f"more: refcore bench show {results.storage}; contact sheets in {results.storage}/sheets")


def print_tables(results: Results, against: str | None, everything: bool) -> None:
    from refcore_bench import witnesses
    from refcore_bench.showing.summary import summarise
    from refcore_bench.showing.tables import tables

    print_all(tables(summarise(results, against))[: None if everything else 1])
    if everything:
        print_all(witnesses.tables(results, against))


def print_all(found: Sequence[Table]) -> None:
    from rich.table import Table as RichTable

    console = output.stdout if output.stdout.is_terminal else output.console(width=WIDE)
    for table in found:
        columns, title = map(output.cell_text, table.columns), output.cell_text(table.title)
        shown = RichTable(*columns, title=title, title_justify="left", box=None, pad_edge=False)
        for row in table.rows:
            shown.add_row(*map(output.cell_text, row))
        console.print(shown)
        console.print(table.note + "\n" if table.note else "", markup=False)


def print_progress(line: str) -> None:
    typer.echo(printable(line), err=True)
