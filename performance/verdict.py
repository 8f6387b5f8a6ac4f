"""Seconds until the judge is content: the default preset beside the paper's recipe, on the same embedded models.

    python -m performance.verdict --trials 3 --prompts 24 --json verdict.json

Both recipes get the same number of tuning trials: random settings of the same four knobs, on prompts of their own, of
which the one with most images right is kept (the recipe's own settings are the first trial). Then each makes the images
of a fixed prompt set. At every look the images as they are then are judged, and what is counted is the processor time
an image of all before it: what a recipe does before its first step, sampling for example, is in it; judging is not, nor
is loading. Where a recipe keeps an average, its image counts as well: a prompt is right at a look if either image is.

The ratio is of the seconds until so many prompts are right. A recipe that never gets there has no such time; then all
of its seconds stand for it, and the ratio is a lower bound.
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
"""The share of right images whose time the ratio compares."""
LOOKS = 20
"""Looks at the images of a run, evenly spread, after the one before its first step."""
BATCH = 4
KNOBS = ("optimizer.lr", "combine.factor", "prior weight", "guidance")
"""What a trial multiplies by a factor drawn log-uniformly from 1/SPAN to SPAN."""
SPAN = 2.0

Settings = dict[str, Any]


@dataclass(frozen=True)
class Look:
    step: int
    """Steps done."""
    seconds: float
    """Processor time an image, from its start."""
    right: float
    """Share of the images that the judge finds right."""


def recipes() -> dict[str, Settings]:
    """The default preset, and the paper's: BLIP-2 against SDS, ten views, its schedules, on the embedded models."""
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
    """The settings with the knobs multiplied; a schedule keeps its form."""
    changed: Settings = json.loads(json.dumps(settings))
    changed["optimizer"]["lr"] *= factors["optimizer.lr"]
    changed["combine"]["factor"] = _scaled(changed["combine"].get("factor", 1.0), factors["combine.factor"])
    for prior in changed["priors"]:
        prior["weight"] = _scaled(prior.get("weight", 1.0), factors["prior weight"])
        if "guidance" in prior["config"]:
            prior["config"]["guidance"] *= factors["guidance"]
    return changed


def _scaled(schedule: Any, factor: float) -> Any:
    if isinstance(schedule, (int, float)):
        return schedule * factor
    return {k: v * factor if k in ("start", "end", "peak", "value") else v for k, v in schedule.items()}


def looks(settings: Settings, prompts: list[str]) -> list[Look]:
    """The share of right images against the processor time an image."""
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
    """Whether the judge finds the result so far, or the average, right; one a prompt."""
    kinds: set[Which] = {inversion.config.output} | ({"ema"} if inversion.tracks.ema is not None else set())
    found = [False] * len(prompts)
    for kind in kinds:
        for i, pixels in enumerate(inversion.images(kind)):
            found[i] = found[i] or bool(judge(images.levels(pixels), prompts[i]).verdict)
    return found


def tuned(
    settings: Settings, trials: int, prompts: list[str], rng: random.Random
) -> tuple[Settings, list[dict[str, Any]]]:
    """The best of some trials, by the share of images right at the end, and what each trial was."""
    best, reached, told = settings, -1.0, []
    for trial in range(trials):
        factors = {knob: 1.0 if not trial else math.exp(rng.uniform(-1, 1) * math.log(SPAN)) for knob in KNOBS}
        tried = turned(settings, factors)
        end = looks(tried, prompts)[-1]
        told.append({"factors": factors, **asdict(end)})
        print(json.dumps(told[-1]), file=sys.stderr, flush=True)
        if end.right > reached:
            best, reached = tried, end.right
    return best, told


def seconds_to(level: float, found: list[Look]) -> float | None:
    """Seconds an image until so many are right; None where they never are."""
    return next((look.seconds for look in found if look.right >= level), None)


def ratio(ours: list[Look], theirs: list[Look]) -> dict[str, Any]:
    """Their seconds to LEVEL over ours; None where ours never get there, `at_least` where theirs do not."""
    mine, other = seconds_to(LEVEL, ours), seconds_to(LEVEL, theirs)
    value = None if mine is None else (theirs[-1].seconds if other is None else other) / mine
    return {"level": LEVEL, "value": value, "at_least": other is None}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m performance.verdict", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--prompts", type=int, default=24, help="of the fixed set")
    parser.add_argument("--trials", type=int, default=1, help="of tuning, for each recipe; 1 takes it as it is")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
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
