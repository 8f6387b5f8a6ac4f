"""The results in numbers, by variant, category and split; tables, plot and gallery are made from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from refcore.errors import RefcoreError, unknown
from refcore_bench.evaluations import KINDS
from refcore_bench.published.summary import Measured
from refcore_bench.published.task import PublishedTask
from refcore_bench.relatives import relatives
from refcore_bench.statistics.hacks import hacked, moved
from refcore_bench.statistics.intervals import Estimate, difference_of_rates, mean, rate, ratio
from refcore_bench.statistics.pairing import Pair, difference, pairs_of, prompt_of
from refcore_bench.statistics.panel_scores import compared, scores_of
from refcore_bench.storing.results import Results
from refcore_bench.task import Accepts, Measure, Row, Task
from refcore_bench.variants import Variant

ALL = "all"


def summarise(results: Results, against: str | None = None) -> dict[str, Any]:
    """All numbers of `refcore bench show`.

    Args:
        results: results of any number of variants.
        against: the variant that each of the others is compared with; by default the task's preset, or the first
            where there is none or the variants keep their order.

    Raises:
        RefcoreError: there is no image, or no such variant; a referee has no threshold.
    """
    task, rows = results.task, results.rows().to_dicts()
    by_variant: dict[str, list[Row]] = {}
    for row in rows:
        by_variant.setdefault(row["variant"], []).append(row)
    if not by_variant:
        raise RefcoreError(f'"{results.storage}" holds no image; the command that was to make some continues there')
    if against is None:
        leading = task.preset in by_variant and not task.in_given_order
        against = task.preset if leading else next(iter(by_variant))
    if against not in by_variant:
        raise unknown("variant", against, by_variant, "--against")
    accepts, panel, definitions, source = results.accepts(), results.panel(), results.variants(), results.source

    measured = Measured(results) if isinstance(task, PublishedTask) else None

    def numbers(name: str, own: Sequence[Row]) -> dict[str, Any]:
        if measured is not None:
            return {"measured": measured.means(own), "unmeasured": measured.missing(own)}
        if task.wording.judge is not None:
            return _judged(own, task, accepts)
        return {"relatives": _relatives(definitions.get(name), panel), "scores": scores_of(own, panel)}

    def differences(own: Sequence[Row]) -> dict[str, Any]:
        pairs = pairs_of(own, by_variant[against])
        if measured is not None:
            return {"pairs": len(pairs), "measured": measured.differences(pairs)}
        return compared(pairs, panel) if task.wording.judge is None else _compared(pairs, task, accepts)

    return {
        "task": task.name,
        "source": source,
        "prompts": task.set_of(source),
        "against": against,
        "panel": list(panel),
        **({"metrics": {k: m.model_dump(mode="json") for k, m in measured.metrics.items()}} if measured else {}),
        "variants": [
            {
                "variant": name,
                "labels": definitions[name].labels if name in definitions else [],
                "config_hash": own[0]["config_hash"],
                "checkpoints": definitions[name].checkpoints if name in definitions else {},
                **_made(own),
                **numbers(name, own),
                "difference": None if name == against else differences(own),
            }
            for name, own in by_variant.items()
        ],
        "thresholds": [{"identity": identity, **row.to_dict()} for identity, row in results.thresholds().items()],
    }


def _relatives(variant: Variant | None, panel: Mapping[str, str]) -> list[str]:
    """Labels of the witnesses that are none for a variant; see `refcore_bench.relatives`."""
    found = relatives(variant) if variant is not None else []
    return [label for label, identity in panel.items() if identity in found]


def _made(rows: Sequence[Row]) -> dict[str, Any]:
    """What was made, and what it took."""
    return {
        "images": len(rows),
        "prompts": len({prompt_of(row) for row in rows}),
        "seeds": sorted({row["seed"] for row in rows}),
        "optimised": sorted({s["referee"] for row in rows for s in row["scores"] if s["optimised"]}),
        "steps": _average(rows, lambda row: row["steps"]),
        "seconds": _average(rows, lambda row: row["seconds"]),
        "load_seconds": _average(rows, lambda row: row["load_seconds"]),
        "threads": sorted({row["threads"] for row in rows}),
        "model_evaluations": _average(rows, lambda row: row["model_evaluations"]),
        "evaluations": {kind: float(np.mean([row["evaluations"].get(kind) or 0.0 for row in rows])) for kind in KINDS},
    }


def _judged(rows: Sequence[Row], task: Task, accepts: Accepts) -> dict[str, Any]:
    """Rates of verdicts and hacks, and the task's measures."""
    whole = [rate([row["verdict"] for row in _part(rows, ALL, split)]) for split in task.splits]
    return {
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
    }


def _compared(pairs: Sequence[Pair], task: Task, accepts: Accepts) -> dict[str, Any]:
    """Differences of verdicts, hacks and measures within pairs."""
    moves = [moved(*pair) for pair in pairs]
    return {
        "pairs": len(pairs),
        "whole": [
            {"category": category, "split": split, **difference(part, lambda row: row["verdict"]).to_dict()}
            for split in (ALL, *task.splits)
            for category in (ALL, *task.categories)
            if (part := [pair for pair in pairs if _part(pair[:1], category, split)])
        ],
        "facts": difference(pairs, lambda row: row["facts_found"] / row["facts_asked"]).to_dict(),
        "measures": {measure.title: difference(pairs, measure.value).to_dict() for measure in task.measures},
        "panel_hack_rate": difference(pairs, lambda row: hacked(row, accepts, "panel")).to_dict(),
        "hack_rate": difference(pairs, lambda row: hacked(row, accepts)).to_dict(),
        "joint_domination": rate([move == 1 for move in moves]).to_dict(),
        "joint_collapse": rate([move == -1 for move in moves]).to_dict(),
    }


def _measured(measure: Measure, rows: Sequence[Row]) -> Estimate:
    values = [measure.value(row) for row in rows]
    return rate([bool(value) for value in values]) if measure.share else mean(values)


def _part(rows: Sequence[Row], category: str, split: str) -> list[Row]:
    return [row for row in rows if category in (ALL, row["category"]) and split in (ALL, row["split"])]


def _average(rows: Sequence[Row], value: Callable[[Row], float]) -> float:
    return float(np.mean([value(row) for row in rows]))
