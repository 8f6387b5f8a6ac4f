"""The report of a run, as one file that opens from disk: made from the run's folder alone."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refcore import images
from refcore.config.terms import UNWANTED
from refcore.errors import RefcoreError
from refcore.images import Levels
from refcore.objective import Objective
from refcore.runs import rundir
from refcore.runs.report.config_lines import config_lines
from refcore.runs.report.curves import Curves, Record, curves
from refcore.runs.report.pictures import Picture, animation, picture, sheet
from refcore.runs.report.recording import VIEW_SAMPLES, Recording
from refcore.runs.stored import StoredRun, look_at

REPORT = rundir.REPORT
MOST_BYTES = 3_000_000
"""Of the page."""
PICTURES = 1_600_000
"""Bytes of the page that its pictures may take; curves have at most 0.9 MB, text the rest."""
SHARES = {"result": 0.42, "film": 0.28, "animation": 0.18, "views": 0.07, "others": 0.05}
"""Of the bytes of pictures."""
MOST_SAMPLES, MOST_OTHERS, MOST_STILLS = 8, 40, 12
"""Samples shown whole, samples shown by a small picture, and pictures of a film strip."""
MOST_ROWS = 200
"""Rows of the table of scores."""
NEGLIGIBLE = 0.01
"""Share of a score by which it may change without being called better or worse."""
LEAST = 0.001
"""Smallest change of a score, of which three digits are shown, that is called so."""
LONGEST = 400
"""Characters of a prompt or note that are shown."""


@dataclass(frozen=True)
class Score:
    """A referee's or witness's score of a sample, at the start and at the end."""

    label: str
    kind: str
    """referee, witness, or a referee whose score should be low."""
    unit: str
    start: float | None
    end: float | None

    @property
    def change(self) -> float | None:
        """End minus start."""
        return None if self.start is None or self.end is None else self.end - self.start

    @property
    def better(self) -> bool | None:
        """Whether the end is better than the start; None where that is not known, or hardly anything has changed."""
        if self.start is None or self.end is None:
            return None
        if abs(self.end - self.start) <= max(NEGLIGIBLE * max(abs(self.end), abs(self.start)), LEAST):
            return None
        return (self.end > self.start) != (self.kind == UNWANTED)


@dataclass(frozen=True)
class Shown:
    """A sample on the page."""

    number: int
    """Counted from 1."""
    prompt: str
    seed: int
    candidate: int
    verdict: bool | None
    facts: list[dict[str, Any]]
    scores: list[Score]
    notes: list[str]
    result: Picture | None
    film: list[tuple[str, Picture]]
    """Caption and picture."""
    animation: Picture | None


def write_report(folder: Path, history: Sequence[Record] | None = None) -> Path:
    """Writes `report.html` into the folder of a run, which may be unfinished, and returns its path.

    An earlier report is replaced, since it can be made again.

    Args:
        folder: of the run.
        history: one record a step; None: as the folder has it.

    Raises:
        RefcoreError: the folder holds no run, or cannot be written to.
    """
    path = folder / REPORT
    rundir.write_text(path, report(look_at(folder), history))
    return path


def report(run: StoredRun, history: Sequence[Record] | None = None) -> str:
    """The page; at most `MOST_BYTES` long."""
    from refcore.runs.report.html import render

    recording = Recording.read(run.path)
    records = run.history if history is None else history
    budget = PICTURES
    while True:
        page = render("report.html.jinja", **_values(run, recording, records, budget))
        if len(page.encode()) <= MOST_BYTES or not budget:
            return page
        budget = budget // 2 if budget > 10_000 else 0


def _values(run: StoredRun, recording: Recording, history: Sequence[Record], budget: int) -> dict[str, Any]:
    """All that the template shows."""
    samples = run.samples
    shown = _samples(run, recording, budget)
    numbers = list(range(len(shown)))
    found = curves(history, numbers, [samples[b].get("candidate") for b in numbers])
    settings, result = run.settings, run.result
    prompts = [cut(each) for each in dict.fromkeys(sample["prompt"] for sample in samples)]
    return {
        "title": prompts[0] if len(prompts) == 1 else f"{len(prompts)} prompts",
        "prompts": prompts[:MOST_ROWS],
        "seeds": _some(list(dict.fromkeys(sample["seed"] for sample in samples))),
        "count": len(samples),
        "samples": shown,
        "others": _others(run, len(shown), budget),
        "others_count": len(samples) - len(shown),
        "ended": ended(run, len(history)),
        "good": run.is_finished,
        "preset": recording.preset,
        "began": recording.began,
        "competing": _competing(settings),
        "curves": found,
        "data": _data(found),
        "views": _views(recording, run.path, samples, budget),
        "objective": cut(recording.objective or _objective(settings), 4000),
        "lines": config_lines(settings, recording.changed),
        "recorded": bool(recording.began),
        "changed": len(recording.changed),
        "rows": _rows(run, recording),
        "labels": _labels(run, recording),
        "warnings": [cut(each) for each in recording.warnings[:MOST_ROWS]],
        "notes": [cut(each) for each in recording.notes[:MOST_ROWS]],
        "facts": _facts(run),
        "checkpoints": dict(list((result.get("checkpoints") or {}).items())[:MOST_ROWS]),
        "versions": result.get("versions") or {},
        "command": command(run.path),
        "has_scores": any(score.start is not None for own in shown for score in own.scores),
    }


def _samples(run: StoredRun, recording: Recording, budget: int) -> list[Shown]:
    """The first samples, with their pictures."""
    samples = run.samples[:MOST_SAMPLES]
    count = max(1, len(samples))
    frames = [
        (frame, tiles[0])
        for frame in recording.frames
        if (tiles := recording.pictures(run.path, frame.file, len(recording.samples))) is not None
    ]
    shown = []
    for b, sample in enumerate(samples):
        name = f'"{cut(sample["prompt"], 120)}", seed {sample["seed"]}'
        own = [(frame.step, tiles[b]) for frame, tiles in frames if b < len(tiles)]
        final = image_of(run, b)
        largest = final if final is not None else own[-1][1] if own else None
        stills = [own[round(i * (len(own) - 1) / (MOST_STILLS - 1))] for i in range(MOST_STILLS)]\
            if len(own) > MOST_STILLS else own  # fmt: skip
        share = {part: int(budget * part_share / count) for part, part_share in SHARES.items()}
        each = share["film"] // max(1, len(stills))
        film = [(step, picture(tile, f"{name}, after {step} steps", each, 128)) for step, tile in stills]
        moving = animation([tile for _, tile in own], f"{name}, from the start to the end", share["animation"])
        shown.append(
            Shown(
                b + 1,
                cut(sample["prompt"]),
                sample["seed"],
                sample.get("candidate", 0),
                sample.get("verdict"),
                sample.get("facts") or [],
                _scores(run, recording, b),
                [cut(note) for note in sample.get("notes") or []],
                None if largest is None else picture(largest, f"result: {name}", share["result"]),
                [(_moment(step), still) for step, still in film if still is not None],
                moving,
            )
        )
    return shown


def _moment(step: int) -> str:
    return "start" if not step else str(step)


def _others(run: StoredRun, first: int, budget: int) -> list[tuple[str, Picture]]:
    """Small pictures of the samples that are not shown whole."""
    found, samples = [], run.samples[first : first + MOST_OTHERS]
    each = int(budget * SHARES["others"] / max(1, len(samples)))
    for b, sample in enumerate(samples, first):
        levels = image_of(run, b)
        name = f"{b + 1}: {cut(sample['prompt'], 120)}, seed {sample['seed']}"
        small = None if levels is None else picture(levels, name, each, 64)
        if small is not None:
            found.append((name, small))
    return found


def image_of(run: StoredRun, b: int) -> Levels | None:
    """The image of a sample, as its file has it."""
    try:
        return images.read_levels(run.path / rundir.image_name(b))
    except RefcoreError:
        return None


def _views(
    recording: Recording, path: Path, samples: Sequence[Mapping[str, Any]], budget: int
) -> list[tuple[str, list[tuple[str, list[Picture]]]]]:
    """(referees, (moment, one picture a sample)) of the views that were recorded."""
    recorded = [
        (seen, tiles)
        for seen in recording.seen
        if (tiles := recording.pictures(path, seen.file, seen.views, min(VIEW_SAMPLES, len(recording.samples))))
    ]
    total = sum(len(tiles) for _, tiles in recorded)
    each = int(budget * SHARES["views"] / max(1, total))
    found: dict[str, list[tuple[str, list[Picture]]]] = {}
    for seen, tiles in recorded:
        referees, shown = ", ".join(seen.referees), []
        for b, own in enumerate(tiles):
            alt = f'"{cut(samples[b]["prompt"], 120)}", {len(own)} views of {referees} in step {seen.step}'
            if small := picture(sheet([own[:2], own[2:]] if len(own) > 2 else [own]), alt, each, 196):
                shown.append(small)
        if shown:
            found.setdefault(referees, []).append((str(seen.step), shown))
    return list(found.items())


def _labels(run: StoredRun, recording: Recording) -> list[tuple[str, str]]:
    """(label, kind) of the referees and witnesses that score."""
    first = run.samples[0] if run.samples else {}
    unwanted = run.result.get("unwanted") or ()
    known = {label: UNWANTED if label in unwanted else "referee" for label in first.get("scores") or {}}
    known |= dict.fromkeys(first.get("witnesses") or {}, "witness")
    if not run.result:
        known |= dict.fromkeys(recording.scores, "")
    return list(known.items())


def _scores(run: StoredRun, recording: Recording, b: int) -> list[Score]:
    sample, units = run.samples[b], run.result.get("units") or {}
    end = {**(sample.get("scores") or {}), **(sample.get("witnesses") or {})}
    found = []
    for label, kind in _labels(run, recording):
        start = recording.scores.get(label) or []
        found.append(Score(label, kind, units.get(label, ""), start[b] if b < len(start) else None, end.get(label)))
    return found


def _rows(run: StoredRun, recording: Recording) -> list[tuple[int, str, int, list[Score]]]:
    """(number, prompt, seed, scores) of the samples that are not shown whole."""
    most = min(MOST_ROWS, 1000 // max(1, len(_labels(run, recording))))
    rows = enumerate(run.samples[MOST_SAMPLES : MOST_SAMPLES + most], MOST_SAMPLES)
    return [(b + 1, cut(own["prompt"], 100), own["seed"], _scores(run, recording, b)) for b, own in rows]


def _competing(settings: Mapping[str, Any]) -> bool:
    candidates = settings.get("candidates") or {}
    return (candidates.get("count") or 1) > 1 or (candidates.get("tries") or 1) > 1


def _data(found: Curves) -> dict[str, Any]:
    """The numbers of the curves, for the script."""
    charts = {"loss": found.losses, "norm": found.norms, "angle": found.angles}
    return {
        "steps": found.steps,
        "charts": {f"{kind}-{i}": chart.lines for kind, own in charts.items() for i, chart in enumerate(own)},
    }


def _objective(settings: Mapping[str, Any]) -> str:
    try:
        return str(Objective.from_settings({kind: settings.get(kind) or [] for kind in ("referees", "priors")}))
    except RefcoreError:
        return ""


def _facts(run: StoredRun) -> list[tuple[str, str]]:
    """Short facts about a run, by name."""
    result, timings = run.result, run.result.get("timings") or {}
    seconds = ", ".join(f"{name} {value:.1f} s" for name, value in timings.items())
    chunks = ", ".join(f"{label} {size}" for label, size in (result.get("chunks") or {}).items())
    facts = [("device", result.get("device") or ""), ("time", seconds), ("views at a time", chunks)]
    return [(name, cut(str(value))) for name, value in facts if value]


def ended(run: StoredRun, steps: int) -> str:
    """How a run ended, in words."""
    if not run.result:
        return f"unfinished: {steps} steps are in the history"
    done, planned = run.result.get("steps"), run.settings.get("steps")
    if run.is_finished:
        return f"finished after {done} steps"
    return f"stopped after {done} of {planned} steps: {cut(str(run.result.get('stopped')))}"


def command(path: Path) -> str:
    """The command that repeats a run."""
    return f"refcore invert --config {shlex.quote(str(path / rundir.CONFIG))} --out NEW"


def cut(text: str, most: int = LONGEST) -> str:
    """A text in one line, of so many characters at most."""
    line = " ".join(str(text).split())
    return line if len(line) <= most else f"{line[: most - 3]}..."


def _some(values: Sequence[Any], most: int = 20) -> str:
    shown = ", ".join(str(value) for value in values[:most])
    return shown if len(values) <= most else f"{shown} and {len(values) - most} more"
