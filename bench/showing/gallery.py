"""Every image beside its prompt, verdict, facts and scores: one HTML file that opens without a server."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from refcore.runs import rundir
from refcore_bench.extras import need
from refcore_bench.published import tables as published
from refcore_bench.published.summary import Measured
from refcore_bench.published.task import PublishedTask
from refcore_bench.showing.tables import prompt_set, tables
from refcore_bench.statistics.hacks import accepted
from refcore_bench.storing.contact_sheets import side_of
from refcore_bench.storing.results import Results
from refcore_bench.task import Accepts, Score

TEMPLATE = "gallery.html.jinja"
NARROWEST, WIDEST = 168, 256
"""Displayed width in pixels; smaller pictures are enlarged with square pixels."""


def write_gallery(results: Results, summary: dict[str, Any], path: Path) -> None:
    """Writes the page: the tables, then for each prompt and seed the images of all variants side by side.

    Raises:
        RefcoreError: jinja2 is missing, the folder has no pictures, the path cannot be written to.
    """
    jinja2 = need("jinja2")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    groups = _groups(results)
    every = [image for group in groups for image in group["images"]]
    side = side_of(every[0]["png"])
    page = environment.get_template(TEMPLATE).render(
        title=_title(results, summary),
        width=min(max(NARROWEST, side), WIDEST),
        pixelated=side < NARROWEST,
        tables=tables(summary),
        groups=groups,
        variants=list(dict.fromkeys(image["variant"] for image in every)),
        categories=list(dict.fromkeys(group["category"] for group in groups)),
        splits=list(dict.fromkeys(group["split"] for group in groups)),
        count=len(every),
        verdicts=["yes", "no", "hacked"] if results.task.wording.judge is not None else [],
    )
    rundir.write_text(path, page)


def _title(results: Results, summary: dict[str, Any]) -> str:
    if "metrics" in summary:
        return published.title(summary)
    return f"{results.task.wording.title}: {prompt_set(summary)}"


def _groups(results: Results) -> list[dict[str, Any]]:
    """One group per prompt and seed, with the image of every variant that has one."""
    accepts = results.accepts()
    measured = Measured(results) if isinstance(results.task, PublishedTask) else None
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in results.rows(images=True).to_dicts():
        head = {field: row[field] for field in ("prompt", "category", "split", "seed")}
        group = groups.setdefault(tuple(head.values()), {**head, "images": []})
        believed = accepted(row, accepts, "optimised")
        group["images"].append(
            {
                "variant": row["variant"],
                "verdict": row["verdict"],
                "hacked": believed and row["verdict"] is False,
                "facts": row["facts"],
                "found": f", {row['facts_found']} of {row['facts_asked']} facts" if row["facts_asked"] > 1 else "",
                "measurements": measured.of(row) if measured is not None else [],
                "scores": [{**score, "answer": _answer(score, accepts)} for score in row["scores"]],
                "png": row["image"],
                "source": "data:image/png;base64," + base64.b64encode(row["image"]).decode(),
            }
        )
    return list(groups.values())


def _answer(score: Score, accepts: Accepts) -> str:
    """accepts or rejects; "" for referees that play no part in a hack."""
    if not (score["optimised"] or score["panel"]):
        return ""
    answer = accepts(score)
    return "" if answer is None else "accepts" if answer else "rejects"
