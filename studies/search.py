"""The limits of the preset's search, for docs/results/playground.md: are there right candidates, and are they chosen?

    python studies/search.py              # the table, from the committed studies/rows/search.json
    python studies/search.py --measure    # first measures the preset's detector again, some four minutes on one core
    python studies/search.py --measure --detector FOLDER --called NAME    # another detector in its place

The prompts are tuning prompts with a checkered star or triangle, which are held out of training.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from page import DOCS, ROWS, fill

from refcore import images
from refcore.config import presets
from refcore.config.run import RunConfig
from refcore.config.settings import override
from refcore.engine.build import build, resolve
from refcore.engine.start import start
from refcore.runs import rundir
from refcore_bench.table import grid
from refcore_bench.tasks.playground_prompts import TUNING_SEED, draw
from refcore_playground.grammar import parse
from refcore_playground.judge import judge

RESULT, PAGE = ROWS / "search.json", DOCS / "results" / "playground.md"
COUNT, BATCH, DRAWN = 40, 20, 900
HARD = (("checkered", "star"), ("checkered", "triangle"))
DETECTOR = "owlv2"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="make the candidates and judge them")
    parser.add_argument("--detector", help="folder of another detector")
    parser.add_argument("--called", default="the preset's", help="name of the detector in the table")
    given = parser.parse_args()
    found = json.loads(RESULT.read_text("utf-8")) if RESULT.is_file() else {}
    if given.measure:
        found[given.called] = measure(given.detector)
        rundir.write_text(RESULT, json.dumps(found, indent=1) + "\n")
    fill(PAGE, Path(__file__).name, parts())
    print(f"wrote {PAGE.relative_to(DOCS.parent)}")


def parts() -> dict[str, str]:
    """The generated parts of the page."""
    columns = ["detector", "rounds", f"with a right candidate, of {COUNT}", "right choice", "right candidates"]
    rows = [
        [name, *(str(row[what]) for what in ("rounds", "some", "chosen")), f"{100 * row['share']:.0f} %"]
        for name, measured in json.loads(RESULT.read_text("utf-8")).items()
        for row in measured
    ]
    return {"search": grid(columns, rows)}


def prompts() -> list[str]:
    """The first `COUNT` of the unseen tuning prompts with one of the `HARD` combinations."""
    drawn = [one.prompt for one in draw(DRAWN, TUNING_SEED, "unseen")]
    return [p for p in drawn if any((phrase.texture, phrase.shape) in HARD for phrase in parse(p).phrases)][:COUNT]


@torch.no_grad()
def measure(detector: str | None) -> list[dict[str, Any]]:
    """Before and after the preset's rounds: prompts with a right candidate, prompts with a right choice, of `COUNT`."""
    settings = presets.get(presets.DEFAULT).settings
    if detector is not None:
        place = [term["name"] for term in settings["referees"]].index(DETECTOR)
        settings = override(settings, [f"referees.{place}.config.model={detector}"])
    texts, rows = prompts(), []
    for rounds in ([], settings["init"]["rounds"]):
        made = []
        for first in range(0, COUNT, BATCH):
            made += _candidates(
                {**settings, "init": {**settings["init"], "rounds": rounds}}, texts[first : first + BATCH]
            )
        rows.append(
            {
                "rounds": len(rounds),
                "some": sum(any(right) for right, _ in made),
                "chosen": sum(right[best] for right, best in made),
                "share": round(sum(sum(right) / len(right) for right, _ in made) / len(made), 4),
            }
        )
    return rows


def _candidates(settings: dict[str, Any], texts: list[str]) -> list[tuple[list[bool], int]]:
    """For each prompt, whether each of its candidates is right before the first step, and the index of the choice."""
    engine = build(resolve(RunConfig.from_settings({**settings, "prompts": texts, "seeds": [0]})))
    everyone = list(range(len(engine.keys)))
    params = start(engine)
    best, _ = engine.ordered(engine.look(params, everyone), everyone)
    made, n = engine.decode(params, engine.end), engine.config.candidates.count
    right = [judge(images.levels(made[c]), texts[c // n]).verdict for c in everyone]
    return [(right[b * n : (b + 1) * n], own[0] - b * n) for b, own in enumerate(best)]


if __name__ == "__main__":
    main()
