"""`refcore bench playground`, `natural` and `prompts`. The imports inside functions keep `--help` fast."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from refcore.cli.options import PluginsDir
from refcore.errors import unknown
from refcore.prompts import parse_seeds, read_prompts
from refcore_bench.commands.parts import Batch, Named, Out, Seeds, print_all, print_progress, run
from refcore_bench.executors.options import RayAddress, Workers

COUNT, QUICK_COUNT = 60, 6
QUICK_CLASSES = 3


def add(app: typer.Typer) -> None:
    """Adds the commands to `refcore bench`."""
    app.command("playground")(playground)
    app.command("natural")(natural)
    app.command("prompts")(prompts)


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
    run(task, out, variant, prompts, prompts_seed, numbers, batch, workers, quick, plugins_dir or [], ray)


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
    results = run(NATURAL, out, variant, prompts, classes, numbers, batch, workers, quick, plugins_dir or [], ray)
    several.measure(results, witnesses, print_progress)
    print_all(several.tables(results))


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
    run(task, out, variant, listed(texts), OWN, numbers, batch, workers, quick, plugins_dir or [], ray)
