"""Seconds until the judge is content: the default preset beside the paper's recipe, on the same embedded models.

    python -m refcore_playground.performance.verdict --trials 3 --prompts 12

Both recipes get the same number of tuning trials: random settings of the same four knobs, on prompts of their own, of
which the one with most images right is kept (the recipe's own settings are the first trial). Then each makes the images
of a fixed prompt set. At every look the images as they are then are judged, and what is counted is the processor time
of the steps, over all images. What a recipe does before its first step, sampling for example, is in it; judging is not.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
from dataclasses import asdict, dataclass
from typing import Any

import torch

from refcore import images, preset
from refcore.build import build
from refcore.config import RunConfig
from refcore.inversion import Inversion
from refcore_playground.judge import judge
from refcore_playground.performance.measure import seconds
from refcore_playground.sample import draw_prompts

PROMPTS_SEED, TUNING_SEED = 77, 1
LEVELS = (0.25, 0.5, 0.75, 0.9)
LOOKS = 10
"""Looks at the images of a run, evenly spread."""
BATCH = 4
KNOBS = ("optimizer.lr", "combine.factor", "prior weight", "guidance")
"""What a trial multiplies by a factor drawn log-uniformly from 1/SPAN to SPAN."""
SPAN = 2.0

Settings = dict[str, Any]


@dataclass(frozen=True)
class Look:
    seconds: float
    """Processor time an image, from its start."""
    right: float
    """Share of the images that the judge finds right."""


def recipes() -> dict[str, Settings]:
    """The default preset, and the paper's: BLIP-2 against SDS, ten views, its schedules, on the embedded models."""
    default = preset.get(preset.DEFAULT).settings
    paper = preset.get("vlminv").settings
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
        prior["config"]["guidance"] *= factors["guidance"]
    return changed


def _scaled(schedule: Any, factor: float) -> Any:
    if isinstance(schedule, (int, float)):
        return schedule * factor
    return {k: v * factor if k in ("start", "end", "peak", "value") else v for k, v in schedule.items()}


def looks(settings: Settings, prompts: list[str]) -> list[Look]:
    """The share of right images against the processor time an image."""
    steps = int(settings["steps"])
    times = sorted({round(steps * (i + 1) / LOOKS) for i in range(LOOKS)})
    spent, right = dict.fromkeys(times, 0.0), dict.fromkeys(times, 0)
    for first in range(0, len(prompts), BATCH):
        part = prompts[first : first + BATCH]
        config = RunConfig.parse({**settings, "prompts": part, "seeds": [0], "device": "cpu"})
        engine = build(config)
        made: list[Inversion] = []
        total = seconds(lambda config=config, engine=engine, made=made: made.append(Inversion(config, engine)))  # type: ignore[misc]
        (inversion,) = made
        for step in range(steps):
            if not inversion.done:
                total += seconds(lambda inversion=inversion: next(inversion))  # type: ignore[misc]
            if step + 1 in spent:
                spent[step + 1] += total
                for prompt, pixels in zip(part, inversion.images(), strict=True):
                    right[step + 1] += bool(judge(images.levels(pixels), prompt).verdict)
    return [Look(spent[t] / len(prompts), right[t] / len(prompts)) for t in times]


def tuned(settings: Settings, trials: int, prompts: list[str], rng: random.Random) -> tuple[Settings, float]:
    """The best of some trials, by the share of images right at the end, and that share."""
    best, reached = settings, -1.0
    for trial in range(trials):
        factors = {knob: 1.0 if not trial else math.exp(rng.uniform(-1, 1) * math.log(SPAN)) for knob in KNOBS}
        tried = turned(settings, factors)
        right = looks(tried, prompts)[-1].right
        print(json.dumps({"trial": trial, "factors": factors, "right": right}), file=sys.stderr, flush=True)
        if right > reached:
            best, reached = tried, right
    return best, reached


def seconds_to(level: float, found: list[Look]) -> float | None:
    """Seconds an image until so many are right; None where they never are."""
    return next((look.seconds for look in found if look.right >= level), None)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m refcore_playground.performance.verdict", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--prompts", type=int, default=24, help="of the fixed set")
    parser.add_argument("--trials", type=int, default=1, help="of tuning, for each recipe; 1 takes it as it is")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    given = parser.parse_args(argv)
    torch.set_num_threads(given.threads)
    prompts = draw_prompts(given.prompts, PROMPTS_SEED)
    practice = draw_prompts(max(4, given.prompts // 3), TUNING_SEED)
    result: dict[str, Any] = {"prompts": given.prompts, "trials": given.trials}
    for name, settings in recipes().items():
        rng = random.Random(f"verdict-{name}")
        own = tuned(settings, given.trials, practice, rng)[0] if given.trials > 1 else settings
        found = looks(own, prompts)
        result[name] = {
            "looks": [asdict(look) for look in found],
            "seconds_to": {str(level): seconds_to(level, found) for level in LEVELS},
        }
        print(json.dumps({name: result[name]}), file=sys.stderr, flush=True)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
