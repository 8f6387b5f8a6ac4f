"""`refcore probe`: examines a referee before it takes part in a run. Imports inside functions keep `--help` fast."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from refcore.checkpoints import needed_by
from refcore.cli import output
from refcore.cli.options import Json, LocalPlugins, Overrides, PluginsDir
from refcore.errors import RefcoreError, printable, unknown

if TYPE_CHECKING:
    from refcore_bench.examinations.examination import Examination
    from refcore_bench.table import Table

probe = typer.Typer(help="Examine a referee before it takes part in a run.", no_args_is_help=True)
PLAYGROUND = "playground"
"""The default task: agreement with the truth, gradient, and cost."""
SCENES, PROMPTS, SEED = 24, 6, 0
Markdown = Annotated[bool, typer.Option("--markdown", help="Print the tables as Markdown.")]


@probe.command("referee")
def referee(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A referee; see `refcore plugins`.")],
    task: Annotated[
        str,
        typer.Option(
            "--task",
            metavar="TASK",
            help="playground (agreement with the truth, the images of its gradient, the cost of a view), winoground, "
            "hard-negatives, pick-a-pic, hpdv2 or bias.",
        ),
    ] = PLAYGROUND,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="FOLDER",
            help="The task's data, in their published layout; without it winoground, hard-negatives and bias draw "
            "scenes of the playground.",
        ),
    ] = None,
    scenes: Annotated[
        int | None,
        typer.Option("--scenes", min=2, help=f"Scenes that are drawn of each kind; by default {SCENES}."),
    ] = None,
    prompts: Annotated[
        int | None,
        typer.Option("--prompts", min=1, help=f"Prompts to make images of by its gradient; by default {PROMPTS}."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help=f"Random seed of scenes, prompts and start; by default {SEED}.")
    ] = None,
    count: Annotated[
        int | None,
        typer.Option("--count", min=1, help="Only the first examples of --data (of each kind or split)."),
    ] = None,
    words: Annotated[
        Path | None,
        typer.Option("--words", metavar="FILE", help="YAML file of attribute words, for the task bias with --data."),
    ] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", min=1, help="Pictures that it looks at side by side; by default 50.")
    ] = None,
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Keep the images (playground) or the rows (other tasks) here."),
    ] = None,
    json: Json = False,
    markdown: Markdown = False,
    plugins_dir: PluginsDir = None,
    local_plugins: LocalPlugins = False,
) -> None:
    """Examine a referee: on the playground, the cost of a view included, or on a task of the field."""
    _refuse_both(markdown, json)
    if task == PLAYGROUND:
        _refuse(task, "the playground is drawn", {"--data": data, "--count": count, "--words": words, "--batch": batch})
        _playground(name, scenes or SCENES, prompts or PROMPTS, seed or SEED, overrides or [], out, json, markdown)
        return
    from refcore_bench import examinations

    if task not in examinations.TASKS:
        raise unknown("task", task, [PLAYGROUND, *examinations.TASKS], "--task")
    _refuse(task, "the task makes no images", {"--prompts": prompts})
    if data is None:
        _refuse(task, "only --data has such", {"--count": count, "--words": words})
    else:
        _refuse(task, "with --data nothing is drawn", {"--scenes": scenes, "--seed": seed})
    found = examinations.get(task)
    if "words" not in found.options:
        _refuse(task, "it has no attribute words", {"--words": words})
    from refcore_bench.examinations.examination import examine, refuse_settings_of_a_run
    from refcore_bench.examinations.examinee import BATCH
    from refcore_bench.examinations.probe import run_of
    from refcore_bench.examinations.task import Asked

    refuse_settings_of_a_run(overrides or [], task)
    asked = Asked(scenes or SCENES, seed or SEED, count, words)
    with needed_by(None):
        made = examine(run_of(name, overrides or []), found, asked, data, out, batch or BATCH, _print_progress)
    for warning in made.facts["warnings"][:3]:
        output.warn(warning)
    if (more := len(made.facts["warnings"]) - 3) > 0:
        output.warn(f"and {more} more captions")
    _print_examination(made, json, markdown)


@probe.command("show")
def show(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that --out of an examination has written.")],
    json: Json = False,
    markdown: Markdown = False,
) -> None:
    """Show an examination again, its figures computed anew from its rows."""
    _refuse_both(markdown, json)
    from refcore_bench.examinations.examination import Examination

    _print_examination(Examination.stored(folder), json, markdown)


def _playground(
    name: str,
    scenes: int,
    prompts: int,
    seed: int,
    overrides: Sequence[str],
    out: Path | None,
    json: bool,
    markdown: bool,
) -> None:
    from refcore_bench.examinations import probe as probing
    from refcore_bench.examinations.probe_tables import tables

    with needed_by(None):
        report = probing.probe(probing.run_of(name, overrides), scenes, prompts, seed, out)
    if json:
        output.print_json(report.to_dict())
    else:
        _print(f"referee {report.referee}, on the playground", tables(report), markdown)


def _print_examination(made: Examination, json: bool, markdown: bool) -> None:
    from refcore.runs.rundir import to_json

    if json:
        output.echo_json(to_json(made.to_dict(), indent=2))
        return
    _print(made.heading(), made.tables(), markdown)
    if made.facts["data"] is not None:
        output.echo(made.facts["origin"])


def _print(heading: str, found: Sequence[Table], markdown: bool) -> None:
    if markdown:
        from refcore_bench.table import markdown as as_markdown

        output.echo(f"{heading}\n\n{as_markdown(found)}".removesuffix("\n"))
        return
    output.stdout.print(heading, markup=False)
    for table in found:
        output.stdout.print(f"\n[bold]{output.cell_text(table.title)}[/]")
        output.print_table(table.columns, table.rows)
        if table.note:
            output.stdout.print(table.note, markup=False)


def _refuse(task: str, why: str, given: dict[str, Any]) -> None:
    """Refuses options that say nothing to a task."""
    for option, value in given.items():
        if value is not None:
            raise RefcoreError(f'{option} {value} says nothing to the task "{task}": {why}; leave it out')


def _refuse_both(markdown: bool, json: bool) -> None:
    if markdown and json:
        raise RefcoreError("both --markdown and --json were given; expected one of them")


def _print_progress(done: int) -> None:
    typer.echo(printable(f"{done:,} examples"), err=True)
