"""The results in numbers, by variant, category and split; tables, plot and gallery are made from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from refcore.errors import unknown
from refcore_bench.evaluations import KINDS
from refcore_bench.hacks import hacked, moved
from refcore_bench.intervals import Estimate, difference_of_rates, mean, rate, ratio
from refcore_bench.results import Results
from refcore_bench.task import Accepts, Measure, Row, Task

ALL = "all"
Pair = tuple[Row, Row]


def summarise(results: Results, against: str | None = None) -> dict[str, Any]:
    """All numbers of `refcore bench show`.

    Args:
        results: results of any number of variants.
        against: the variant that each of the others is compared with; by default the task's preset, or the first.

    Raises:
        RefcoreError: there is no such variant; a referee has no threshold.
    """
    task, rows = results.task, results.rows().to_dicts()
    by_variant: dict[str, list[Row]] = {}
    for row in rows:
        by_variant.setdefault(row["variant"], []).append(row)
    if against is None:
        against = task.name if task.name in by_variant else next(iter(by_variant))
    if against not in by_variant:
        raise unknown("variant", against, by_variant, "--against")
    accepts, definitions, source = results.accepts(), results.variants(), results.source
    return {
        "task": task.name,
        "source": source,
        "prompts": task.set_of(source),
        "against": against,
        "variants": [
            {
                "variant": name,
                "labels": definitions[name].labels if name in definitions else [],
                "config_hash": own[0]["config_hash"],
                "checkpoints": definitions[name].checkpoints if name in definitions else {},
                **_of(own, task, accepts),
                "difference": None if name == against else _compared(own, by_variant[against], task, accepts),
            }
            for name, own in by_variant.items()
        ],
        "thresholds": [{"identity": identity, **row.to_dict()} for identity, row in results.thresholds().items()],
    }


def _of(rows: Sequence[Row], task: Task, accepts: Accepts) -> dict[str, Any]:
    whole = [rate([row["verdict"] for row in _part(rows, ALL, split)]) for split in task.splits]
    return {
        "images": len(rows),
        "prompts": len({_prompt(row) for row in rows}),
        "seeds": sorted({row["seed"] for row in rows}),
        "optimised": sorted({s["referee"] for row in rows for s in row["scores"] if s["optimised"]}),
        "accuracy": [
            {
                "category": category,
                "split": split,
                "whole": rate([row["verdict"] for row in part]).to_dict(),
                "facts": ratio([r["facts_found"] for r in part], [r["facts_asked"] for r in part]).to_dict(),
            }
            for split in (ALL, *task.splits)
            for category in (ALL, *task.categories)
            if (part := _part(rows, category, split))
        ],
        "measures": {measure.title: _measured(measure, rows).to_dict() for measure in task.measures},
        **({"_minus_".join(task.splits): difference_of_rates(*whole).to_dict()} if whole else {}),
        "hack_rate": rate([hacked(row, accepts) for row in rows]).to_dict(),
        "panel_hack_rate": rate([hacked(row, accepts, "panel") for row in rows]).to_dict(),
        "steps": _average(rows, lambda row: row["steps"]),
        "seconds": _average(rows, lambda row: row["seconds"]),
        "load_seconds": _average(rows, lambda row: row["load_seconds"]),
        "threads": sorted({row["threads"] for row in rows}),
        "model_evaluations": _average(rows, lambda row: row["model_evaluations"]),
        "evaluations": {kind: float(np.mean([row["evaluations"].get(kind) or 0.0 for row in rows])) for kind in KINDS},
    }


def _compared(rows: Sequence[Row], baseline: Sequence[Row], task: Task, accepts: Accepts) -> dict[str, Any]:
    """Differences of the variant to the baseline, over the images both have."""
    theirs = {_image(row): row for row in baseline}
    pairs = [(row, theirs[_image(row)]) for row in rows if _image(row) in theirs]
    moves = [moved(*pair) for pair in pairs]
    return {
        "pairs": len(pairs),
        "whole": [
            {"category": category, "split": split, **_paired(part, lambda row: row["verdict"]).to_dict()}
            for split in (ALL, *task.splits)
            for category in (ALL, *task.categories)
            if (part := [pair for pair in pairs if _part(pair[:1], category, split)])
        ],
        "facts": _paired(pairs, lambda row: row["facts_found"] / row["facts_asked"]).to_dict(),
        "measures": {measure.title: _paired(pairs, measure.value).to_dict() for measure in task.measures},
        "panel_hack_rate": _paired(pairs, lambda row: hacked(row, accepts, "panel")).to_dict(),
        "hack_rate": _paired(pairs, lambda row: hacked(row, accepts)).to_dict(),
        "joint_domination": rate([move == 1 for move in moves]).to_dict(),
        "joint_collapse": rate([move == -1 for move in moves]).to_dict(),
    }


def _paired(pairs: Sequence[Pair], value: Callable[[Row], float]) -> Estimate:
    """Mean difference within pairs. The images of one prompt are averaged first, since prompts are resampled."""
    by_prompt: dict[tuple[Any, ...], list[float]] = {}
    for ours, theirs in pairs:
        by_prompt.setdefault(_prompt(ours), []).append(float(value(ours)) - float(value(theirs)))
    return mean([float(np.mean(differences)) for differences in by_prompt.values()])


def _measured(measure: Measure, rows: Sequence[Row]) -> Estimate:
    values = [measure.value(row) for row in rows]
    return rate([bool(value) for value in values]) if measure.share else mean(values)


def _part(rows: Sequence[Row], category: str, split: str) -> list[Row]:
    return [row for row in rows if category in (ALL, row["category"]) and split in (ALL, row["split"])]


def _prompt(row: Row) -> tuple[Any, ...]:
    return row["split"], row["category"], row["prompt"]


def _image(row: Row) -> tuple[Any, ...]:
    return *_prompt(row), row["seed"]


def _average(rows: Sequence[Row], value: Callable[[Row], float]) -> float:
    return float(np.mean([value(row) for row in rows]))
