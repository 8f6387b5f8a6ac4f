"""The studies of docs/results (views, referees, sds, combiners, priors): the paper's claims where the truth is known.

    python studies/claims.py PAGE              # tables and chart from the committed studies/rows/claims/PAGE
    python studies/claims.py PAGE --from DIR   # first imports the images in DIR, as rows and as one strip
    python studies/claims.py PAGE --measure    # before that, makes the images that DIR (runs/claims) lacks

All pages share one folder: a variant's name there is its definition's hash, and it is measured once.
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
from refcore_bench.results import RESULTS, Results
from refcore_bench.summary import summarise
from refcore_bench.tables import markdown, tables
from refcore_bench.tasks.playground_prompts import draw
from refcore_bench.variants import Variant

RESULT = ROWS / "claims"
IMAGES = DOCS / "images"
WORK = Path("runs/claims")
SEED = 2029
"""Seed of the prompts, used by these pages alone; nothing was chosen on it."""
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


@dataclass(frozen=True)
class Claim:
    """A page: its arms (name -> recipe, as in `--variant NAME=RECIPE`), and the arm to compare the others with."""

    arms: dict[str, str]
    against: str
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
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", choices=CLAIMS)
    parser.add_argument("--from", dest="source", type=Path, metavar="DIR", help="import the results in this folder")
    parser.add_argument("--measure", action="store_true", help="first make what the folder (runs/claims) lacks")
    parser.add_argument("--count", type=int, default=COUNT, help=f"number of prompts ({COUNT})")
    parser.add_argument("--seed", type=int, default=SEED, help=f"random seed of the prompts ({SEED}); 1 for trials")
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread each")
    given = parser.parse_args()
    if given.measure:
        measure(given.page, given.source or WORK, given.count, given.seed, given.workers)
    if given.measure or given.source:
        import_results(given.page, Results.existing(given.source or WORK))
    fill(DOCS / "results" / f"{given.page}.md", Path(__file__).name, parts(given.page))
    claim, image = CLAIMS[given.page], IMAGES / f"claims-{given.page}.png"
    found = summary_of(given.page, claim.against)["variants"]
    if claim.along:
        figures.lines(found, image, claim.along)
    else:
        figures.chart(found, image)
    print(f"wrote docs/results/{given.page}.md and docs/images/{image.name}")


def arms(page: str) -> list[Variant]:
    """The variants on a page."""
    return [variants.variant_from_text(f"{name}={recipe}") for name, recipe in CLAIMS[page].arms.items()]


def measure(page: str, folder: Path, count: int, seed: int, workers: int) -> None:
    """Makes the images of a page that the folder lacks."""
    chosen = arms(page)
    names = {variant.hash: variant.name for variant in chosen}
    unnamed = [replace(variant, name=variant.hash) for variant in chosen]

    def progress(line: str) -> None:
        name, colon, rest = line.partition(":")
        print(f"{names.get(name, name)}{colon}{rest}", flush=True)

    # The longest first, so that the workers finish at about the same time.
    unnamed.sort(key=lambda variant: -variant.settings.get("views", {}).get("main", {}).get("count", 0))
    running.run(folder, unnamed, draw(count, seed), seed, batch=BATCH, workers=workers, progress=progress)


def import_results(page: str, source: Results) -> None:
    """Commits the rows of a page's arms on the prompts all of them have, their definitions, and a strip of pictures.

    Raises:
        SystemExit: an arm has not been measured with its current definition.
    """
    chosen = arms(page)
    names = {variant.hash: variant.name for variant in chosen}
    rows = source.rows(images=True).filter(polars.col("variant").is_in(list(names)))
    if missing := sorted({names[h] for h in names.keys() - set(rows["variant"])}):
        raise SystemExit(
            f"{source.path} has no images of {', '.join(missing)}; run {Path(__file__).name} {page} --measure"
        )
    rows = rows.with_columns(variant=polars.col("variant").replace(names))
    rows = rows.filter(polars.col("variant").n_unique().over("split", "prompt", "seed") == len(names))
    target = Results(RESULT / page)
    shutil.rmtree(target.path, ignore_errors=True)
    seed, there = source.source, set(rows["prompt"])
    assert isinstance(seed, int), "playground prompts come from a seed"
    drawn = draw(len(source.prompts()), seed)
    target.claim(chosen, seed, [one for one in drawn if one.prompt in there])
    used = {scorer.identity for variant in chosen for scorer in variant.scorers}
    target.add_thresholds({identity: row for identity, row in source.thresholds().items() if identity in used})
    buffer = io.BytesIO()
    rows.drop("image").write_parquet(buffer)
    rundir.write(target.path / RESULTS, buffer.getvalue())

    shown = rows.unique("category", keep="first", maintain_order=True)["prompt"].head(CLAIMS[page].shown)
    first = rows.filter(polars.col("prompt").is_in(shown.to_list())).unique(["variant", "prompt"], keep="first")
    pictures = {(row["prompt"], row["variant"]): row for row in first.to_dicts()}
    ordered = {(prompt, name): pictures[prompt, name] for prompt in shown for name in CLAIMS[page].arms}
    figures.strip(ordered, list(CLAIMS[page].arms), IMAGES / f"claims-{page}-strip.png")


def summary_of(page: str, against: str, names: Sequence[str] = ()) -> dict[str, Any]:
    """Summary of the committed rows of these arms (by default all), in their order on the page."""
    summary = summarise(Results.existing(RESULT / page), against)
    order = list(names or CLAIMS[page].arms)
    shown = [variant for variant in summary["variants"] if variant["variant"] in order]
    shown.sort(key=lambda variant: order.index(variant["variant"]))
    kind = "reporting" if summary["source"] == SEED else summary["prompts"]
    return {**summary, "variants": shown, "prompts": kind}


def parts(page: str) -> dict[str, str]:
    """The generated parts of a page. Categories have too few prompts for tables of their own."""
    claim = CLAIMS[page]
    whole = [table for table in tables(summary_of(page, claim.against)) if "by category" not in table.title]
    compared = [
        table
        for against, names in claim.comparisons().items()
        for table in tables(summary_of(page, against, names))
        if table.title.endswith(f"minus {against}")
    ]
    rest = [table for table in whole[1:] if " minus " not in table.title]
    return {"tables": markdown([whole[0], *compared, *rest])}


if __name__ == "__main__":
    main()
