"""The study of docs/results/systems.md: neighbouring systems in the embedded world, at equal cost.

    python studies/systems.py                    # the table from the committed studies/rows/systems
    python studies/systems.py --from DIR         # first imports the results in DIR, as rows and as one strip
    python studies/systems.py --measure          # before that, makes the images that runs/systems lacks
    python studies/systems.py --calibrate        # finds the steps of each budget, on tuning prompts
    python studies/systems.py --pictures         # CLIPasso, of the world's own pictures of the prompts
    python studies/systems.py --memory           # counts the memory of the published presets, without weights

A system is its preset `playground-NAME` with as many steps as a budget allows, alone: without the choice among several
candidates or tries, unless that is the system's own. What a budget's steps are is in studies/systems.yaml.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import figures
import torch
import yaml
from page import DOCS, ROWS, fill, import_results

from refcore import Models, images
from refcore.config import presets
from refcore.diagnostics import footprint
from refcore.engine.inversion import Inversion
from refcore_bench import running, variants
from refcore_bench.evaluations import counting
from refcore_bench.making import make
from refcore_bench.statistics.intervals import rate
from refcore_bench.storing.results import Results
from refcore_bench.task import Task
from refcore_bench.tasks.playground import BLIND, PLAYGROUND
from refcore_bench.tasks.playground_prompts import draw
from refcore_bench.variants import Variant
from refcore_playground.draw import draw_scene
from refcore_playground.grammar import parse
from refcore_playground.judge import judge
from refcore_playground.render import render_batch

RESULT, WORK = ROWS / "systems", Path("runs/systems")
STEPS = Path(__file__).with_suffix(".yaml")
CLIPASSO = {"evaluations": 187, "seconds": 75}
"""Budget -> steps of `playground-clipasso`, of eight evaluations each."""
MEMORY, PICTURES = RESULT / "memory.json", RESULT / "pictures.json"
PAGE = DOCS / "results/systems.md"
SEED, COUNT, BATCH = 2036, 12, 12
"""Of the prompts, on which nothing was chosen."""
TASKS = {"told": PLAYGROUND, "blind": BLIND}
BUDGETS = {"evaluations": 1500.0, "seconds": 6.0}
"""Of an image, in batches of 12 on one core."""
ONE = "candidates={count: 1}"


@dataclass(frozen=True)
class System:
    """A row of the table."""

    title: str
    paper: str
    """arXiv number, or an address."""
    preset: str
    """With the published values."""
    source: str
    """The variant in the playground, but for its steps."""
    test: str
    """Name of the test of its equations, below tests/."""
    hears: str = "both"
    """What is told the prompt in it. both: referees and a generator or prior. referees: these alone, so that both tasks
    are the same. prior: it alone, so that it has nothing to say in the blind task."""


ALONE = "exactness/test_systems_without_a_generator.py"
SYSTEMS = {
    "vlminv": System(
        "VLMinv", "2402.16305", "vlminv",
        f"playground-blind,{ONE},priors.0.prompt='{{prompt}}',priors.0.config.guidance=7.5",
        "exactness/test_paper_update.py",
    ),
    "reno": System("ReNO", "2406.04312", "reno", "playground-reno", "exactness/test_systems.py"),
    "carinox": System("CARINOX", "2509.17458", "carinox", "playground-carinox", "exactness/test_systems.py"),
    "gper": System("GPER", "2602.08646", "gper", "playground-gper", "exactness/test_systems.py"),
    "das": System("DAS", "2502.07753", "das", "playground-das", "exactness/test_systems_das.py", hears="referees"),
    "implicit-inversion": System(
        "CLIP^-1", "2505.23161", "implicit-inversion", "playground-implicit-inversion",
        ALONE, hears="referees",
    ),
    "vqgan-clip": System(
        "VQGAN+CLIP", "2204.08583", "vqgan-clip", "playground-vqgan-clip", ALONE, hears="referees"
    ),
    "dreamfusion-2d": System(
        "DreamFusion in 2D", "2209.14988", "dreamfusion-2d", "playground-dreamfusion-2d",
        "exactness/test_systems_das.py", hears="prior",
    ),
    "sdi-2d": System(
        "SDI", "2405.15891", "sdi-2d", "playground-sdi-2d", "exactness/test_systems_das.py", hears="prior"
    ),
    "deep-daze": System(
        "deep-daze", "github.com/lucidrains/deep-daze", "deep-daze", f"playground-deep-daze,{ONE}",
        ALONE, hears="referees",
    ),
    "clipdraw": System(
        "CLIPDraw", "2106.14843", "clipdraw", f"playground-clipdraw,{ONE}", ALONE, hears="referees"
    ),
    "doodl": System("DOODL", "2303.13703", "doodl", "playground-doodl", "exactness/test_systems_of_many_steps.py"),
    "dno": System("DNO", "2405.18881", "dno", "playground-dno", "exactness/test_systems_of_many_steps.py"),
}  # fmt: skip
"""Name -> system. CLIPasso draws pictures, not prompts: docs/strokes.md."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="source", type=Path, metavar="DIR", help="import the results in this folder")
    parser.add_argument("--measure", action="store_true", help="first make what the folder lacks")
    parser.add_argument("--calibrate", action="store_true", help="find the steps that a budget allows")
    parser.add_argument("--pictures", action="store_true", help="let CLIPasso draw the world's own pictures")
    parser.add_argument("--memory", action="store_true", help="count the memory of the published presets")
    parser.add_argument("--only", nargs="*", default=list(SYSTEMS), choices=SYSTEMS, help="these systems")
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread each")
    given = parser.parse_args()
    if given.calibrate:
        for name in given.only:
            calibrate(name)
        return
    if given.pictures:
        PICTURES.parent.mkdir(parents=True, exist_ok=True)
        PICTURES.write_text(json.dumps(drawings(), indent=1) + "\n")
    if given.memory:
        found = {name: gigabytes(SYSTEMS[name].preset) for name in given.only} | {"clipasso": gigabytes("clipasso")}
        MEMORY.write_text(json.dumps(found, indent=1) + "\n")
    folder = given.source or WORK
    if given.measure:
        measure(folder, given.only, given.workers)
    if given.measure or given.source:
        for part in (f"{task}-{budget}" for task in TASKS for budget in BUDGETS):
            import_results(folder / part, RESULT / part)
        strip(folder)
    fill(PAGE, Path(__file__).name, parts())
    print(f"wrote {PAGE.relative_to(DOCS.parent)}")


def drawings() -> list[dict[str, Any]]:
    """What CLIPasso makes of a picture of each prompt, at each budget: the prompt, its verdict, steps and cost."""
    found = []
    with TemporaryDirectory() as folder, Models() as models:
        for number, one in enumerate(draw(COUNT, SEED)):
            scene = torch.from_numpy(render_batch([draw_scene(parse(one.prompt), random.Random(number))]))
            picture = Path(folder) / f"{number}.png"
            picture.write_bytes(images.png(images.levels(scene[0])))
            for budget, steps in CLIPASSO.items():
                config = presets.compose(
                    "playground-clipasso", None, [ONE, f"steps={steps}", f"referees.0.config.reference={picture}"],
                    prompts=[one.prompt], seeds=[0],
                )  # fmt: skip
                inversion = Inversion(config, models=models)
                began = time.perf_counter()
                with counting() as tally:
                    tally.watch(inversion.engine)
                    for _ in inversion:
                        pass
                drawn = images.levels(inversion.images()[0])
                found.append({
                    "prompt": one.prompt, "budget": budget, "steps": steps,
                    "verdict": judge(drawn, one.prompt).verdict,
                    "seconds": time.perf_counter() - began, "model_evaluations": sum(tally.values()),
                })  # fmt: skip
                print(found[-1], flush=True)
    return found


def gigabytes(preset: str) -> dict[str, Any]:
    """What one image needs at least at its true size, with and without offloading, one view judged at a time."""
    found = footprint.parts(presets.compose(preset, prompts=["a cat"]))
    whole, offloaded = (footprint.need(found, offload) for offload in (False, True))
    return {"whole": whole.most / 1e9, "offload": offloaded.most / 1e9, "unknown": list(whole.unknown)}


def parts() -> dict[str, str]:
    """The generated parts of the page."""
    return {"table": table()}


def steps() -> dict[str, dict[str, int]]:
    """System -> budget -> steps."""
    found: dict[str, dict[str, int]] = yaml.safe_load(STEPS.read_text()) if STEPS.exists() else {}
    return found


def arm(name: str, task: Task, steps: int, label: str = "") -> Variant:
    """The variant of a system with so many steps."""
    return variants.variant_from_text(f"{label or name}={SYSTEMS[name].source},steps={steps}", task)


def calibrate(name: str) -> None:
    """Finds how many steps of a system a budget allows, from two short batches of tuning prompts."""
    prompts = [one.prompt for one in draw(BATCH, PLAYGROUND.tuning_seed)]
    few, many = 3, 9
    costs = []
    for number in (few, many):
        made = make(arm(name, PLAYGROUND, number), prompts, 0)
        costs.append({"seconds": made.seconds, "evaluations": sum(made.evaluations.values())})
    own = {}
    for budget, allowed in BUDGETS.items():
        step = (costs[1][budget] - costs[0][budget]) / (many - few)
        start = costs[0][budget] - few * step
        own[budget] = max(1, math.floor((allowed - start) / step))
    STEPS.write_text(yaml.safe_dump({**steps(), name: own}, sort_keys=True))
    print(name, own, {b: [round(c[b], 2) for c in costs] for b in BUDGETS}, flush=True)


def measure(folder: Path, names: list[str], workers: int) -> None:
    """Makes the images that the folder lacks."""
    for kind, task in TASKS.items():
        for budget in BUDGETS:
            own = [name for name in names if kind == "told" or SYSTEMS[name].hears == "both"]
            chosen = [arm(name, task, steps()[name][budget]) for name in own]
            running.run(
                folder / f"{kind}-{budget}", chosen, draw(COUNT, SEED), SEED, batch=BATCH, workers=workers, task=task,
                progress=lambda line: print(line, flush=True),
            )  # fmt: skip


def table() -> str:
    """A row for each system that has been measured."""
    found = {part: Results.existing(RESULT / part).rows() for part in (f"{t}-{b}" for t in TASKS for b in BUDGETS)}
    memory: dict[str, dict[str, Any]] = json.loads(MEMORY.read_text()) if MEMORY.exists() else {}
    lines = [
        "| system | preset | equations | told, equal evaluations | told, equal seconds | blind, equal evaluations "
        "| blind, equal seconds | steps | evaluations | seconds | true size |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, system in SYSTEMS.items():
        own = {part: rows.filter(rows["variant"] == name) for part, rows in found.items()}
        if any(own[f"told-{budget}"].is_empty() for budget in BUDGETS):
            continue
        without = {"referees": "the same", "prior": "-"}.get(system.hears, "")
        said = " | ".join(without if part.startswith("blind") and without else share(own[part]) for part in own)
        sister = system.source.partition(",")[0]
        steps_of = " / ".join(str(steps()[name][budget]) for budget in BUDGETS)
        evaluations = " / ".join(f"{own[f'told-{budget}']['model_evaluations'].mean():,.0f}" for budget in BUDGETS)
        seconds = " / ".join(f"{own[f'told-{budget}']['seconds'].mean():.1f}" for budget in BUDGETS)
        own_memory = memory.get(name, {})
        size = f"{own_memory['whole']:.1f} / {own_memory['offload']:.1f} GB" if own_memory else ""
        size += f", without {', '.join(own_memory['unknown'])}" if own_memory.get("unknown") else ""
        where = f"https://arxiv.org/abs/{system.paper}" if system.paper[0].isdigit() else f"https://{system.paper}"
        lines.append(
            f"| [{system.title}]({where}) | `{system.preset}`, `{sister}` | `{system.test}` | {said} "
            f"| {steps_of} | {evaluations} | {seconds} | {size} |"
        )
    lines.append(clipasso())
    return "\n".join(lines)


def clipasso() -> str:
    """CLIPasso's row: it draws a picture, and the judge asks its prompt of what it has drawn."""
    rows = json.loads(PICTURES.read_text())
    by = {budget: [row for row in rows if row["budget"] == budget] for budget in BUDGETS}
    said = " | ".join(of([row["verdict"] for row in by[budget]]) for budget in BUDGETS)
    cost = [
        " / ".join(f"{sum(row[field] for row in by[budget]) / len(by[budget]):{form}}" for budget in BUDGETS)
        for field, form in (("steps", ".0f"), ("model_evaluations", ",.0f"), ("seconds", ".1f"))
    ]
    memory = json.loads(MEMORY.read_text())["clipasso"]
    return (
        "| [CLIPasso](https://arxiv.org/abs/2202.05822), told a picture | `clipasso`, `playground-clipasso` "
        f"| `plugins/referees/test_image_layers.py` | {said} | - | - | {' | '.join(cost)} "
        f"| {memory['whole']:.1f} / {memory['offload']:.1f} GB |"
    )


def share(rows: Any) -> str:
    """`right of all (interval)`."""
    return of(rows["verdict"].to_list())


def of(verdicts: list[bool]) -> str:
    """`right of all (interval)`."""
    found = rate(verdicts)
    return f"{sum(verdicts)} of {len(verdicts)} ({100 * found.low:.0f} to {100 * found.high:.0f} %)"


def strip(folder: Path) -> None:
    """Draws the first six prompts, and what each system makes of them at equal evaluations, told and blind."""
    for kind in TASKS:
        rows = Results.existing(folder / f"{kind}-evaluations").rows(images=True)
        prompts = list(dict.fromkeys(rows["prompt"]))[:6]
        measured = [name for name in SYSTEMS if name in set(rows["variant"])]
        shown = {
            (row["prompt"], row["variant"]): row
            for prompt in prompts
            for row in rows.iter_rows(named=True)
            if row["prompt"] == prompt
        }
        figures.strip(shown, measured, DOCS / f"images/systems-{kind}.png")


if __name__ == "__main__":
    main()
