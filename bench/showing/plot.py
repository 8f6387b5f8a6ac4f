"""The summary as one figure: accuracy, hack rate, categories and cost; or what a panel says, without a verdict."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from refcore.errors import RefcoreError
from refcore.runs import rundir
from refcore_bench import tasks
from refcore_bench.extras import need
from refcore_bench.published import tables as published
from refcore_bench.showing.summary import ALL
from refcore_bench.showing.tables import named, prompt_set

COLOURS = {"seen": "#0072b2", "unseen": "#e69f00", "hack": "#d55e00", "all": "#333333"}
"""Okabe and Ito's palette, distinguishable by colour-blind readers."""
FORMATS = (".png", ".pdf", ".svg")


def write_plot(summary: dict[str, Any], path: Path) -> None:
    """Writes the figure in the format of the path's extension.

    Raises:
        RefcoreError: matplotlib is missing, the format is unknown, the path cannot be written to.
    """
    if path.suffix not in FORMATS:
        raise RefcoreError(f'--plot "{path}": "{path.suffix}" is not a known format; expected {", ".join(FORMATS)}')
    need("matplotlib").use("agg")
    pyplot = need("matplotlib.pyplot")
    names = [named(variant) for variant in summary["variants"]]
    height = 3.0 + 0.34 * len(names)
    task = tasks.get(summary["task"])
    title = f"{task.wording.title}: {prompt_set(summary)}, 95 % intervals"
    title += "; hollow: no witness, since the variant optimises for it" if task.wording.judge is None else ""
    if "metrics" in summary:
        title = f"{published.title(summary)}, 95 % intervals"
        figure = _measured(pyplot, summary, names)
    elif task.wording.judge is None:
        figure, axes = pyplot.subplots(
            1, len(summary["panel"]) + 1, figsize=(13, height), layout="constrained", sharey=True
        )
        _panel(axes, summary, names)
    else:
        figure, axes = pyplot.subplots(2, 2, figsize=(13, 2 * height), layout="constrained", width_ratios=[1.15, 1])
        _accuracy(axes[0, 0], summary, names)
        _hacks(axes[0, 1], summary, names)
        _categories(axes[1, 0], summary, names)
        _cost(axes[1, 1], summary)
    figure.suptitle(title)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix[1:], dpi=130)
    pyplot.close(figure)
    rundir.write(path, buffer.getvalue())


def _measured(pyplot: Any, summary: dict[str, Any], names: list[str]) -> Any:
    """Mean of each group, an axis for each, four in a row."""
    groups = published.columns(summary)
    wide = min(4, len(groups))
    high = -(-len(groups) // wide)
    size = (3.4 * wide + 1, high * (1.4 + 0.3 * len(names)) + 0.6)
    figure, axes = pyplot.subplots(high, wide, figsize=size, layout="constrained", sharey=True, squeeze=False)
    for axis, group in zip(axes.flat, groups, strict=False):
        for i, variant in enumerate(summary["variants"]):
            if (mean := variant["measured"].get(group)) and mean["n"]:
                error = [[mean["value"] - mean["low"]], [mean["high"] - mean["value"]]]
                axis.errorbar(mean["value"], i, xerr=error, fmt="o", color=COLOURS["all"], capsize=2)
        _rows(axis, names, published.head(summary, group))
        axis.locator_params(axis="x", nbins=4)
    for axis in axes.flat[len(groups) :]:
        axis.set_visible(False)
    return figure


def _panel(axes: Any, summary: dict[str, Any], names: list[str]) -> None:
    """Mean score by each witness, hollow for relatives, and the pairs in which all of them agree."""
    for axis, label in zip(axes, summary["panel"], strict=False):
        for i, variant in enumerate(summary["variants"]):
            mean, relative = variant["scores"][label], label in variant["relatives"]
            error = [[mean["value"] - mean["low"]], [mean["high"] - mean["value"]]]
            fill = "white" if relative else COLOURS["all"]
            axis.errorbar(mean["value"], i, xerr=error, fmt="o", color=COLOURS["all"], mfc=fill, capsize=2)
        _rows(axis, names, f"mean score by {label}")
    for i, variant in enumerate(summary["variants"]):
        left = 0.0
        for field, colour in (("joint_domination", "seen"), ("disagreement", None), ("joint_collapse", "hack")):
            width = 100 * variant["difference"][field]["value"] if variant["difference"] is not None else 0.0
            label = field.replace("_", " ") if i == len(names) - 1 else None
            axes[-1].barh(i, width, 0.5, left, color=COLOURS[colour] if colour else "#dddddd", label=label)
            left += width
    _rows(axes[-1], names, f"pairs with {summary['against']} (%)")
    axes[-1].set_xlim(0, 100)
    axes[-1].legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3, frameon=False, fontsize=8)


def _accuracy(axis: Any, summary: dict[str, Any], names: list[str]) -> None:
    task = tasks.get(summary["task"])
    for split, shift in zip(task.splits or (ALL,), (-0.16, 0.16) if task.splits else (0,), strict=True):
        for i, variant in enumerate(summary["variants"]):
            cells = {row["split"]: row["whole"] for row in variant["accuracy"] if row["category"] == ALL}
            if split in cells:
                label = f"{split} combinations" if i == 0 and task.splits else None
                _bar(axis, cells[split], i + shift, COLOURS[split], label)
    _dress(axis, names, f"{task.wording.right}{task.wording.suffix} (%)")
    if task.splits:
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.07), ncols=len(task.splits), frameon=False)


def _hacks(axis: Any, summary: dict[str, Any], names: list[str]) -> None:
    for i, variant in enumerate(summary["variants"]):
        _bar(axis, variant["hack_rate"], i, COLOURS["hack"])
    _dress(axis, names, f"hack rate (%): its referees accept, {tasks.get(summary['task']).wording.judge} rejects")


def _categories(axis: Any, summary: dict[str, Any], names: list[str]) -> None:
    task = tasks.get(summary["task"])
    there = {row["category"] for variant in summary["variants"] for row in variant["accuracy"]}
    columns = [category for category in (ALL, *task.categories) if category in there]
    values = np.full((len(names), len(columns)), np.nan)
    for i, variant in enumerate(summary["variants"]):
        for row in variant["accuracy"]:
            if row["split"] == ALL:
                values[i, columns.index(row["category"])] = 100 * row["whole"]["value"]
    axis.imshow(values, cmap="viridis", vmin=0, vmax=100, aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        if not np.isnan(value):
            axis.text(j, i, f"{value:.0f}", ha="center", va="center", color="black" if value > 60 else "white")
    axis.set_xticks(range(len(columns)), columns, rotation=30, ha="right")
    axis.set_yticks(range(len(names)), names)
    axis.set_title(f"{task.wording.right}{task.wording.suffix}, by category (%)", fontsize=10)


LABEL_GAP = 6.0
"""Minimum distance between two names beside the plot of costs, in percentage points."""


def _cost(axis: Any, summary: dict[str, Any]) -> None:
    """Accuracy against cost; names in a column beside the plot, in the order of their points, each with a line to its
    own."""
    wording = tasks.get(summary["task"]).wording
    lowest = 100.0 + LABEL_GAP
    for variant in sorted(summary["variants"], key=lambda variant: -variant["accuracy"][0]["whole"]["value"]):
        whole = variant["accuracy"][0]["whole"]
        x, y = variant["model_evaluations"], 100 * whole["value"]
        error = [[y - 100 * whole["low"]], [100 * whole["high"] - y]]
        axis.errorbar(x, y, error, fmt="o", color=COLOURS["all"], ecolor="#bbbbbb", capsize=2)
        lowest = min(y, lowest - LABEL_GAP)
        axis.annotate(
            named(variant),
            (x, y),
            (1.03, lowest),
            textcoords=axis.get_yaxis_transform(),
            va="center",
            fontsize=8,
            arrowprops={"arrowstyle": "-", "color": "#bbbbbb", "linewidth": 0.6, "relpos": (0, 0.5)},
        )
    axis.set_xscale("log")
    axis.margins(x=0.1)
    axis.set_ylim(-6, 106)
    axis.set_xlabel("model evaluations per image")
    axis.set_title(f"{wording.right}{wording.suffix} (%)", fontsize=10)
    axis.grid(alpha=0.3)


def _bar(axis: Any, estimate: dict[str, float], y: float, colour: str, label: str | None = None) -> None:
    value, low, high = (100 * estimate[field] for field in ("value", "low", "high"))
    axis.errorbar(value, y, xerr=[[value - low], [high - value]], fmt="o", color=colour, capsize=2, label=label)


def _dress(axis: Any, names: list[str], title: str) -> None:
    _rows(axis, names, title)
    axis.set_xlim(-2, 102)


def _rows(axis: Any, names: list[str], title: str) -> None:
    """A row for each variant."""
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_title(title, fontsize=10)
    axis.grid(axis="x", alpha=0.3)
