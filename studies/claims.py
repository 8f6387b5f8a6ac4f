"""The studies of docs/results (views, referees, sds, combiners, priors): the paper's claims where the truth is known.

    python studies/claims.py STUDY              # tables and chart from the committed studies/rows/claims/STUDY
    python studies/claims.py STUDY --from DIR   # first imports the images in DIR, as rows and as one strip
    python studies/claims.py STUDY --measure    # before that, makes the images that DIR lacks

STUDY is a page (the prior told the prompt), or PAGE-blind, the part of the page where the prior is told nothing. All
studies of a task share one folder, runs/claims or runs/claims-blind: a variant's name there is its definition's hash,
and it is measured once.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import figures
import polars
from page import DOCS, ROWS, fill

from refcore.config import presets
from refcore.config.run import RunConfig
from refcore.runs import rundir
from refcore_bench import running, variants
from refcore_bench.showing.summary import summarise
from refcore_bench.showing.tables import tables
from refcore_bench.storing.results import RESULTS, Results
from refcore_bench.table import markdown
from refcore_bench.task import Task
from refcore_bench.tasks.playground import BLIND, PLAYGROUND
from refcore_bench.tasks.playground_prompts import draw
from refcore_bench.variants import Variant

RESULT = ROWS / "claims"
SUFFIX = "-blind"
"""Ends the name of a study with the blind prior."""
IMAGES = DOCS / "images"
WORK = {PLAYGROUND: Path("runs/claims"), BLIND: Path("runs/claims-blind")}
SEED = {PLAYGROUND: 2029, BLIND: 2035}
"""Seeds of the prompts, used by these studies alone; nothing was chosen on them."""
COUNT = 24
BATCH = 12

NOISE = "candidates={count: 1},init=null,optimizer.lr=0.5,optimizer.warmup=5"
"""Start from noise: a sample would be the prior's picture, whatever is studied. Noise needs more and larger steps than
the preset, which starts from samples."""
BASE = f"{NOISE},steps=60,views.main.count=2"
"""Everything else is the preset's: its three referees, SDS at guidance scale 7.5, balanced norms."""
ONE = f"{NOISE},steps=30"
"""Fewer steps for the page of views, which has many arms and one referee, the paper's."""
WIDE = (
    "padding: border, augment: [{name: affine, config: {degrees: 15.0, translate: 0.15}}, "
    "{name: perspective, config: {distortion: 0.2, p: 0.4}}, {name: gaussian_noise, config: {std: [0.0, 0.2]}}]"
)
"""Views that differ about as much as the paper's; the preset's hardly differ."""
FALLING = "{kind: linear, start: 4.0, end: 1.0}"
"""Schedule of the balance factor in the preset `playground-blind`."""
SILENT = "guidance: 0, anneal: 110"
"""Settings of a distillation that is told nothing, the preset's."""
BLIND_BASE = "candidates={count: 1}"
"""Of the preset `playground-blind`, everything but its choice among candidates and its further tries."""
PIXELS = f"{ONE},canvas={{name: pixel}},size=64,priors=[],combine={{name: sum}}"


def _views(count: int) -> str:
    """A view group; with 0 views, the image as it is."""
    return f"views.main={{count: {count}, {WIDE}}}" if count else "views.main={count: 1}"


def _referees(*labels: str) -> str:
    """The preset with a subset of its referees."""
    settings = presets.get(presets.DEFAULT).settings
    terms = dict(zip(RunConfig.from_settings(settings).referee_labels, settings["referees"], strict=True))
    return f"playground,{BASE},referees={json.dumps([terms[label] for label in labels])}"


def _distilled(name: str, config: str = "") -> str:
    """Another distillation of the same diffusion model, balanced like SDS."""
    return f"playground,{BASE},priors=[{{name: {name}, config: {{model: 'playground:diffusion', {config}}}}}]"


def _weighted(name: str, weight: float) -> str:
    """A simple prior in a plain sum: the balance would give it twice the referees' norm and wipe the picture out.

    Weights 0.3, 3, 30 (tv: also 100; gaussian: 0.001, 0.01, 0.1, 1) were tried on three tuning prompts.
    """
    return f"playground,{BASE},priors=[{{name: {name}, weight: {weight:g}}}],combine={{name: sum}}"


def _blind(*overrides: str, source: str = BLIND.name) -> str:
    """A variant of the blind task, without a choice among candidates."""
    return ",".join([source, BLIND_BASE, *overrides])


def _blind_views(count: int) -> str:
    """The number of views a step; with 0 the picture as it is."""
    return f"views.main.count={count}" if count else "views.main={count: 1}"


@dataclass(frozen=True)
class Claim:
    """A page, or its part with the blind prior: the arms, and the arm to compare the others with."""

    arms: dict[str, str]
    """Name -> recipe, as in `--variant NAME=RECIPE`."""
    against: str
    task: Task = PLAYGROUND
    count: int = COUNT
    """Number of prompts."""
    shown: int = 6
    """Prompts in the strip, each the first of its category."""
    along: str | None = None
    """Name of the chart's axis for arms called SERIES-N, with N along it; None for a chart with an arm per row. Each
    series is compared with its own arm that has the same N as `against`."""

    def comparisons(self) -> dict[str, list[str]]:
        """Arm -> the arms compared with it."""
        if not self.along:
            return {self.against: list(self.arms)}
        n = self.against.rpartition("-")[2]
        series = dict.fromkeys(name.rpartition("-")[0] for name in self.arms)
        return {f"{s}-{n}": [name for name in self.arms if name.rpartition("-")[0] == s] for s in series}


CLAIMS = {
    "views": Claim(
        {
            **{f"prior-{n}": f"blip2-alone,{ONE},{_views(n)}" for n in (0, 1, 4, 10, 15, 30)},
            **{f"latents-{n}": f"blip2-alone,{ONE},{_views(n)},priors.0.weight=0" for n in (0, 1, 4, 10, 15, 30)},
            **{f"pixels-{n}": f"blip2-alone,{PIXELS},{_views(n)}" for n in (0, 4, 15)},
        },
        "prior-0",
        shown=3,
        along="views",
    ),
    "referees": Claim(
        {
            "none": f"sds-alone,{BASE}",
            "clip": _referees("clip"),
            "blip2": _referees("blip2"),
            "owlv2": _referees("owlv2"),
            "clip+blip2": _referees("clip", "blip2"),
            "clip+owlv2": _referees("clip", "owlv2"),
            "blip2+owlv2": _referees("blip2", "owlv2"),
            "clip+blip2+owlv2": f"playground,{BASE}",
        },
        "clip+blip2+owlv2",
    ),
    "sds": Claim(
        {
            "sampling-7.5": "sampling-7.5",
            "sampling-30": "sampling-30",
            "sds-7.5": f"sds-alone,{BASE}",
            "sds-30": f"sds-alone,{BASE},priors.0.config.guidance=30",
            "sds-7.5-long": f"sds-alone,{BASE},steps=240",
            "sds-30-long": f"sds-alone,{BASE},steps=240,priors.0.config.guidance=30",
            "referees": f"playground,{BASE},priors.0.weight=0",
            "both-7.5": f"playground,{BASE}",
            "both-30": f"playground,{BASE},priors.0.config.guidance=30",
        },
        "both-7.5",
    ),
    "combiners": Claim(
        {
            "norm_balance": f"playground,{BASE}",
            **{
                f"sum-{weight}": f"playground,{BASE},combine={{name: sum}},priors.0.weight={weight}"
                for weight in (1, 10, 100)
            },
            **{
                name: f"playground,{BASE},combine={{name: {name}}}"
                for name in ("pcgrad", "mgda", "upgrad", "cagrad", "imtl_g", "nash_mtl")
            },
        },
        "norm_balance",
    ),
    "priors": Claim(
        {
            "sds": f"playground,{BASE}",
            "csd": _distilled("csd"),
            "nfsd": _distilled("nfsd"),
            "sdi": _distilled("sdi", "anneal: 60, inversion_steps: 5"),
            "vsd": _distilled("vsd"),
            "tv": _weighted("tv", 100),
            "l2": _weighted("l2", 30),
            "gaussian": _weighted("gaussian", 0.1),
            "moments": _weighted("moments", 30),
            "none": f"playground,{BASE},priors.0.weight=0",
        },
        "sds",
    ),
    "views-blind": Claim(
        {
            **{f"three-{n}": _blind(_blind_views(n)) for n in (0, 1, 2, 4)},
            **{f"blip2-{n}": _blind(_blind_views(n), source="blip2-alone") for n in (0, 1, 2, 4)},
        },
        "three-0",
        task=BLIND,
        along="views",
    ),
    "referees-blind": Claim(
        {
            "none": _blind(source="sds-alone"),
            **{label: _blind(source=f"{label}-alone") for label in ("clip", "blip2", "owlv2")},
            **{pair: _blind(source=pair) for pair in ("clip+blip2", "clip+owlv2", "blip2+owlv2")},
            "clip+blip2+owlv2": _blind(),
        },
        "clip+blip2+owlv2",
        task=BLIND,
        count=96,
    ),
    "sds-blind": Claim(
        {
            "sampling": "sampling",
            "sds": _blind(source="sds-alone"),
            "referees": _blind("priors.0.weight=0"),
            "both": _blind(),
            "constant": _blind("combine.factor=1"),
            "all-times": _blind("priors.0.config.anneal=null"),
        },
        "both",
        task=BLIND,
    ),
    "combiners-blind": Claim(
        {
            "norm_balance": _blind(),
            "norm_balance-weighted": _blind("combine.votes=weighted"),
            **{f"sum-{weight}": _blind("combine={name: sum}", f"priors.0.weight={weight}") for weight in (10, 100)},
            **{name: _blind(f"combine={{name: {name}}}") for name in ("imtl_g", "upgrad")},
            **{
                f"{name}-balanced": _blind(f"combine={{name: {name}, factor: {FALLING}}}")
                for name in ("imtl_g", "upgrad", "pcgrad")
            },
            "white_noise": _blind("transforms=[{name: white_noise}]"),
        },
        "norm_balance",
        task=BLIND,
        count=48,
    ),
    "priors-blind": Claim(
        {
            "sds": _blind(),
            "nfsd": _blind(f"priors=[{{name: nfsd, config: {{model: 'playground:diffusion', {SILENT}}}}}]"),
            "sdi": _blind(f"priors=[{{name: sdi, config: {{model: 'playground:diffusion', {SILENT}}}}}]"),
            "none": _blind("priors.0.weight=0"),
        },
        "sds",
        task=BLIND,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=CLAIMS)
    parser.add_argument("--from", dest="source", type=Path, metavar="DIR", help="import the results in this folder")
    parser.add_argument("--measure", action="store_true", help="first make what the folder lacks")
    parser.add_argument("--count", type=int, help="number of prompts, by default the study's")
    parser.add_argument("--seed", type=int, help="random seed of the prompts, by default the task's; 1 for trials")
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread each")
    given = parser.parse_args()
    claim = CLAIMS[given.study]
    folder = given.source or WORK[claim.task]
    if given.measure:
        seed = SEED[claim.task] if given.seed is None else given.seed
        measure(given.study, folder, given.count or claim.count, seed, given.workers)
    if given.measure or given.source:
        import_results(given.study, Results.existing(folder))
    page, blind, _ = given.study.partition(SUFFIX)
    written = parts(given.study)
    fill(DOCS / "results" / f"{page}.md", Path(__file__).name, {"blind": written["tables"]} if blind else written)
    image = IMAGES / f"claims-{given.study}.png"
    found = summary_of(given.study, claim.against)["variants"]
    if claim.along:
        figures.lines(found, image, claim.along)
    else:
        figures.chart(found, image)
    print(f"wrote docs/results/{page}.md and docs/images/{image.name}")


def arms(study: str) -> list[Variant]:
    """The variants of a study."""
    claim = CLAIMS[study]
    return [variants.variant_from_text(f"{name}={recipe}", claim.task) for name, recipe in claim.arms.items()]


def measure(study: str, folder: Path, count: int, seed: int, workers: int) -> None:
    """Makes the images of a study that the folder lacks."""
    chosen = arms(study)
    names = {variant.hash: variant.name for variant in chosen}
    unnamed = [replace(variant, name=variant.hash) for variant in chosen]

    def progress(line: str) -> None:
        name, colon, rest = line.partition(":")
        print(f"{names.get(name, name)}{colon}{rest}", flush=True)

    # The longest first, so that the workers finish at about the same time.
    unnamed.sort(key=lambda variant: -variant.settings.get("views", {}).get("main", {}).get("count", 0))
    prompts, task = draw(count, seed), CLAIMS[study].task
    running.run(folder, unnamed, prompts, seed, batch=BATCH, workers=workers, progress=progress, task=task)


def import_results(study: str, source: Results) -> None:
    """Commits the rows of a study's arms on the prompts all of them have, their definitions, and a strip of pictures.

    Raises:
        SystemExit: an arm has not been measured with its current definition.
    """
    claim, chosen = CLAIMS[study], arms(study)
    names = {variant.hash: variant.name for variant in chosen}
    rows = source.rows(images=True).filter(polars.col("variant").is_in(list(names)))
    if missing := sorted({names[h] for h in names.keys() - set(rows["variant"])}):
        raise SystemExit(
            f"{source.path} has no images of {', '.join(missing)}; run {Path(__file__).name} {study} --measure"
        )
    rows = rows.with_columns(variant=polars.col("variant").replace(names))
    rows = rows.filter(polars.col("variant").n_unique().over("split", "prompt", "seed") == len(names))
    target = Results(RESULT / study)
    shutil.rmtree(target.path, ignore_errors=True)
    seed, there = source.source, set(rows["prompt"])
    assert isinstance(seed, int), "playground prompts come from a seed"
    drawn = draw(len(source.prompts()), seed)
    target.claim(chosen, seed, [one for one in drawn if one.prompt in there], claim.task)
    used = {scorer.identity for variant in chosen for scorer in variant.scorers}
    target.add_thresholds({identity: row for identity, row in source.thresholds().items() if identity in used})
    buffer = io.BytesIO()
    rows.drop("image").write_parquet(buffer)
    rundir.write(target.path / RESULTS, buffer.getvalue())

    shown = rows.unique("category", keep="first", maintain_order=True)["prompt"].head(claim.shown)
    first = rows.filter(polars.col("prompt").is_in(shown.to_list())).unique(["variant", "prompt"], keep="first")
    pictures = {(row["prompt"], row["variant"]): row for row in first.to_dicts()}
    ordered = {(prompt, name): pictures[prompt, name] for prompt in shown for name in claim.arms}
    figures.strip(ordered, list(claim.arms), IMAGES / f"claims-{study}-strip.png")


def summary_of(study: str, against: str, names: Sequence[str] = ()) -> dict[str, Any]:
    """Summary of the committed rows of these arms (by default all), in their order on the page."""
    summary = summarise(Results.existing(RESULT / study), against)
    order = list(names or CLAIMS[study].arms)
    shown = [variant for variant in summary["variants"] if variant["variant"] in order]
    shown.sort(key=lambda variant: order.index(variant["variant"]))
    kind = "reporting" if summary["source"] == SEED[CLAIMS[study].task] else summary["prompts"]
    return {**summary, "variants": shown, "prompts": kind}


def parts(study: str) -> dict[str, str]:
    """The generated parts of a page made from a study. Categories have too few prompts for tables of their own."""
    claim = CLAIMS[study]
    whole = [table for table in tables(summary_of(study, claim.against)) if "by category" not in table.title]
    compared = [
        table
        for against, names in claim.comparisons().items()
        for table in tables(summary_of(study, against, names))
        if table.title.endswith(f"minus {against}")
    ]
    rest = [table for table in whole[1:] if " minus " not in table.title]
    return {"tables": markdown([whole[0], *compared, *rest])}


if __name__ == "__main__":
    main()
