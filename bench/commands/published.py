"""`refcore bench t2i-compbench` and its like, and `score`. The imports inside functions keep `--help` fast."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from refcore.cli.options import PluginsDir
from refcore.errors import RefcoreError
from refcore.prompts import parse_seeds
from refcore_bench.commands.parts import Batch, Out, finish, print_progress, run
from refcore_bench.executors.options import RayAddress, Workers

if TYPE_CHECKING:
    from refcore_bench.published.task import PublishedTask
    from refcore_bench.storing.results import Results
    from refcore_bench.task import TaskPrompt

BENCHMARKS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "t2i-compbench": "T2I-CompBench++: eight categories of 300 prompts, each with its own metric.",
        "geneval": "GenEval: 553 prompts, right or wrong by a detector's boxes and colours.",
        "geneval2": "GenEval 2: 800 prompts by Soft-TIFA. Non-commercial data: name their folder with --prompts.",
        "dpg-bench": "DPG-Bench: 1,065 dense prompts, each with questions.",
        "genai-bench": "GenAI-Bench: 1,600 prompts by VQAScore, and their skills.",
        "genai-bench-527": "GenAI-Bench: the 527 prompts of the VQAScore paper.",
    }
)
"""Command -> what it runs."""

Variants = Annotated[
    list[str] | None,
    typer.Option(
        "--variant",
        metavar="NAME|NAME=SOURCE,field=value",
        help="A baseline or preset, or a name for one (or for a YAML config, or diffusers:MODEL) with overrides. "
        "Repeatable; at least one without --quick. The others are compared with the first.",
    ),
]
Prompts = Annotated[
    Path | None,
    typer.Option(
        "--prompts",
        metavar="FOLDER",
        help="Folder with the public files; by default they are downloaded once.",
    ),
]
Category = Annotated[
    list[str] | None, typer.Option("--category", metavar="NAME", help="Only this category. Repeatable.")
]
PerCategory = Annotated[
    int | None, typer.Option("--per-category", min=1, help="Only the first so many prompts of each category.")
]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metric",
        metavar="NAME,field=value",
        help="Settings of one of the benchmark's metrics, such as blip-vqa,model=/models/blip; or a further metric, "
        "which measures every image. Repeatable.",
    ),
]
Device = Annotated[str, typer.Option("--device", help="Device of the metrics: auto, cpu, cuda, cuda:1, mps.")]


def add(app: typer.Typer) -> None:
    """Adds the commands to `refcore bench`."""
    for name, summary in BENCHMARKS.items():
        app.command(name, help=f"{summary} If interrupted, the same command continues.")(_command(name))
    app.command("score")(score)


def _command(name: str) -> Callable[..., None]:
    def command(
        out: Out,
        variant: Variants = None,
        prompts: Prompts = None,
        category: Category = None,
        per_category: PerCategory = None,
        seeds: Annotated[
            str, typer.Option("--seeds", metavar="42-51", help="Random seeds; by default those of the publication.")
        ] = "",
        metric: Metrics = None,
        measure: Annotated[
            bool, typer.Option("--measure/--no-measure", help="Measure the images, or only make them.")
        ] = True,
        device: Device = "auto",
        batch: Batch = 1,
        workers: Workers = 1,
        ray: RayAddress = None,
        quick: Annotated[
            bool,
            typer.Option(
                "--quick", help="The whole path in two minutes, on small checkpoints: the numbers mean nothing."
            ),
        ] = False,
        plugins_dir: PluginsDir = None,
    ) -> None:
        from refcore_bench.published import measuring
        from refcore_bench.published.task import SMALL, only

        task, overrides = _task(name), measuring.uses(metric or [])
        if quick:
            given = {"--prompts": prompts, "--category": category, "--per-category": per_category}
            if told := [option for option, value in given.items() if value]:
                raise RefcoreError(f"--quick has prompts of its own; leave out {' and '.join(told)}")
            from refcore_bench.published.small_checkpoints import overrides as small

            overrides = {**small(task, out), **overrides}
            chosen, source, seeds = list(task.quick_prompts), SMALL, seeds or "0"
            named: Sequence[str] = variant or task.quick()
        else:
            if not variant:
                raise RefcoreError(
                    "--variant is missing; name at least one, such as --variant vlminv or "
                    "--variant sd15=diffusers:stable-diffusion-v1-5/stable-diffusion-v1-5,steps=50,guidance=7.5"
                )
            named, chosen = variant, only(task.prompts(prompts), category or [], per_category)
            source = chosen[0].split
        numbers = parse_seeds(seeds or task.seeds)
        if measure:  # refused before hours of work
            measuring.prepared(task, [one.to_dict() | {"facts": one.facts} for one in chosen], overrides, device)
        folders = plugins_dir or []
        results = run(task, out, named, chosen, source, numbers, batch, workers, quick, folders, ray, show=False)
        if measure:
            _measure(results, overrides, device, workers, ray, folders)

    command.__doc__ = BENCHMARKS[name]
    return command


def score(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Images that were made elsewhere.")],
    task: Annotated[str, typer.Option("--task", metavar="NAME", help=f"One of {', '.join(BENCHMARKS)}.")],
    out: Out,
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the images in the tables; by default the folder's.")
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(
            "--csv",
            metavar="FILE",
            help="Table with the columns file and prompt, and perhaps category and seed, instead of the file names of "
            "the benchmark's public code.",
        ),
    ] = None,
    prompts: Prompts = None,
    category: Category = None,
    per_category: PerCategory = None,
    metric: Metrics = None,
    device: Device = "auto",
    workers: Workers = 1,
    ray: RayAddress = None,
    plugins_dir: PluginsDir = None,
) -> None:
    """Measure images made elsewhere, by a published benchmark. If interrupted, the same command continues."""
    from refcore_bench.extras import need
    from refcore_bench.published.made_elsewhere import take_in
    from refcore_bench.published.measuring import prepared, uses
    from refcore_bench.published.task import only

    need("polars")
    found, overrides = _task(task), uses(metric or [])
    every = found.prompts(prompts)
    chosen = only(every, category or [], per_category)

    def check(asked: Sequence[TaskPrompt]) -> None:  # refused before the images are copied
        prepared(found, [one.to_dict() | {"facts": one.facts} for one in asked], overrides, device)

    results = take_in(
        out, folder, csv, name or folder.resolve().name, found, every, print_progress, chosen=chosen, check=check
    )
    _measure(results, overrides, device, workers, ray, plugins_dir or [])


def _measure(
    results: Results,
    overrides: Mapping[str, Mapping[str, Any]],
    device: str,
    workers: int,
    ray: str | None,
    plugin_folders: Sequence[Path],
) -> None:
    from refcore_bench.executors.choice import chosen
    from refcore_bench.published import measuring

    executor = chosen(workers, ray, [None], measuring.CHUNK, plugin_folders, print_progress)
    measuring.measure(results, overrides, print_progress, device, executor)
    finish(results)


def _task(name: str) -> PublishedTask:
    from refcore.errors import unknown
    from refcore_bench import tasks
    from refcore_bench.published.task import PublishedTask

    if name not in BENCHMARKS:
        raise unknown("published benchmark", name, BENCHMARKS, "--task")
    found = tasks.get(name)
    assert isinstance(found, PublishedTask), "a published benchmark"
    return found
