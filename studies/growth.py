"""The study of docs/results/growth.md: what a benchmark costs on N GPUs, and where its files become the limit.

    python studies/growth.py                     # the tables from the committed studies/rows/growth
    python studies/growth.py --measure           # times the results' folder with 1e3, 1e4 and 1e5 synthetic rows
    python studies/growth.py --measure --label before    # the same by an earlier version, which PYTHONPATH leads to

A synthetic folder has parts as a benchmark writes them, with noise in the place of pictures and scores; no model runs.
"""

from __future__ import annotations

import argparse
import json
import os
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
from page import DOCS, ROWS

RESULT = ROWS / "growth"
PAGE = DOCS / "results/growth.md"
SIZES = {10**3: 4, 10**4: 4, 10**5: 4}
"""Rows -> rows a part; each size has 5 variants, and twice as many prompts as seeds times 10."""
VARIANTS, SEEDS, SIDE = 5, 10, 16


def synthetic(folder: Path, rows: int, batch: int) -> tuple[Any, list[Any], list[Any]]:
    """Writes the parts of a benchmark of so many rows: (results, variants, prompts)."""
    from refcore_bench.evaluations import KINDS
    from refcore_bench.making import Made
    from refcore_bench.results import Results
    from refcore_bench.scorers import Scorer
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
    with patch("os.fsync"):  # which takes most of the time, and is not what is measured
        for variant in variants:
            for seed in range(SEEDS):
                for first in range(0, len(prompts), batch):
                    part = prompts[first : first + batch]
                    levels = [*rng.integers(0, 256, (len(part), SIDE, SIDE, 3), dtype=np.uint8)]
                    scores = {scorer.label: rng.random(len(part)).tolist() for scorer in scorers}
                    results.add(variant, part, seed, Made(levels, scores, 2, 0.5, 0.1, spent), 1)
    return results, variants, prompts


@contextmanager
def timed(into: dict[str, float], name: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    into[name] = time.perf_counter() - began


def measure(rows: int, batch: int) -> dict[str, Any]:
    """Seconds of each operation on a folder of so many rows, in this process."""
    from refcore_bench.results import Results
    from refcore_bench.running import _missing
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
        with timed(found, "gather"):
            results.gather()
        with timed(found, "rows"):
            assert len(results.rows()) == rows
        with timed(found, "missing again"):
            assert not _missing(results, variants, prompts, range(SEEDS), batch)
        parts = sum(1 for _ in Path(folder, "parts").rglob("*.parquet"))
        size = Path(folder, "results.parquet").stat().st_size
    return {
        "rows": rows,
        "parts": parts,
        "prompts": len(prompts),
        "seconds": found,
        "bytes": size,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="time the operations on synthetic folders")
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
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            print(rows[-1], flush=True)
        RESULT.mkdir(parents=True, exist_ok=True)
        told_of = {"processor": _processor(), "python": platform.python_version(), "rows": rows}
        (RESULT / f"{told.label}.json").write_text(json.dumps(told_of, indent=1) + "\n")


def _processor() -> str:
    from refcore.diagnostics.doctor import machine

    return str(machine()["name"])


if __name__ == "__main__":
    main()
