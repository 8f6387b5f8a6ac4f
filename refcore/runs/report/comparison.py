"""Several runs on one page: what differs in their configs, pictures side by side, curves over one another, scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refcore.config.differences import ABSENT, differences
from refcore.config.terms import UNWANTED
from refcore.errors import RefcoreError
from refcore.runs import rundir
from refcore.runs.report.config_lines import one_line
from refcore.runs.report.curves import Chart, Values, curves
from refcore.runs.report.page import PICTURES, Score, command, cut, ended, image_of
from refcore.runs.report.pictures import Picture, picture
from refcore.runs.stored import StoredRun, look_at

COMPARISON = "compare.html"
MOST_RUNS = 8
"""Runs on a page: as many as lines that can be told apart."""
MOST_SAMPLES, MOST_FIELDS = 24, 200
MOST_CHARTED = 4
"""Samples with curves."""


@dataclass(frozen=True)
class Cell:
    """One run's sample."""

    picture: Picture | None
    scores: list[tuple[str, float | None, float | None, bool | None]]
    """(label, score, difference from the first run, whether that is better; None where it is negligible)."""
    verdict: bool | None


@dataclass(frozen=True)
class Row:
    """A prompt with a seed, which some of the runs have."""

    prompt: str
    seed: int
    cells: list[Cell | None]
    """[R] of each run; None where it lacks the sample."""


def runs_in(folders: Sequence[Path]) -> list[StoredRun]:
    """Two or more runs to compare, finished or not.

    Raises:
        RefcoreError: fewer than two folders, more than `MOST_RUNS`, one of them twice, or one without a run.
    """
    if not 2 <= len(folders) <= MOST_RUNS:
        raise RefcoreError(f"{len(folders)} folders were given; expected 2 to {MOST_RUNS} runs to compare")
    seen: dict[Path, Path] = {}
    for folder in folders:
        if seen.setdefault(folder.resolve(), folder) is not folder:
            raise RefcoreError(f'"{folder}" is given twice; name each run once')
    return [look_at(folder) for folder in folders]


def names_of(runs: Sequence[StoredRun]) -> list[str]:
    """Names of the folders, or their paths where two have the same."""
    short = [run.path.resolve().name for run in runs]
    return short if len(set(short)) == len(short) else [str(run.path) for run in runs]


def fields_of(runs: Sequence[StoredRun]) -> list[tuple[str, list[str]]]:
    """(dotted field, its value in each run as text) of what differs in the configs."""
    return [
        (cut(name, 120), ["not there" if value is ABSENT else cut(one_line(value), 160) for value in values])
        for name, values in differences([run.settings for run in runs])[:MOST_FIELDS]
    ]


def write_comparison(runs: Sequence[StoredRun], path: Path) -> None:
    """Writes the page of a comparison.

    Raises:
        RefcoreError: there is such a file, or it cannot be written.
    """
    from refcore.runs.report.html import render

    rundir.refuse_existing(path, "--out")
    rundir.write_text(path, render("compare.html.jinja", **_values(runs)))


def free_path(folder: Path) -> Path:
    """`compare.html` in a folder, or the first free `compare-N.html`."""
    path, n = folder / COMPARISON, 0
    while path.exists():
        n += 1
        path = folder / f"{Path(COMPARISON).stem}-{n}.html"
    return path


def _values(runs: Sequence[StoredRun]) -> dict[str, Any]:
    """All that the template shows."""
    names = names_of(runs)
    rows = _rows(runs)
    charts, data = _charts(runs, rows)
    return {
        "title": f"{len(runs)} runs compared",
        "names": [cut(name, 80) for name in names],
        "runs": [
            {"name": cut(name, 80), "ended": ended(run, len(run.history)), "good": run.is_finished,
             "samples": len(run.samples), "command": command(run.path)}
            for name, run in zip(names, runs, strict=True)
        ],
        "fields": fields_of(runs),
        "rows": rows,
        "left_out": max(0, len(_samples(runs)) - len(rows)),
        "charts": charts,
        "data": data,
    }  # fmt: skip


def _samples(runs: Sequence[StoredRun]) -> list[tuple[str, int]]:
    """(prompt, seed) of what most runs have, first; otherwise in the runs' order."""
    counts: dict[tuple[str, int], int] = {}
    for run in runs:
        for each in dict.fromkeys((sample["prompt"], sample["seed"]) for sample in run.samples):
            counts[each] = counts.get(each, 0) + 1
    return sorted(counts, key=lambda each: -counts[each])


def _rows(runs: Sequence[StoredRun]) -> list[Row]:
    samples = _samples(runs)[:MOST_SAMPLES]
    each = int(PICTURES * 0.95 / max(1, len(samples) * len(runs)))
    unwanted = {label for run in runs for label in run.result.get("unwanted") or ()}
    return [Row(cut(prompt), seed, _cells(runs, prompt, seed, each, unwanted)) for prompt, seed in samples]


def _cells(runs: Sequence[StoredRun], prompt: str, seed: int, budget: int, unwanted: set[str]) -> list[Cell | None]:
    cells: list[Cell | None] = []
    first: dict[str, float | None] | None = None
    for run, name in zip(runs, names_of(runs), strict=True):
        b = place_of(run, prompt, seed)
        if b is None:
            cells.append(None)
            continue
        sample = run.samples[b]
        scores: dict[str, float | None] = {**(sample.get("scores") or {}), **(sample.get("witnesses") or {})}
        first = scores if first is None else first
        levels = image_of(run, b)
        alt = f'{cut(name, 80)}: "{cut(prompt, 120)}", seed {seed}'
        cells.append(
            Cell(
                None if levels is None else picture(levels, alt, budget, 384),
                [_score(label, value, first, scores is first, unwanted) for label, value in list(scores.items())[:20]],
                sample.get("verdict"),
            )
        )
    return cells


def _score(
    label: str, value: float | None, first: dict[str, float | None], is_first: bool, unwanted: set[str]
) -> tuple[str, float | None, float | None, bool | None]:
    before = first.get(label)
    kind = UNWANTED if label in unwanted else "referee"
    compared = Score(label, kind, "", None if is_first else before, value)
    name = f"{label} ({UNWANTED})" if label in unwanted else label
    return name, value, compared.change, compared.better


def place_of(run: StoredRun, prompt: str, seed: int) -> int | None:
    """The number of a run's sample; None where it has none of the prompt and seed."""
    found = [b for b, own in enumerate(run.samples) if (own["prompt"], own["seed"]) == (prompt, seed)]
    return found[0] if found else None


def _charts(runs: Sequence[StoredRun], rows: Sequence[Row]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The losses of the first samples that two runs or more have: a chart a term, a line a run."""
    samples = [
        (prompt, seed)
        for prompt, seed in _samples(runs)[:MOST_SAMPLES]
        if sum(place_of(run, prompt, seed) is not None for run in runs) > 1
    ][:MOST_CHARTED]
    last = max((record["step"] for run in runs for record in run.history[-1:]), default=0)
    grid = sorted({round(last * i / 199) for i in range(200)})
    found: list[dict[str, Any]] = []
    data: dict[str, list[Values]] = {}
    for number, (prompt, seed) in enumerate(samples):
        terms: dict[str, list[Values]] = {}
        for r, run in enumerate(runs):
            b = place_of(run, prompt, seed)
            if b is None:
                continue
            own = curves(run.history, [b], [run.samples[b].get("candidate")])
            for chart in own.losses:
                lines = terms.setdefault(chart.title, [[None] * len(grid) for _ in runs])
                lines[r] = _on(grid, own.steps, chart.lines[0])
        charts = [_chart(label, lines) for label, lines in terms.items()]
        ids = [f"{number}-{i}" for i in range(len(charts))]
        data |= {name: chart.lines for name, chart in zip(ids, charts, strict=True)}
        found.append({"prompt": cut(prompt), "seed": seed, "charts": list(zip(ids, charts, strict=True))})
    return found, {"steps": grid, "charts": data}


def _on(grid: Sequence[int], steps: Sequence[int], values: Values) -> Values:
    """Values at some steps, on a common grid: at each of its steps the last known, none after the run's end."""
    known = dict(zip(steps, values, strict=True))
    found: Values = []
    last: float | None = None
    for before, step in zip([-1, *grid], grid, strict=False):
        inside = [known[s] for s in range(before + 1, step + 1) if s in known]
        last = inside[-1] if inside else (last if steps and step <= steps[-1] else None)
        found.append(last)
    return found


def _chart(label: str, lines: list[Values]) -> Chart:
    known = [value for line in lines for value in line if value is not None] or [0.0]
    return Chart(label, "loss, lower is better", lines, min(known), max(known))
