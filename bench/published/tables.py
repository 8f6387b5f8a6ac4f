"""The table of a published benchmark: measured variants, and below it, apart, what others published; also as LaTeX."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from refcore_bench import tasks
from refcore_bench.published.numbers import Generation, published
from refcore_bench.published.summary import OVERALL
from refcore_bench.published.task import SMALL, PublishedTask
from refcore_bench.table import NONE, Table, number

DIGITS: Final = 4
"""Digits after the point, as the publications have them."""
MEANINGLESS: Final = "small checkpoints, numbers without meaning"
SPECIAL: Final = re.compile(r"([&%$#_{}])")


def tables(summary: Mapping[str, Any]) -> list[Table]:
    """The measured table, the differences to the first variant, and a table for each published generation."""
    task = _task(summary)
    return [_measured(summary, task), *_differences(summary, task), *map(_published, _generations(summary, task))]


def latex(summary: Mapping[str, Any]) -> str:
    """A `tabular` of the measured means and, after a rule, the latest published generation; for booktabs.

    Columns are those of the measured table; a published system has a dash where the publication has no number.
    """
    task = _task(summary)
    columns = _columns(summary)
    head = ["", *(_escaped(_titled(task, group)) for group in columns)]
    rows = [
        [_escaped(one["variant"]), *(_plain(one["measured"].get(group, {}).get("value")) for group in columns)]
        for one in summary["variants"]
    ]
    lines = [
        f"% {title(summary, task)}",
        "% Means; a metric with a detector of its own is not comparable with the published column.",
        rf"\begin{{tabular}}{{l{'c' * len(columns)}}}",
        r"\toprule",
        " & ".join(head) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in rows),
    ]
    for generation in _generations(summary, task)[:1]:
        lines += [r"\midrule", f"% Published: {generation.generation}; {generation.source}"]
        for system, numbers in generation.rows.items():
            by_column = dict(zip(generation.columns, numbers, strict=True))
            cells = [_plain(by_column.get(group)) for group in columns]
            lines.append(" & ".join([_escaped(system), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def title(summary: Mapping[str, Any], task: PublishedTask) -> str:
    """What was measured on what: `T2I-CompBench++ on 300 prompts (val)`."""
    if summary["source"] == SMALL:
        return f"{task.wording.title}: {MEANINGLESS}"
    prompts = max(variant["prompts"] for variant in summary["variants"])
    return f"{task.wording.title} on {prompts} prompts ({summary['source']})"


def _measured(summary: Mapping[str, Any], task: PublishedTask) -> Table:
    columns = _columns(summary)
    rows = [
        [
            variant["variant"],
            str(variant["images"]),
            *(number(variant["measured"][g], digits=DIGITS) if g in variant["measured"] else NONE for g in columns),
            f"{variant['seconds']:.1f}",
        ]
        for variant in summary["variants"]
    ]
    notes = ["Means with 95 % intervals over prompts."]
    if waiting := {v["variant"]: v["unmeasured"] for v in summary["variants"] if v["unmeasured"]}:
        counts = ", ".join(f"{count} of {name}" for name, count in waiting.items())
        notes.append(f"Images that are not measured yet: {counts}; the same command continues.")
    for label, metric in summary["metrics"].items():
        notes += [f"{label}: {remark}" for remark in metric["remarks"]]
    heads = ["variant", "images", *(_titled(task, group) for group in columns), "s/image"]
    return Table(title(summary, task), heads, rows, " ".join(notes))


def _differences(summary: Mapping[str, Any], task: PublishedTask) -> list[Table]:
    others = [variant for variant in summary["variants"] if variant["difference"] is not None]
    columns = [group for group in _columns(summary) if group != OVERALL]
    rows = [
        [
            variant["variant"],
            str(variant["difference"]["pairs"]),
            *(
                number(variant["difference"]["measured"][group], "+", DIGITS)
                if group in variant["difference"]["measured"]
                else NONE
                for group in columns
            ),
        ]
        for variant in others
    ]
    if not rows:
        return []
    heads = ["variant", "pairs", *(_titled(task, group) for group in columns)]
    return [Table(f"Each variant minus {summary['against']}", heads, rows, "Paired by prompt and seed.")]


def _published(generation: Generation) -> Table:
    rows = [
        [system, *(NONE if value is None else f"{value:g}" for value in numbers)]
        for system, numbers in generation.rows.items()
    ]
    note = f"{generation.note} Source: {generation.source}."
    return Table(f"Published: {generation.generation}", ["system", *generation.columns], rows, note)


def _generations(summary: Mapping[str, Any], task: PublishedTask) -> list[Generation]:
    return [] if summary["source"] == SMALL else published(task.name)


def _columns(summary: Mapping[str, Any]) -> list[str]:
    there = {group for variant in summary["variants"] for group in variant["measured"]}
    groups = _task(summary).groups()
    return [group for group in (*groups, OVERALL, *sorted(there - {*groups, OVERALL})) if group in there]


def _titled(task: PublishedTask, group: str) -> str:
    """A column's head: the group, and in brackets its metric, unless there is only one."""
    if group not in task.groups() or len(task.metrics) < 2:
        return group
    return f"{group} ({task.metric_of(group)})"


def _plain(value: float | None) -> str:
    return NONE if value is None or value != value else f"{value:.{DIGITS}f}"


def _escaped(text: str) -> str:
    return SPECIAL.sub(r"\\\1", text)


def _task(summary: Mapping[str, Any]) -> PublishedTask:
    task = tasks.get(summary["task"])
    assert isinstance(task, PublishedTask), "only published benchmarks have these tables"
    return task
