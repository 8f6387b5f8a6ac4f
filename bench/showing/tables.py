"""The summary as tables of text, for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from refcore_bench import tasks
from refcore_bench.published import tables as published
from refcore_bench.showing.summary import ALL
from refcore_bench.table import NONE, Table, number, percent, points, share


def tables(summary: dict[str, Any]) -> list[Table]:
    """All tables of a summary, the most important first."""
    wording = tasks.get(summary["task"]).wording
    if "metrics" in summary:
        return [*published.tables(summary), _costs(summary), _checkpoints(summary)]
    if wording.judge is None:
        several = len(summary["variants"]) > 1
        return [_scores(summary), *([_moves(summary)] if several else []), _costs(summary), _checkpoints(summary)]
    return [
        _overview(summary),
        _accuracy(summary, "whole", f"{wording.right.capitalize()}{wording.suffix}, by category"),
        *(
            [_accuracy(summary, "facts", f"{wording.facts.capitalize()}{wording.suffix}, by category")]
            if wording.facts
            else []
        ),
        *([_against(summary)] if len(summary["variants"]) > 1 else []),
        _costs(summary),
        *([_thresholds(summary)] if summary["thresholds"] else []),
        _checkpoints(summary),
    ]


def prompt_set(summary: dict[str, Any]) -> str:
    """Name of the prompt set: `reporting prompts (seed 2028)`, `tuning classes`."""
    name = f"{summary['prompts']} {tasks.get(summary['task']).wording.prompts}"
    return name if summary["source"] == summary["prompts"] else f"{name} (seed {summary['source']})"


def named(variant: dict[str, Any]) -> str:
    """A variant's name with its labels: `mine (oracle parser)`."""
    return " ".join([variant["variant"], *(f"({label})" for label in variant.get("labels", ()))])


def _overview(summary: dict[str, Any]) -> Table:
    task = tasks.get(summary["task"])
    wording, parts = task.wording, " - ".join(task.splits)
    columns = ["variant", "images", wording.right, *([wording.facts] if wording.facts else [])]
    columns += [measure.title for measure in task.measures] + ["hack rate", *([parts] if parts else []), "s/image"]
    rows = []
    for variant in summary["variants"]:
        overall = variant["accuracy"][0]
        rows.append(
            [
                named(variant),
                str(variant["images"]),
                share(overall["whole"]),
                *([share(overall["facts"])] if wording.facts else []),
                *((share if m.share else number)(variant["measures"][m.title]) for m in task.measures),
                share(variant["hack_rate"]),
                *([points(variant["_minus_".join(task.splits)])] if parts else []),
                f"{variant['seconds']:.1f}",
                f"{variant['model_evaluations']:.0f}",
            ]
        )
    note = f"Shares with 95 % intervals; differences in points. Hack rate: {wording.hack}."
    return Table(f"Accuracy on {prompt_set(summary)}", [*columns, "evaluations/image"], rows, note)


def _scores(summary: dict[str, Any]) -> Table:
    """Mean scores by a panel, where nobody gives a verdict."""
    rows = [
        [
            named(variant),
            str(variant["images"]),
            str(variant["prompts"]),
            *(score_of(variant["scores"][label], label in variant["relatives"]) for label in summary["panel"]),
            f"{variant['seconds']:.1f}",
            f"{variant['model_evaluations']:.0f}",
        ]
        for variant in summary["variants"]
    ]
    columns = ["variant", "images", "prompts", *summary["panel"], "s/image", "evaluations/image"]
    note = "Mean scores with 95 % intervals over prompts. Nobody gives a verdict: no number says which image is right."
    if any(variant["relatives"] for variant in summary["variants"]):
        note += f" {RELATIVE_NOTE}"
    return Table(f"Scores on {prompt_set(summary)}", columns, rows, note)


def _moves(summary: dict[str, Any]) -> Table:
    """Paired differences by a panel to the variant that the others are compared with."""
    (base,) = [variant for variant in summary["variants"] if variant["variant"] == summary["against"]]
    others = [variant for variant in summary["variants"] if variant["difference"] is not None]
    rows = [
        [
            named(variant),
            *moves(variant["difference"], summary["panel"], {*variant["relatives"], *base["relatives"]}),
        ]
        for variant in others
    ]
    note = MOVES_NOTE
    if any(variant["relatives"] for variant in summary["variants"]):
        note += f" {RELATIVE} One of the two variants optimises for this network, or chooses by it."
    return Table(f"Each variant minus {summary['against']}", ["variant", *move_columns(summary["panel"])], rows, note)


RELATIVE = "*"
RELATIVE_NOTE = (
    f"{RELATIVE} The variant optimises for this network, or chooses by it, so the score says how well that worked and "
    "not what the image shows: a relative is no witness."
)
MOVES_NOTE = (
    "Paired by prompt and seed. Joint domination (collapse): every witness of the panel scores the image above (below) "
    "its pair; in all other pairs they disagree."
)


def move_columns(labels: Sequence[str]) -> list[str]:
    """Columns of `moves`."""
    return ["pairs", *labels, "joint domination", "joint collapse", "disagreement"]


def moves(difference: dict[str, Any], labels: Sequence[str], relatives: Collection[str]) -> list[str]:
    """Cells of paired differences by a panel; see `refcore_bench.statistics.panel_scores.compared`."""
    return [
        str(difference["pairs"]),
        *(score_of(difference["scores"][label], label in relatives, "+") for label in labels),
        *(share(difference[field]) for field in ("joint_domination", "joint_collapse", "disagreement")),
    ]


def score_of(estimate: dict[str, float], relative: bool, sign: str = "") -> str:
    """A mean score or difference, marked where the referee is a relative."""
    return number(estimate, sign, digits=3) + (f" {RELATIVE}" if relative else "")


def _accuracy(summary: dict[str, Any], what: str, title: str) -> Table:
    rows, task = [], tasks.get(summary["task"])
    there = {row["category"] for variant in summary["variants"] for row in variant["accuracy"]}
    columns = [category for category in (ALL, *task.categories) if category in there]
    for variant in summary["variants"]:
        cells = {(row["category"], row["split"]): row[what] for row in variant["accuracy"]}
        for split in (*task.splits, ALL):
            if (ALL, split) in cells:
                own = [share(cells[category, split]) if (category, split) in cells else NONE for category in columns]
                rows.append([named(variant), *([split] if task.splits else []), *own])
    return Table(title, ["variant", *(["split"] if task.splits else []), *columns], rows)


def _against(summary: dict[str, Any]) -> Table:
    rows, task = [], tasks.get(summary["task"])
    wording = task.wording
    for variant in summary["variants"]:
        if (found := variant["difference"]) is not None:
            whole = found["whole"][0] if found["pairs"] else found["facts"]  # the first row is of all categories
            rows.append(
                [
                    named(variant),
                    str(found["pairs"]),
                    points(whole),
                    *([points(found["facts"])] if wording.facts else []),
                    *(
                        points(found["measures"][m.title]) if m.share else number(found["measures"][m.title], "+")
                        for m in task.measures
                    ),
                    points(found["hack_rate"]),
                    points(found["panel_hack_rate"]),
                    share(found["joint_domination"]),
                    share(found["joint_collapse"]),
                ]
            )
    columns = ["variant", "pairs", wording.right, *([wording.facts] if wording.facts else [])]
    columns += [measure.title for measure in task.measures] + ["hack rate", "panel hack rate"]
    note = (
        "In points, paired by prompt and seed. Panel hack rate: accepted by all referees of the preset, whichever the "
        "variant optimises for. Joint domination (collapse): all of them score the image above (below) its pair."
    )
    return Table(
        f"Each variant minus {summary['against']}", [*columns, "joint domination", "joint collapse"], rows, note
    )


def _costs(summary: dict[str, Any]) -> Table:
    kinds = [k for k in summary["variants"][0]["evaluations"] if any(v["evaluations"][k] for v in summary["variants"])]
    rows = [
        [
            named(variant),
            f"{variant['steps']:.0f}",
            f"{variant['seconds']:.2f}",
            f"{variant['load_seconds']:.2f}",
            "/".join(map(str, variant["threads"])),
            f"{variant['model_evaluations']:.0f}",
            *(f"{variant['evaluations'][kind]:.0f}" for kind in kinds),
            variant["config_hash"],
        ]
        for variant in summary["variants"]
    ]
    columns = ["variant", "steps", "s", "s loading", "threads", "evaluations", *(k.replace("_", " ") for k in kinds)]
    return Table("Cost of an image", [*columns, "config"], rows)


def _thresholds(summary: dict[str, Any]) -> Table:
    rows = [
        [
            row["referee"],
            row["identity"],
            f"{row['threshold']:.4f}",
            f"{percent(row['accepts_true'])} %",
            f"{percent(row['accepts_wrong'])} %",
        ]
        for row in summary["thresholds"]
    ]
    columns = ["referee", "identity", "threshold", "accepts true captions", "accepts captions with one wrong fact"]
    return Table("Thresholds of the referees on clean renders", columns, rows)


def _checkpoints(summary: dict[str, Any]) -> Table:
    found = {model: digest for variant in summary["variants"] for model, digest in variant["checkpoints"].items()}
    return Table("Checkpoints", ["model", "hash"], [[model, digest] for model, digest in sorted(found.items())])
