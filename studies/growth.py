"""The study of docs/results/growth.md: what a benchmark costs on N GPUs, and where its files become the limit.

    python studies/growth.py                     # the tables from the committed studies/rows/growth
    python studies/growth.py --measure           # times the results' folder with 1e3, 1e4 and 1e5 synthetic rows
    python studies/growth.py --measure --label before    # the same by an earlier version, which PYTHONPATH leads to
    python studies/growth.py --simulate          # the hours on N GPUs, batch by batch, and the sizes of what is moved

A synthetic folder has parts as a benchmark writes them, with noise in the place of pictures and scores; no model runs.
"""

from __future__ import annotations

import argparse
import heapq
import inspect
import json
import os
import pickle
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
from page import DOCS, ROWS, fill

RESULT = ROWS / "growth"
PAGE = DOCS / "results/growth.md"
SIZES = {10**3: 4, 10**4: 4, 10**5: 4}
"""Rows -> rows a part; each size has 5 variants, and twice as many prompts as seeds times 10."""
VARIANTS, SEEDS, SIDE = 5, 10, 16


def synthetic(folder: Path, rows: int, batch: int) -> tuple[Any, list[Any], list[Any]]:
    """Writes the parts of a benchmark of so many rows: (results, variants, prompts)."""
    from refcore_bench.evaluations import KINDS
    from refcore_bench.making import Made
    from refcore_bench.scorers import Scorer
    from refcore_bench.storing.results import Results
    from refcore_bench.task import TaskPrompt
    from refcore_bench.tasks.prompts import PROMPTS
    from refcore_bench.variants import Variant

    rng = np.random.default_rng(0)
    scorers = tuple(Scorer(f"r{i}", {"name": "clip", "label": f"r{i}"}, f"{i:016x}", i < 2, i > 0) for i in range(3))
    variants = [Variant(f"v{i}", "sampling", {"steps": i + 1}, scorers, {}) for i in range(VARIANTS)]
    prompts = [TaskPrompt(f"prompt {i} of some length", "", "own") for i in range(rows // VARIANTS // SEEDS)]
    results = Results(folder)
    results.claim(variants, "own", prompts, PROMPTS)
    spent = dict.fromkeys(KINDS, 1.0)
    told = {"task": PROMPTS.name} if "task" in inspect.signature(Results.add).parameters else {}
    with patch("os.fsync"):  # which takes most of the time, and is not what is measured
        for variant in variants:
            for seed in range(SEEDS):
                for first in range(0, len(prompts), batch):
                    part = prompts[first : first + batch]
                    levels = [*rng.integers(0, 256, (len(part), SIDE, SIDE, 3), dtype=np.uint8)]
                    scores = {scorer.label: rng.random(len(part)).tolist() for scorer in scorers}
                    Results(folder).add(variant, part, seed, Made(levels, scores, 2, 0.5, 0.1, spent), 1, **told)
    return results, variants, prompts


@contextmanager
def timed(into: dict[str, float], name: str) -> Iterator[None]:
    """Seconds of CPU, which other processes of the machine do not change much."""
    began = time.process_time()
    yield
    into[name] = time.process_time() - began


def measure(rows: int, batch: int) -> dict[str, Any]:
    """CPU seconds of each operation on a folder of so many rows, in this process."""
    from refcore_bench.running import _missing
    from refcore_bench.storing.results import Results
    from refcore_bench.tasks.prompts import PROMPTS

    found: dict[str, float] = {}
    with TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        with timed(found, "add all"):
            results, variants, prompts = synthetic(Path(folder), rows, batch)
        results = Results(folder)
        with timed(found, "claim"):
            results.claim(variants, "own", prompts, PROMPTS)
        with timed(found, "missing"):
            assert not _missing(results, variants, prompts, range(SEEDS), batch)
        parts = sum(1 for _ in Path(folder, "parts").rglob("*.parquet"))
        with timed(found, "gather"):
            results.gather()
        with timed(found, "rows"):
            assert len(results.rows()) == rows
        with timed(found, "missing again"):
            assert not _missing(results, variants, prompts, range(SEEDS), batch)
        size = Path(folder, "results.parquet").stat().st_size
    return {
        "rows": rows,
        "parts": parts,
        "prompts": len(prompts),
        "seconds": found,
        "bytes": size,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


PROMPTS, GPUS = 10_000, (1, 8, 64, 512)
"""Of the benchmark whose growth is asked for; it has `SEEDS` seeds and `VARIANTS` variants."""
IMAGE, LOADING, START, BETWEEN_DEATHS = 10.0, 60.0, 120.0, 24 * 3600.0
"""Seconds of an image, of loading the models of a variant, of starting a worker, and of a worker's life on average.
Assumed, not measured: the table scales with the first."""
SPREAD, BATCH = 0.1, 20
"""Spread of the logarithm of a batch's seconds, and images a batch."""
EVERY, WARM = "loaded for every batch", "kept loaded"


def hours(gpus: int, policy: str) -> dict[str, float]:
    """Hours until a benchmark is done on so many GPUs, one worker each, by the queue that the executors use."""
    from refcore_bench.executors.job import Job, Outcome
    from refcore_bench.executors.waiting import Waiting, in_sight

    rng = np.random.default_rng(gpus)
    number = PROMPTS * SEEDS // BATCH
    jobs = [Job("", int, (), f"v{i % VARIANTS}") for i in range(number * VARIANTS)]  # variants take turns
    waiting = Waiting(jobs, in_sight(gpus))
    free = [(0.0, worker, "") for worker in range(gpus)]
    lost = loads = end = 0.0
    while free:
        at, worker, loaded = heapq.heappop(free)
        job = waiting.take(loaded or None)
        if job is None:
            continue
        loading = LOADING if policy == EVERY or job.group != loaded else 0.0
        took = loading + BATCH * IMAGE * rng.lognormal(-(SPREAD**2) / 2, SPREAD)
        lives = rng.exponential(BETWEEN_DEATHS)
        if lives < took:
            waiting.died(job)
            lost += lives
            heapq.heappush(free, (at + lives + START, worker, ""))
            continue
        waiting.finished(job, Outcome())
        loads += loading
        end = max(end, at + took)
        heapq.heappush(free, (at + took, worker, job.group))
    images = number * VARIANTS * BATCH * IMAGE
    return {
        "hours": end / 3600,
        "gpu hours": gpus * end / 3600,
        "share of images": images / (gpus * end),
        "hours of loading": loads / 3600,
        "hours lost to deaths": lost / 3600,
    }


def sizes() -> dict[str, float]:
    """Bytes of what is moved and stored, of real variants, committed rows and a photograph."""
    from PIL import Image
    from sklearn.datasets import load_sample_image

    from refcore.images import png
    from refcore_bench.running import Batch
    from refcore_bench.storing.results import Results
    from refcore_bench.tasks.playground_prompts import draw
    from refcore_bench.variants import variant_from_text

    photograph = Image.fromarray(load_sample_image("china.jpg")).crop((0, 0, 427, 427))
    found: dict[str, float] = {}
    for side in (512, 1024):
        found[f"picture {side}"] = len(png(np.array(photograph.resize((side, side), Image.Resampling.LANCZOS))))
    batch = Batch(variant_from_text("playground"), tuple(draw(BATCH, 1)), 0)
    found["job"] = len(pickle.dumps(("s3://bucket/folder", "playground", batch, None)))
    committed = ROWS / "playground"
    found["row"] = (committed / "results.parquet").stat().st_size / len(Results.existing(committed).rows())
    return found


def parts() -> dict[str, str]:
    """The generated parts of the page."""
    return {"operations": operations(), "hours": hours_table(), "limits": limits()}


def operations() -> str:
    """CPU seconds of each operation, before and after what was quadratic was mended."""
    told = {label: json.loads((RESULT / f"{label}.json").read_text()) for label in ("before", "after")}
    lines = [
        "| operation | "
        + " | ".join(f"{row['rows']:,} rows, {row['parts']:,} parts" for row in told["after"]["rows"])
        + " |",
        "| --- |" + " --- |" * len(SIZES),
    ]
    for name, meaning in OPERATIONS.items():
        cells = [
            f"{before['seconds'][name]:,.2f} -> {after['seconds'][name]:,.2f}"
            for before, after in zip(told["before"]["rows"], told["after"]["rows"], strict=True)
        ]
        lines.append(f"| {meaning} | {' | '.join(cells)} |")
    memory = " | ".join(f"{row['memory'] / 1e9:.1f} GB" for row in told["after"]["rows"])
    lines.append(f"| highest memory of the process, after | {memory} |")
    return "\n".join(lines)


OPERATIONS = {
    "add all": "write all parts, without waiting for the disk",
    "claim": "claim the folder again",
    "missing": "find what is missing, nothing gathered yet",
    "gather": "gather; 25,000 parts are joined to shards first, after",
    "rows": "all rows, gathered",
    "missing again": "find what is missing, gathered",
}
"""Operation -> its row of the table."""


def hours_table() -> str:
    found = json.loads((RESULT / "simulated.json").read_text())["hours"]
    lines = [
        f"| GPUs | hours, models {WARM} | share of the time that makes images | hours, models {EVERY} "
        "| GPU hours lost to deaths |",
        "| --- | --- | --- | --- | --- |",
    ]
    for gpus in map(str, GPUS):
        warm, every = found[WARM][gpus], found[EVERY][gpus]
        lines.append(
            f"| {gpus} | {warm['hours']:,.1f} | {100 * warm['share of images']:.1f} % | {every['hours']:,.1f} "
            f"| {warm['hours lost to deaths']:.1f} |"
        )
    return "\n".join(lines)


def limits() -> str:
    found = json.loads((RESULT / "simulated.json").read_text())["bytes"]
    images, most = PROMPTS * SEEDS * VARIANTS, max(GPUS)
    lines = ["| | batches of 1 | batches of 20 |", "| --- | --- | --- |"]
    for title, value in {
        "parts": lambda batch: f"{images / batch:,.0f}",
        "requests to list them, 1,000 names each": lambda batch: f"{images / batch / 1000:,.0f}",
        f"parts written a second on {most} GPUs": lambda batch: f"{most / (IMAGE * batch):,.1f}",
        "jobs through the driver": lambda batch: f"{images / batch * found['job'] / 1e9:,.1f} GB",
        "rows, gathered": lambda batch: f"{images * found['row'] / 1e6:,.0f} MB",
        "pictures of 512 px": lambda batch: f"{images * found['picture 512'] / 1e9:,.0f} GB",
        "pictures of 1024 px": lambda batch: f"{images * found['picture 1024'] / 1e9:,.0f} GB",
    }.items():
        lines.append(f"| {title} | {value(1)} | {value(BATCH)} |")
    return "\n".join(lines)


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="time the operations on synthetic folders")
    parser.add_argument("--simulate", action="store_true", help="simulate the benchmark on N GPUs")
    parser.add_argument("--label", default="after", help="name of what is measured")
    parser.add_argument("--one", type=int, metavar="ROWS", help=argparse.SUPPRESS)
    told = parser.parse_args(given)
    if told.one:
        print(json.dumps(measure(told.one, SIZES[told.one])))
        return
    if told.measure:
        rows = []
        for size in SIZES:  # each in a process of its own, whose memory is its peak
            command = [sys.executable, __file__, "--one", str(size)]
            one = {**os.environ, "POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=one)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            print(rows[-1], flush=True)
        RESULT.mkdir(parents=True, exist_ok=True)
        told_of = {"processor": _processor(), "python": platform.python_version(), "rows": rows}
        (RESULT / f"{told.label}.json").write_text(json.dumps(told_of, indent=1) + "\n")
    if told.simulate:
        simulated = {policy: {str(gpus): hours(gpus, policy) for gpus in GPUS} for policy in (WARM, EVERY)}
        RESULT.mkdir(parents=True, exist_ok=True)
        (RESULT / "simulated.json").write_text(json.dumps({"hours": simulated, "bytes": sizes()}, indent=1) + "\n")
    fill(PAGE, Path(__file__).name, parts())
    print(f"wrote {PAGE.relative_to(DOCS.parent)}")


def _processor() -> str:
    from refcore.diagnostics.doctor import machine

    return str(machine()["name"])


if __name__ == "__main__":
    main()
