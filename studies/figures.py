"""Figures of the studies: grids of framed pictures, and rates with their confidence intervals."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from PIL import Image

from refcore_bench.storing.contact_sheets import RIGHT, WRONG

matplotlib.use("agg")

from matplotlib import pyplot

SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
"""Okabe and Ito's palette, distinguishable by colour-blind readers."""
PANELS = {
    "whole prompts right (%)": lambda variant: variant["accuracy"][0]["whole"],
    "single facts right (%)": lambda variant: variant["accuracy"][0]["facts"],
    "hack rate (%)": lambda variant: variant["hack_rate"],
}
"""Title -> estimate of a variant in a benchmark's summary."""


def frame(axis: Any, row: Mapping[str, Any]) -> None:
    """Shows a picture of a benchmark's results, framed green for the verdict yes, red for no."""
    with Image.open(io.BytesIO(row["image"])) as picture:
        axis.imshow(picture, interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set(color=RIGHT if row["verdict"] else WRONG, linewidth=2)


def strip(rows: Mapping[tuple[str, str], Mapping[str, Any]], columns: Sequence[str], path: Path) -> None:
    """Writes a grid of pictures, a row per prompt; `rows` are keyed by prompt and column."""
    prompts = list(dict.fromkeys(prompt for prompt, _ in rows))
    width, height = 1.3 + 0.85 * len(columns), 0.35 + 0.85 * len(prompts)
    figure, axes = pyplot.subplots(len(prompts), len(columns), squeeze=False, figsize=(width, height))
    figure.subplots_adjust(1.3 / width, 0.01, 0.995, 1 - 0.35 / height, wspace=0.05, hspace=0.05)
    for prompt, line in zip(prompts, axes, strict=True):
        for column, axis in zip(columns, line, strict=True):
            frame(axis, rows[prompt, column])
        line[0].set_ylabel(textwrap.fill(prompt, 20), fontsize=7, rotation=0, ha="right", va="center")
    for column, axis in zip(columns, axes[0], strict=True):
        axis.set_title("+\n".join(column.rsplit("+", 1)), fontsize=7)
    save(figure, path, dpi=90)


def chart(variants: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Writes the `PANELS` with a row per variant of a benchmark's summary, with 95 % confidence intervals."""
    figure, axes = pyplot.subplots(1, len(PANELS), figsize=(10, 0.9 + 0.27 * len(variants)), layout="constrained")
    for axis, (title, estimate) in zip(axes, PANELS.items(), strict=True):
        for place, variant in enumerate(variants):
            value, low, high = _percent(estimate(variant))
            axis.errorbar(value, place, xerr=[[value - low], [high - value]], fmt="o", color=SERIES[0], capsize=2)
        axis.set_yticks(range(len(variants)), [variant["variant"] for variant in variants] if axis is axes[0] else [])
        axis.set(ylim=(len(variants) - 0.5, -0.5), xlim=(-3, 103))
        axis.set_title(title, fontsize=10)
        axis.grid(axis="x", alpha=0.3)
    save(figure, path)


def lines(variants: Sequence[Mapping[str, Any]], path: Path, along: str) -> None:
    """Writes the `PANELS` of variants called SERIES-NUMBER, a line per series; `along` names the axis of numbers."""
    named = {tuple(variant["variant"].rsplit("-", 1)): variant for variant in variants}
    numbers = sorted({number for _, number in named}, key=int)
    series = list(dict.fromkeys(name for name, _ in named))
    figure, axes = pyplot.subplots(1, len(PANELS), figsize=(10, 3.3), layout="constrained")
    for axis, (title, estimate) in zip(axes, PANELS.items(), strict=True):
        for i, (name, colour) in enumerate(zip(series, SERIES, strict=False)):
            own = [number for number in numbers if (name, number) in named]
            places = [numbers.index(number) + 0.08 * (i - (len(series) - 1) / 2) for number in own]
            values, low, high = zip(*(_percent(estimate(named[name, number])) for number in own), strict=True)
            errors = [
                [v - a for v, a in zip(values, low, strict=True)],
                [b - v for v, b in zip(values, high, strict=True)],
            ]
            axis.errorbar(places, values, yerr=errors, fmt="o-", color=colour, capsize=2, label=name)
        axis.set_xticks(range(len(numbers)), numbers)
        axis.set_xlabel(along)
        axis.set_ylim(-3, 103)
        axis.set_title(title, fontsize=10)
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False, fontsize=9)
    save(figure, path)


def save(figure: Any, path: Path, dpi: int = 110) -> None:
    """Writes a small PNG of at most 256 colours and closes the figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    pyplot.close(figure)
    with Image.open(buffer) as picture:
        picture.convert("RGB").quantize(256).save(path, optimize=True)


def _percent(estimate: Mapping[str, float]) -> tuple[float, float, float]:
    return 100 * estimate["value"], 100 * estimate["low"], 100 * estimate["high"]
