"""`refcore sweep`: many variants of one config, on a grid or proposed by a search, and the best of them as YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from refcore.cli import output
from refcore.cli.options import Json, LocalPlugins, Overrides, PluginsDir
from refcore.errors import RefcoreError, printable, unknown
from refcore_bench.executors.options import RayAddress, Workers

if TYPE_CHECKING:
    from refcore_bench.sweep.axes import Axis
    from refcore_bench.sweep.plan import Sweep, Trial
    from refcore_bench.task import Task, TaskPrompt

COUNT, TRIALS, SHOWN = 12, 20, 10
"""Prompts of a task, trials of a search, and trials in the printed table, by default."""
SEARCHES = ("grid", "optuna")


def sweep(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A preset, or the path of a YAML config.")],
    out: Annotated[
        str,
        typer.Option(
            "--out",
            metavar="DIR|URL",
            help="Results folder, a path or such as s3://bucket/folder; a sweep is continued.",
        ),
    ],
    grid: Annotated[
        list[str] | None,
        typer.Option(
            "--grid", metavar="FIELD=V,V", help="Values of a field, as in referees.0.weight=0.5,1. Repeatable."
        ),
    ] = None,
    ranges: Annotated[
        list[str] | None,
        typer.Option(
            "--range",
            metavar="FIELD=LOW..HIGH",
            help="Numbers of a field, with --search; ,log spreads their logarithm, ,int takes whole ones. Repeatable.",
        ),
    ] = None,
    prompts_file: Annotated[
        Path | None, typer.Option("--prompts-file", metavar="FILE", help="File with your prompts, one per line.")
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", metavar="NAME", help="In place of your prompts those of playground, judged.")
    ] = None,
    count: Annotated[int, typer.Option("--count", min=1, help="Number of prompts of the task.")] = COUNT,
    seeds: Annotated[
        str, typer.Option("--seeds", metavar="0-3", help="Random seeds; one image per prompt and seed.")
    ] = ("0"),
    towards: Annotated[
        str | None,
        typer.Option(
            "--towards",
            metavar="NAME",
            help="What is best: a witness of the panel, loss (the referees' own), or verdict (of the task's judge).",
        ),
    ] = None,
    panel: Annotated[
        list[str] | None,
        typer.Option(
            "--panel",
            metavar="NAME,...",
            help="Witnesses that score every image, as of `refcore bench prompts`; by default the config's referees. "
            "Repeatable.",
        ),
    ] = None,
    search: Annotated[
        str, typer.Option("--search", metavar="grid|optuna", help="Every combination, or trials proposed by TPE.")
    ] = "grid",
    trials: Annotated[
        int | None, typer.Option("--trials", min=1, help=f"Trials of a search in all; by default {TRIALS}.")
    ] = None,
    search_seed: Annotated[int, typer.Option("--search-seed", min=0, help="Random seed of the search.")] = 0,
    prune: Annotated[
        bool, typer.Option("--prune/--no-prune", help="Stop trials of a search whose losses are worse than most.")
    ] = True,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Images made side by side.")] = 1,
    workers: Workers = 1,
    ray: RayAddress = None,
    overrides: Overrides = None,
    json: Json = False,
    plugins_dir: PluginsDir = None,
    local_plugins: LocalPlugins = False,
) -> None:
    """Vary fields of a config, on a grid or by a search, and write the best one as YAML.

    If interrupted, the same command continues. Tables and gallery: refcore bench show DIR.
    """
    if search not in SEARCHES:
        raise unknown("search", search, SEARCHES, "--search")
    if search == "grid" and (ranges or trials is not None):
        raise RefcoreError(f"{'--range' if ranges else '--trials'} was given without --search optuna, which takes it")
    if not grid and not ranges:
        raise RefcoreError("nothing varies; expected --grid FIELD=VALUE,VALUE, or --range with --search optuna")
    if (prompts_file is None) == (task is None):
        raise RefcoreError("expected either --prompts-file FILE or --task playground")
    planned = _planned(
        config, out, grid or [], ranges or [], prompts_file, task, count, seeds, towards, panel or [], batch,
        overrides or [], {"workers": workers, "ray": ray, "plugin_folders": plugins_dir or []},
    )  # fmt: skip
    if search == "grid":
        from refcore_bench.sweep import grid as by_grid

        found = by_grid.run(planned)
    else:
        from refcore_bench.sweep import search as by_search

        found = by_search.run(planned, trials or TRIALS, search_seed, prune)
    _tell(planned, found, json)


def _planned(
    config: str,
    out: str,
    grid: Sequence[str],
    ranges: Sequence[str],
    prompts_file: Path | None,
    task_name: str | None,
    count: int,
    seeds: str,
    towards: str | None,
    panel: Sequence[str],
    batch: int,
    overrides: Sequence[str],
    where: dict[str, Any],
) -> Sweep:
    """The sweep that the options ask for, checked as far as that takes no model."""
    from refcore.config.settings import override
    from refcore.prompts import parse_seeds
    from refcore_bench.executors.choice import chosen
    from refcore_bench.extras import need
    from refcore_bench.sweep import axes
    from refcore_bench.sweep.plan import Sweep, base_settings
    from refcore_bench.sweep.towards import towards as towards_of

    need("polars")
    numbers = parse_seeds(seeds)
    varied: list[axes.Axis] = [*map(axes.values_from_text, grid), *map(axes.range_from_text, ranges)]
    axes.refuse_twice(varied)
    settings = override(base_settings(config), overrides)
    task, prompts, source = _task(settings, prompts_file, task_name, count, panel, towards)
    return Sweep(
        out=out,
        settings=settings,
        axes=varied,
        task=task,
        prompts=prompts,
        source=source,
        seeds=numbers,
        towards=towards_of(towards, task),
        executor=chosen(
            **where, runs=_runs(settings, varied), images=min(batch, len(prompts)), progress=_print_progress
        ),
        batch=batch,
        progress=_print_progress,
    )


def _runs(settings: Mapping[str, Any], varied: Sequence[Axis]) -> list[Mapping[str, Any] | None]:
    """Settings of the sweep's largest runs; None for one that is not valid, whose size is unknown."""
    from refcore.config.run import RunConfig
    from refcore.config.settings import override
    from refcore_bench.sweep.axes import assignments, largest

    found: list[Mapping[str, Any] | None] = []
    for point in largest(varied):
        try:
            own = override(dict(settings), assignments(point))
            RunConfig.from_settings({**own, "prompts": [], "seeds": [0]})
        except RefcoreError:
            found.append(None)
        else:
            found.append(own)
    return found


def _task(
    settings: dict[str, Any],
    prompts_file: Path | None,
    name: str | None,
    count: int,
    panel: Sequence[str],
    towards: str | None,
) -> tuple[Task, list[TaskPrompt], int | str]:
    """The task with its prompts and their source."""
    if prompts_file is None:
        from refcore_bench.tasks import playground_prompts
        from refcore_bench.tasks.playground import PLAYGROUND

        if name != PLAYGROUND.name:
            raise unknown("task", str(name), [PLAYGROUND.name], "--task")
        if panel:
            raise RefcoreError("--panel was given, which goes with --prompts-file; the task has a panel of its own")
        seed = playground_prompts.TUNING_SEED  # settings are chosen on these, and reported on others
        return PLAYGROUND, playground_prompts.draw(count, seed, playground_prompts.BOTH, []), seed
    from refcore.config.run import RunConfig
    from refcore.engine.build import resolve
    from refcore.prompts import read_prompts
    from refcore_bench.scorers import judged
    from refcore_bench.sweep.towards import LOSS
    from refcore_bench.tasks.prompts import OWN, Prompts, listed
    from refcore_bench.witness_panel import read_panel

    texts = read_prompts(prompts_file)
    own = judged(resolve(RunConfig.from_settings({**settings, "prompts": [], "seeds": [0]})))
    if panel:
        own = read_panel(panel, texts)
    if towards not in (None, LOSS) and towards not in [entry["label"] for entry in own]:
        own = [*own, *read_panel([str(towards)], texts)]
    return Prompts(own), listed(texts), OWN


def _tell(sweep: Sweep, trials: Sequence[Trial], json: bool) -> None:
    from refcore_bench.sweep.plan import BEST, best_first

    ranked = best_first(trials, sweep.towards)
    if json:
        output.print_json({"towards": sweep.towards.name, "trials": [vars(trial) for trial in ranked]})
    else:
        _print(sweep, ranked)
    if not ranked or ranked[0].value is None:
        raise RefcoreError(
            f"none of {len(ranked)} trials is complete, so there is no {BEST}; the lines above say why; vary other "
            "values in another --out"
        )
    if not json:
        output.echo(f"the best: {sweep.out}/{BEST}; more: refcore bench show {sweep.out}")


def _print(sweep: Sweep, ranked: Sequence[Trial]) -> None:
    """Prints the best trials."""
    from refcore_bench.sweep.axes import assignments

    output.print_table(
        ["trial", "settings", sweep.towards.title],
        [
            (
                trial.name,
                ", ".join(assignments(trial.point)),
                trial.state if trial.value is None else f"{trial.value:.4g}",
            )
            for trial in ranked[:SHOWN]
        ],
    )
    if len(ranked) > SHOWN:
        output.echo(f"and {len(ranked) - SHOWN} more in {sweep.out}/sweep.json")


def _print_progress(line: str) -> None:
    typer.echo(printable(line), err=True)
