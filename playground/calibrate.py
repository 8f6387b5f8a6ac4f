"""`python -m refcore_playground.calibrate`: how low each referee's loss gets on clean renders that match their prompts.

The renders are drawn here and were seen by no training; the file that it writes is what `satisfied_at.calibration` of a
referee's term and `calibration` of the prior `moments` read.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from refcore.calibration import Calibration, Curve, quantiles
from refcore.config import presets
from refcore.config.run import RunConfig
from refcore.engine.build import build, resolve
from refcore.engine.step import Engine
from refcore.runs.rundir import versions, write_text
from refcore_playground.draw import SPLITS, draw_prompts, draw_scene
from refcore_playground.grammar import parse
from refcore_playground.render import render_batch

BATCH = 16
"""Renders judged at a time."""


def calibrate(config: RunConfig, prompts: Sequence[str], renders: int, seed: int = 0) -> Calibration:
    """The losses of a config's referees, each in its own views, on `renders` fresh scenes of every prompt.

    Args:
        config: its referees, views, canvas and dtypes count; its prompts and how it moves do not.
        prompts: of the playground's grammar.
        renders: scenes drawn for each prompt.
        seed: of scenes and views.

    Raises:
        RefcoreError: as `refcore.engine.build.build`.
        ValueError: a prompt is not of the grammar.
    """
    config = resolve(_judging(config, prompts, seed))
    engine = build(config)
    losses: dict[str, list[list[float]]] = {label: [[] for _ in prompts] for label in config.referee_labels}
    statistics = []
    for turn in range(renders):
        for first in range(0, len(prompts), BATCH):
            places = list(range(first, min(first + BATCH, len(prompts))))
            images = _renders([prompts[b] for b in places], seed, turn).to(engine.device)
            step = turn * len(prompts) + first  # every batch has views of its own
            for group in dict.fromkeys(term.views for term in config.referees):
                found = engine.losses(images, places, group, step)
                for label, term in zip(config.referee_labels, config.referees, strict=True):
                    if term.views == group:
                        for b, loss in zip(places, found[label].tolist(), strict=True):
                            losses[label][b].append(loss)
            statistics += _latent_statistics(engine, images)
    curves = tuple(
        Curve(
            term.name,
            term.config,
            term.prompt,
            term.wanted,
            renders * len(prompts),
            quantiles([loss for of_prompt in losses[label] for loss in of_prompt]),
            {prompt: quantiles(losses[label][b]) for b, prompt in enumerate(prompts)} if renders > 1 else {},
        )
        for label, term in zip(config.referee_labels, config.referees, strict=True)
    )
    about = {
        "prompts": len(prompts),
        "renders": renders,
        "seed": seed,
        "views": {name: group.model_dump(mode="json") for name, group in config.views.items()},
        "versions": versions(),
    }
    return Calibration(curves, about, _means(statistics))


def _judging(config: RunConfig, prompts: Sequence[str], seed: int) -> RunConfig:
    """The config's referees alone, all of them asked these prompts."""
    settings = config.settings()
    kept = ("canvas", "size", "views", "chunk", "device", "dtype", "autocast")
    referees = [{**term, "satisfied_at": None} for term in settings["referees"]]
    return RunConfig.from_settings(
        {name: settings[name] for name in kept} | {"referees": referees, "prompts": list(prompts), "seeds": [seed]}
    )


def _renders(prompts: Iterable[str], seed: int, turn: int) -> Tensor:
    """[N, 3, 64, 64] in [0, 1]: a scene of each prompt."""
    scenes = [draw_scene(parse(prompt), random.Random(f"calibration-{seed}-{turn}-{prompt}")) for prompt in prompts]
    return torch.from_numpy(render_batch(scenes))


def _latent_statistics(engine: Engine, images: Tensor) -> list[Any]:
    """Of every image's latent, the mean and the log of the standard deviation of each channel, [2, C]."""
    name = engine.canvas.latent_name()
    if name is None or engine.canvas.size != tuple(images.shape[-2:]):
        return []
    latents = engine.canvas.encode(images)[name].double().flatten(2)
    return list(torch.stack([latents.mean(2), latents.std(2, correction=0).log()], 1).cpu().numpy())


def _means(statistics: list[Any]) -> dict[str, list[float]] | None:
    if not statistics:
        return None
    mean, log_std = np.mean(statistics, 0)
    return {"mean": np.round(mean, 4).tolist(), "std": np.round(np.exp(log_std), 4).tolist()}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m refcore_playground.calibrate", description=__doc__)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--preset", default=None, help=f"its referees are calibrated (default: {presets.DEFAULT})")
    source.add_argument("--config", type=Path, help="a YAML file instead of a preset")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="overrides")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--prompt", action="append", help="calibrate these prompts instead of drawn ones (repeatable)")
    parser.add_argument("--prompts", type=int, default=120, help="prompts to draw, all categories in turn")
    parser.add_argument("--split", choices=SPLITS, default="seen", help="of the drawn prompts")
    parser.add_argument("--renders", type=int, default=4, help="scenes of each prompt")
    parser.add_argument("--seed", type=int, default=7000, help="of prompts, scenes and views")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    config = presets.compose(args.preset, args.config, args.set)
    prompts = args.prompt or draw_prompts(args.prompts, args.seed, split=args.split)
    found = calibrate(config, prompts, args.renders, args.seed)
    write_text(args.out, found.to_json() + "\n")
    for label, curve in zip(config.referee_labels, found.curves, strict=True):
        print(f"{label}: median {curve.of(0.5):.4f}, 10 % {curve.of(0.1):.4f}, 90 % {curve.of(0.9):.4f}")


if __name__ == "__main__":
    main()
