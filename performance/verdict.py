"""Seconds until the judge is satisfied: the default preset against the paper's recipe, on the same embedded models.

    python -m performance.verdict --trials 3 --prompts 24 --json verdict.json

Both recipes get the same number of tuning trials: random values of the same four knobs, on separate prompts; the trial
with the most right images is kept (the first trial is the recipe's own settings). Then each recipe makes the images of
a fixed prompt set. At every look the current images are judged and the processor time per image is recorded, including
work before the first step such as sampling, but not judging or loading. If a recipe keeps an average, its image counts,
too: a prompt is right at a look if either image is.

The ratio compares the seconds until a given share of prompts is right. A recipe that never gets there is given the
seconds of its whole run, and the ratio is a lower bound.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from performance.measure import seconds
from refcore import images
from refcore.config import presets
from refcore.config.run import RunConfig
from refcore.engine.build import build
from refcore.engine.inversion import Inversion, Which
from refcore_playground.draw import draw_prompts
from refcore_playground.judge import judge

PROMPTS_SEED, TUNING_SEED = 77, 1
LEVELS = (0.25, 0.5, 0.75, 0.9)
LEVEL = 0.9
"""Share of right images at which the ratio compares times."""
LOOKS = 20
"""Evenly spaced looks at the images of a run, after the one before its first step."""
BATCH = 4
KNOBS = ("optimizer.lr", "combine.factor", "prior weight", "guidance")
"""Settings that a trial multiplies by a factor drawn log-uniformly from 1/SPAN to SPAN."""
SPAN = 2.0

Settings = dict[str, Any]


@dataclass(frozen=True)
class Look:
    step: int
    """Steps done."""
    seconds: float
    """Processor time per image so far."""
    right: float
    """Share of images that the judge finds right."""


def recipes() -> dict[str, Settings]:
    """The default preset, and the paper's recipe (BLIP-2 against SDS, ten views, its schedules) on embedded models."""
    default = presets.get(presets.DEFAULT).settings
    paper = presets.get("vlminv").settings
    for use in (paper["canvas"], *paper["priors"]):
        use["config"]["model"] = "playground:diffusion"
    paper["canvas"]["config"].pop("recompute", None)
    paper["referees"][0]["config"] |= {"model": "playground:blip2", "itg_head": None}
    # The gradient is divided by the latent's height x width, 16 times fewer here than at 512 px.
    for end in ("start", "end"):
        paper["priors"][0]["weight"][end] /= 16
    return {"playground": default, "vlminv": {**paper, "size": 64}}


def turned(settings: Settings, factors: dict[str, float]) -> Settings:
    """The settings with their knobs multiplied; a schedule keeps its shape."""
    changed: Settings = json.loads(json.dumps(settings))
    changed["optimizer"]["lr"] = _scaled(changed["optimizer"]["lr"], factors["optimizer.lr"])
    changed["combine"]["factor"] = _scaled(changed["combine"].get("factor", 1.0), factors["combine.factor"])
    for prior in changed["priors"]:
        prior["weight"] = _scaled(prior.get("weight", 1.0), factors["prior weight"])
        if "guidance" in prior["config"]:
            prior["config"]["guidance"] = _scaled(prior["config"]["guidance"], factors["guidance"])
    return changed


def _scaled(schedule: Any, factor: float) -> Any:
    if isinstance(schedule, (int, float)):
        return schedule * factor
    return {k: v * factor if k in ("start", "end", "peak", "value") else v for k, v in schedule.items()}


def looks(settings: Settings, prompts: list[str]) -> list[Look]:
    """Share of right images against processor time per image."""
    steps = int(settings["steps"])
    times = sorted({math.ceil(steps * i / LOOKS) for i in range(LOOKS + 1)})
    spent, right = dict.fromkeys(times, 0.0), dict.fromkeys(times, 0)
    for first in range(0, len(prompts), BATCH):
        part = prompts[first : first + BATCH]
        config = RunConfig.from_settings({**settings, "prompts": part, "seeds": [0], "device": "cpu"})
        engine = build(config)
        made: list[Inversion] = []
        total = seconds(lambda config=config, engine=engine, made=made: made.append(Inversion(config, engine)))  # type: ignore[misc]
        (inversion,) = made
        for step in range(steps + 1):  # before it
            if step in spent:
                spent[step] += total
                right[step] += sum(_right(inversion, part))
            if step < steps and not inversion.done:
                total += seconds(lambda inversion=inversion: next(inversion))  # type: ignore[misc]
    return [Look(t, spent[t] / len(prompts), right[t] / len(prompts)) for t in times]


def _right(inversion: Inversion, prompts: list[str]) -> list[bool]:
    """For each prompt, whether the judge finds the current result or the average right."""
    kinds: set[Which] = {inversion.config.output} | ({"ema"} if inversion.tracks.ema is not None else set())
    found = [False] * len(prompts)
    for kind in kinds:
        for i, pixels in enumerate(inversion.images(kind)):
            found[i] = found[i] or bool(judge(images.levels(pixels), prompts[i]).verdict)
    return found


def tuned(
    settings: Settings, trials: int, prompts: list[str], rng: random.Random
) -> tuple[Settings, list[dict[str, Any]]]:
    """The best of some trials, by the final share of right images, and a record of each trial."""
    best, reached, records = settings, -1.0, []
    for trial in range(trials):
        factors = {knob: 1.0 if not trial else math.exp(rng.uniform(-1, 1) * math.log(SPAN)) for knob in KNOBS}
        tried = turned(settings, factors)
        end = looks(tried, prompts)[-1]
        records.append({"factors": factors, **asdict(end)})
        print(json.dumps(records[-1]), file=sys.stderr, flush=True)
        if end.right > reached:
            best, reached = tried, end.right
    return best, records


def seconds_to(level: float, found: list[Look]) -> float | None:
    """Seconds per image until this share is right; None if it is never reached."""
    return next((look.seconds for look in found if look.right >= level), None)


def ratio(ours: list[Look], theirs: list[Look]) -> dict[str, Any]:
    """Their seconds to LEVEL over ours; None if ours never get there, `at_least` if theirs do not."""
    mine, other = seconds_to(LEVEL, ours), seconds_to(LEVEL, theirs)
    value = None if mine is None else (theirs[-1].seconds if other is None else other) / mine
    return {"level": LEVEL, "value": value, "at_least": other is None}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m performance.verdict", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--prompts", type=int, default=24, help="prompts of the fixed set")
    parser.add_argument("--trials", type=int, default=1, help="tuning trials per recipe; 1 leaves it unchanged")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    given = parser.parse_args(argv)
    torch.set_num_threads(given.threads)
    prompts = draw_prompts(given.prompts, PROMPTS_SEED)
    practice = draw_prompts(max(4, given.prompts // 3), TUNING_SEED)
    result: dict[str, Any] = {"torch": torch.__version__, "prompts": prompts, "tuning_prompts": practice}
    made: list[list[Look]] = []
    for name, settings in recipes().items():
        rng = random.Random(f"verdict-{name}")
        own, trials = tuned(settings, given.trials, practice, rng) if given.trials > 1 else (settings, [])
        made.append(looks(own, prompts))
        result[name] = {
            "trials": trials,
            "looks": [asdict(look) for look in made[-1]],
            "seconds_to": {str(level): seconds_to(level, made[-1]) for level in LEVELS},
        }
        print(json.dumps({name: result[name]}), file=sys.stderr, flush=True)
    result["ratio"] = ratio(*made)
    print(json.dumps(result))
    if given.json is not None:
        given.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
