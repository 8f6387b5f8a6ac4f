"""The table of a published benchmark: measured variants, and below it, apart, what others published; also as LaTeX."""

from __future__ import annotations

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
APART: Final = "*"
"""Mark of a published column whose numbers another detector or judge made than ours."""
SPECIAL: Final = str.maketrans(
    {
        **{sign: rf"\{sign}" for sign in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "\n": " ",
    }
)
"""Sign -> what prints it in LaTeX."""


def tables(summary: Mapping[str, Any]) -> list[Table]:
    """The measured table, the differences to the first variant, and a table for each published generation."""
    task = _task(summary)
    others = [_published(generation, task) for generation in _generations(summary)]
    return [_measured(summary), *_differences(summary), *others]


def latex(summary: Mapping[str, Any]) -> str:
    """A `tabular` of the measured means and, after a rule, the latest published generation; for booktabs.

    Columns are those of the measured table; a published system has a dash where the publication has no number.
    """
    shown = columns(summary)
    heads = ["", *(_escaped(head(summary, group)) for group in shown)]
    rows = [
        [_escaped(one["variant"]), *(_plain(one["measured"].get(group, {}).get("value")) for group in shown)]
        for one in summary["variants"]
    ]
    lines = [
        f"% {' '.join(title(summary).split())}",
        r"% Means. $^\ast$: by another detector or judge than here, so not comparable with the measured column.",
        rf"\begin{{tabular}}{{l{'c' * len(shown)}}}",
        r"\toprule",
        " & ".join(heads) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in rows),
    ]
    task = _task(summary)
    for generation in _generations(summary)[:1]:
        lines += [r"\midrule", f"% Published: {generation.generation}; {generation.source}"]
        for system, numbers in generation.rows.items():
            by_column = dict(zip(generation.columns, numbers, strict=True))
            cells = [
                _plain(by_column.get(group))
                + ("" if group in task.as_published or by_column.get(group) is None else r"$^\ast$")
                for group in shown
            ]
            lines.append(" & ".join([_escaped(system), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def title(summary: Mapping[str, Any]) -> str:
    """What was measured on what: `T2I-CompBench++ on 300 prompts (val)`."""
    task = _task(summary)
    if summary["source"] == SMALL:
        return f"{task.wording.title}: {MEANINGLESS}"
    prompts = max(variant["prompts"] for variant in summary["variants"])
    return f"{task.wording.title} on {prompts} prompts ({summary['source']})"


def _measured(summary: Mapping[str, Any]) -> Table:
    shown = columns(summary)
    rows = [
        [
            variant["variant"],
            str(variant["images"]),
            *(number(variant["measured"][g], digits=DIGITS) if g in variant["measured"] else NONE for g in shown),
            f"{variant['seconds']:.1f}" if variant["seconds"] else NONE,  # images that were made elsewhere
        ]
        for variant in summary["variants"]
    ]
    notes = ["Means with 95 % intervals over prompts."]
    if waiting := {v["variant"]: v["unmeasured"] for v in summary["variants"] if v["unmeasured"]}:
        counts = ", ".join(f"{count} of {name}" for name, count in waiting.items())
        notes.append(
            f"Images that some metric has not measured yet: {counts}; the same command continues, with each --metric "
            "of the folder."
        )
    for label, metric in summary["metrics"].items():
        notes += [f"{label}: {remark.removesuffix('.')}." for remark in metric["remarks"]]
    heads = ["variant", "images", *(head(summary, group) for group in shown), "s/image"]
    return Table(title(summary), heads, rows, " ".join(notes))


def _differences(summary: Mapping[str, Any]) -> list[Table]:
    others = [variant for variant in summary["variants"] if variant["difference"] is not None]
    shown = [group for group in columns(summary) if group != OVERALL]
    rows = [
        [
            variant["variant"],
            str(variant["difference"]["pairs"]),
            *(
                number(variant["difference"]["measured"][group], "+", DIGITS)
                if group in variant["difference"]["measured"]
                else NONE
                for group in shown
            ),
        ]
        for variant in others
    ]
    if not rows:
        return []
    heads = ["variant", "pairs", *(head(summary, group) for group in shown)]
    return [Table(f"Each variant minus {summary['against']}", heads, rows, "Paired by prompt and seed.")]


def _published(generation: Generation, task: PublishedTask) -> Table:
    rows = [
        [system, *(NONE if value is None else f"{value:g}" for value in numbers)]
        for system, numbers in generation.rows.items()
    ]
    note = f"{generation.note} Source: {generation.source}."
    if any(column not in task.as_published for column in generation.columns):
        note += f" {APART} By another detector or judge than here: not comparable with the measured column."
    heads = [column if column in task.as_published else f"{column} {APART}" for column in generation.columns]
    return Table(f"Published: {generation.generation}", ["system", *heads], rows, note)


def _generations(summary: Mapping[str, Any]) -> list[Generation]:
    return [] if summary["source"] == SMALL else published(summary["task"])


def columns(summary: Mapping[str, Any]) -> list[str]:
    """The groups that are measured, in the order of the publication, then the overall number and further metrics."""
    there = {group for variant in summary["variants"] for group in variant["measured"]}
    groups = _task(summary).groups()
    return [group for group in (*groups, OVERALL, *sorted(there - {*groups, OVERALL})) if group in there]


def head(summary: Mapping[str, Any], group: str) -> str:
    """A column's head: the group, and in brackets its metric, unless there is only one."""
    task = _task(summary)
    return f"{group} ({task.metric_of(group)})" if group in task.groups() and len(task.metrics) > 1 else group


def _plain(value: float | None) -> str:
    return NONE if value is None or value != value else f"{value:.{DIGITS}f}"


def _escaped(text: str) -> str:
    return text.translate(SPECIAL)


def _task(summary: Mapping[str, Any]) -> PublishedTask:
    task = tasks.get(summary["task"])
    assert isinstance(task, PublishedTask), "only published benchmarks have these tables"
    return task
