"""A comparison of runs as tables of text; see `refcore_bench.showing.run_comparison`."""

from __future__ import annotations

import json
from typing import Any

from refcore.config.terms import UNWANTED
from refcore_bench.showing.tables import MOVES_NOTE, RELATIVE, RELATIVE_NOTE, move_columns, moves, score_of
from refcore_bench.table import NONE, Table, points, share

MOST_ROWS = 40
"""Longest table of single images; all of them are in the JSON."""
LONGEST = 72
"""Characters of a value that is shown; the JSON has the whole."""


def comparison_tables(found: dict[str, Any]) -> list[Table]:
    """The tables of a comparison: what differs, mean scores and costs, differences, single images."""
    names, shared = [run["run"] for run in found["runs"]], found["shared_samples"]
    made = [_fields(found, names)] if found["differences"] else []
    made.append(_means(found))
    if shared and (found["panel"] or found["judged"]):
        made.append(_differences(found))
        if shared * len(names) <= MOST_ROWS:
            made.append(_images(found))
    return made


def remarks(found: dict[str, Any]) -> list[str]:
    """What a reader should know besides, a line each."""
    said = [] if found["differences"] else ["The configs do not differ."]
    if not found["shared_samples"]:
        said.append("The runs share no prompt and seed, so no scores are compared.")
    elif not found["panel"]:
        said.append("The runs share no scores; give them the same witnesses to compare them.")
    if found["left_out"]:
        said.append("Not compared: " + "; ".join(f"{label} ({why})" for label, why in found["left_out"].items()) + ".")
    if found["other_settings"]:
        said.append(f"On the same network, with other settings in each run: {', '.join(found['other_settings'])}.")
    return said


def _fields(found: dict[str, Any], names: list[str]) -> Table:
    rows = [
        [row["field"], *(_value(row["values"][name]) if name in row["values"] else NONE for name in names)]
        for row in found["differences"]
    ]
    return Table("What differs", ["field", *names], rows)


def _means(found: dict[str, Any]) -> Table:
    rows = []
    for run in found["runs"]:
        counted, seconds = run["model_evaluations"], run["seconds"]
        rows.append(
            [
                run["run"],
                str(run["samples"]),
                *([share(run["verdict"])] if found["judged"] else []),
                *(score_of(run["scores"][label], label in run["relatives"]) for label in found["panel"]),
                str(run["steps"]),
                NONE if seconds is None else f"{seconds:.1f}",
                *([f"{counted:.0f}"] if counted is not None else []),
            ]
        )
    shared = found["shared_samples"]
    counted = ["evaluations/image"] if found["runs"][0]["model_evaluations"] is not None else []
    columns = ["run", "samples", *(["verdict yes"] if found["judged"] else []), *_heads(found)]
    note = "Mean scores with 95 % intervals over prompts, of the prompts and seeds that all runs have."
    if any(run["relatives"] for run in found["runs"]):
        note += f" {RELATIVE_NOTE.replace('variant', 'run')}"
    return Table(
        f"Scores on {shared} shared {'sample' if shared == 1 else 'samples'}",
        [*columns, "steps", "s/image", *counted],
        rows,
        note if found["panel"] else "",
    )


def _differences(found: dict[str, Any]) -> Table:
    base, *others = found["runs"]
    rows = [
        [
            run["run"],
            *([points(run["difference"]["verdict"])] if found["judged"] else []),
            *moves(run["difference"], found["panel"], {*run["relatives"], *base["relatives"]}),
        ]
        for run in others
    ]
    columns = ["run", *(["verdict yes, points"] if found["judged"] else []), *move_columns(_heads(found))]
    note = MOVES_NOTE
    if any(run["relatives"] for run in found["runs"]):
        note += f" {RELATIVE} One of the two runs optimises for this network."
    return Table(f"Each run minus {found['against']}", columns, rows, note)


def _images(found: dict[str, Any]) -> Table:
    rows = [
        [
            pair["prompt"],
            str(pair["seed"]),
            said["run"],
            *(f"{said['scores'][label]:.3f}" for label in found["panel"]),
            *(["yes" if said["verdict"] else "no"] if found["judged"] else []),
        ]
        for pair in found["pairs"]
        for said in pair["runs"]
    ]
    columns = ["prompt", "seed", "run", *_heads(found), *(["verdict"] if found["judged"] else [])]
    return Table("Image by image", columns, rows)


def _heads(found: dict[str, Any]) -> list[str]:
    return [f"{label} ({UNWANTED})" if label in found["unwanted"] else label for label in found["panel"]]


def _value(value: Any) -> str:
    """A value in one line: a long one is cut, and a section is shown without its nulls."""
    text = value if isinstance(value, str) else json.dumps(_without_nulls(value), ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value
