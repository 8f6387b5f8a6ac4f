"""Runs made by hand, compared: what differs in their configs, and their scores, paired by prompt and seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refcore.config.differences import ABSENT, differences
from refcore.errors import RefcoreError
from refcore.runs.stored import StoredRun, read_run
from refcore_bench import making
from refcore_bench.relatives import networks, optimised
from refcore_bench.statistics.intervals import NOTHING, rate
from refcore_bench.statistics.pairing import difference, image_of, pairs_of
from refcore_bench.statistics.panel_scores import compared, scores_of
from refcore_bench.task import Row


@dataclass(frozen=True)
class Shared:
    """The scores that several runs have in common."""

    labels: list[str]
    unwanted: list[str]
    """Those of the labels whose score should be low."""
    other_settings: list[str]
    """Those of the labels whose config differs between the runs, on the same network."""
    left_out: dict[str, str]
    """Label -> why its scores are not compared."""


def read_runs(folders: Sequence[Path]) -> list[StoredRun]:
    """The finished runs in two or more different folders.

    Raises:
        RefcoreError: fewer than two, one of them twice, and what `read_run` refuses.
    """
    if len(folders) < 2:
        raise RefcoreError("one folder was given; expected two or more runs to compare")
    seen: dict[Path, Path] = {}
    for folder in folders:
        if (before := seen.setdefault(folder.resolve(), folder)) is not folder:
            same = "is given twice" if str(before) == str(folder) else f'is the same folder as "{before}"'
            raise RefcoreError(f'"{folder}" {same}; name each run once')
    return [read_run(folder) for folder in folders]


def compare(runs: Sequence[StoredRun], evaluations: bool = False) -> dict[str, Any]:
    """All numbers of `refcore bench compare`; each run is compared with the first.

    Args:
        runs: two or more.
        evaluations: whether to count model evaluations, which takes making the first image of each run again.
    """
    names = _names(runs)
    shared = _shared(runs, names)
    rows = [_rows(run, shared) for run in runs]
    common = set.intersection(*({image_of(row) for row in own} for own in rows))
    rows = [[row for row in own if image_of(row) in common] for own in rows]
    judged = bool(common) and all(row["verdict"] is not None for own in rows for row in own)
    panel = {label: label for label in shared.labels} if common else {}
    return {
        "against": names[0],
        "differences": _differences(runs, names),
        "shared_samples": len(common),
        "panel": list(panel),
        "unwanted": shared.unwanted,
        "other_settings": shared.other_settings,
        "left_out": shared.left_out,
        "judged": judged,
        "runs": [
            {
                "run": name,
                "path": str(run.path),
                "samples": len(run.samples),
                "relatives": _relatives(run, panel),
                "scores": scores_of(own, panel),
                "verdict": rate([row["verdict"] for row in own]).to_dict() if judged else None,
                "steps": run.result.get("steps"),
                "seconds": _seconds(run),
                "model_evaluations": _evaluations(run) if evaluations else None,
                "difference": None if run is runs[0] or not common else _minus(own, rows[0], panel, shared, judged),
            }
            for name, run, own in zip(names, runs, rows, strict=True)
        ],
        "pairs": [
            {
                "prompt": first["prompt"],
                "seed": first["seed"],
                "runs": [_said(row, name) for name, own in zip(names, rows, strict=True) for row in own
                         if image_of(row) == image_of(first)],
            }
            for first in rows[0]
        ],
    }  # fmt: skip


def _names(runs: Sequence[StoredRun]) -> list[str]:
    """Names of the folders, or their paths where two have the same."""
    short = [run.path.resolve().name for run in runs]
    return short if len(set(short)) == len(short) else [str(run.path) for run in runs]


def _differences(runs: Sequence[StoredRun], names: Sequence[str]) -> list[dict[str, Any]]:
    """Field -> its value by run, of fields of the config that differ; a run that lacks the field is left out.

    So are the hashes of the checkpoints that all runs used, and the versions of the libraries.
    """
    about: list[dict[str, Any]] = [dict(run.settings) for run in runs]
    for field in ("checkpoints", "versions"):
        found = [run.result.get(field) or {} for run in runs]
        common = set.intersection(*map(set, found))
        for config, own in zip(about, found, strict=True):
            config[field] = {name: own[name] for name in own if name in common}
    return [
        {"field": field, "values": {name: v for name, v in zip(names, values, strict=True) if v is not ABSENT}}
        for field, values in differences(about)
    ]


def _terms(run: StoredRun) -> dict[str, dict[str, Any]]:
    """Label -> its term in the config; scores are listed in the order of the terms."""
    first = run.samples[0]
    found: dict[str, dict[str, Any]] = {}
    for field, terms in (("scores", "referees"), ("witnesses", "witnesses")):
        found.update(zip(first.get(field) or {}, run.settings.get(terms) or [], strict=False))
    return found


def _shared(runs: Sequence[StoredRun], names: Sequence[str]) -> Shared:
    """The labels under which every run has the same question to the same network."""
    terms = [_terms(run) for run in runs]
    digests = [run.result.get("checkpoints") or {} for run in runs]
    every = list(dict.fromkeys(label for own in terms for label in own))
    labels, other_settings, left_out = [], [], {}
    for label in every:
        having = [name for name, own in zip(names, terms, strict=True) if label in own]
        if len(having) < len(runs):
            left_out[label] = f"only in {', '.join(having)}"
            continue
        asked = [
            (term["name"], term.get("prompt"), term.get("coarse"), networks([term], own))
            for term, own in zip((own[label] for own in terms), digests, strict=True)
        ]
        if any(question != asked[0] for question in asked):
            left_out[label] = "another network, prompt or coarseness"
        elif any(_scores(sample).get(label) is None for run in runs for sample in run.samples):
            left_out[label] = "a score failed"
        else:
            labels.append(label)
            if any(own[label].get("config") != terms[0][label].get("config") for own in terms):
                other_settings.append(label)
    low = {label for run in runs for label in run.result.get("unwanted") or ()}
    return Shared(labels, [label for label in labels if label in low], other_settings, left_out)


def _rows(run: StoredRun, shared: Shared) -> list[Row]:
    """A row for each prompt and seed, as a benchmark has them; labels stand for identities."""
    rows: dict[tuple[str, int], Row] = {}
    for sample in run.samples:
        found = _scores(sample)
        scores = [
            {"referee": label, "identity": label, "score": found[label], "panel": label not in shared.unwanted}
            for label in shared.labels
        ]
        about = {"prompt": sample["prompt"], "seed": sample["seed"], "category": "", "split": ""}
        row = {**about, "scores": scores, "verdict": sample.get("verdict"), "image": sample.get("image")}
        rows.setdefault((sample["prompt"], sample["seed"]), row)
    return list(rows.values())


def _scores(sample: dict[str, Any]) -> dict[str, float | None]:
    return {**sample["scores"], **(sample.get("witnesses") or {})}


def _relatives(run: StoredRun, panel: dict[str, str]) -> list[str]:
    """The labels that are no witnesses of a run; see `refcore_bench.relatives`."""
    terms, digests = _terms(run), run.result.get("checkpoints") or {}
    own = optimised(run.settings, digests)
    return [label for label in panel if networks([terms[label]], digests) & own]


def _minus(
    rows: Sequence[Row], baseline: Sequence[Row], panel: dict[str, str], shared: Shared, judged: bool
) -> dict[str, Any]:
    pairs = pairs_of(rows, baseline)
    found = compared(pairs, panel)
    if set(panel) <= set(shared.unwanted):  # nobody is left whose score should be high
        found |= dict.fromkeys(("joint_domination", "joint_collapse", "disagreement"), NOTHING.to_dict())
    return {**found, "verdict": difference(pairs, lambda row: row["verdict"]).to_dict() if judged else None}


def _said(row: Row, name: str) -> dict[str, Any]:
    scores = {score["referee"]: score["score"] for score in row["scores"]}
    return {"run": name, "scores": scores, "verdict": row["verdict"], "image": row["image"]}


def _seconds(run: StoredRun) -> float | None:
    """Seconds an image, without loading models and without the final scoring and writing."""
    timings = run.result.get("timings") or {}
    if not {"start", "steps"} <= set(timings):
        return None
    return float(timings["start"] + timings["steps"]) / len(run.samples)


def _evaluations(run: StoredRun) -> float:
    first = run.samples[0]
    try:
        return making.cost(run.settings, first["prompt"], first["seed"])
    except RefcoreError as error:
        raise RefcoreError(f'the run in "{run.path}" cannot be made again to count its evaluations: {error}') from error
