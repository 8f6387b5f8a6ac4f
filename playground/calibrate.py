"""`python -m refcore_playground.calibrate`: writes a calibration, the losses of referees on clean renders of prompts.

No referee was trained on these renders. A referee term reads the file by `satisfied_at.calibration`, the prior
`moments` by `calibration`.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from refcore.calibration import Calibration, Curve, quantiles
from refcore.config import presets
from refcore.config.run import RunConfig
from refcore.engine.build import build, resolve
from refcore.engine.step import Engine
from refcore.moment import Moment
from refcore.runs.rundir import refuse_existing, versions, write_text
from refcore_playground.draw import SPLITS, draw_prompts, draw_scene
from refcore_playground.grammar import Request, parse
from refcore_playground.render import render_batch

Array = NDArray[np.float64]
BATCH = 16
"""Renders per batch."""


def calibrate(config: RunConfig, prompts: Sequence[str], renders: int, seed: int = 0) -> Calibration:
    """The losses of a config's referees, each in its own views, on `renders` fresh scenes of every prompt.

    Args:
        config: run config; only its referees, views, canvas and dtypes matter.
        prompts: prompts of the playground's grammar.
        renders: scenes per prompt.
        seed: random seed of scenes and views.

    Raises:
        RefcoreError: as `refcore.engine.build.build`.
        ValueError: a prompt is not of the grammar.
    """
    config = resolve(_judging(config, prompts, seed))
    engine = build(config)
    requests = [parse(prompt) for prompt in prompts]
    losses: dict[str, list[list[float]]] = {label: [[] for _ in prompts] for label in config.referee_labels}
    statistics: list[Array] = []
    for turn in range(renders):
        for first in range(0, len(prompts), BATCH):
            places = list(range(first, min(first + BATCH, len(prompts))))
            streams = [f"calibration-{seed}-{turn}-{prompts[b]}" for b in places]
            images = _renders([requests[b] for b in places], streams).to(engine.device)
            # Every batch has views of its own, as in the steps of a run.
            at = Moment(turn * len(prompts) + first, renders * len(prompts))
            for group in dict.fromkeys(term.views for term in config.referees):
                found = engine.losses(images, places, group, at)
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
    """The config's referees alone, on these prompts."""
    settings = config.settings()
    kept = ("canvas", "size", "views", "chunk", "device", "dtype", "autocast")
    referees = [{**term, "satisfied_at": None} for term in settings["referees"]]
    return RunConfig.from_settings(
        {name: settings[name] for name in kept} | {"referees": referees, "prompts": list(prompts), "seeds": [seed]}
    )


def _renders(requests: Sequence[Request], streams: Sequence[str]) -> Tensor:
    """A scene of each request, drawn from its random stream: [N, 3, 64, 64] in [0, 1]."""
    scenes = [draw_scene(request, random.Random(stream)) for request, stream in zip(requests, streams, strict=True)]
    return torch.from_numpy(render_batch(scenes))


def _latent_statistics(engine: Engine, images: Tensor) -> list[Array]:
    """Mean and log standard deviation of each channel of each image's latent, [2, C] per image."""
    name = engine.canvas.latent_name()
    if name is None or engine.canvas.size != tuple(images.shape[-2:]):
        return []
    latents = engine.canvas.encode(images)[name].double().flatten(2)
    return list(torch.stack([latents.mean(2), latents.std(2, correction=0).log()], 1).cpu().numpy())


def _means(statistics: Sequence[Array]) -> dict[str, list[float]] | None:
    if not statistics:
        return None
    mean, log_std = np.mean(statistics, 0)
    return {"mean": np.round(mean, 4).tolist(), "std": np.round(np.exp(log_std), 4).tolist()}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m refcore_playground.calibrate", description=__doc__)
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--preset", default=None, help=f"preset whose referees to calibrate (default: {presets.DEFAULT})"
    )
    source.add_argument("--config", type=Path, help="YAML file instead of a preset")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="override a config field")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--prompt", action="append", help="calibrate this prompt instead of drawn ones (repeatable)")
    parser.add_argument(
        "--prompts", type=int, default=120, help="number of prompts to draw, cycling through categories"
    )
    parser.add_argument("--split", choices=SPLITS, default="seen", help="split of the drawn prompts")
    parser.add_argument("--renders", type=int, default=4, help="scenes per prompt")
    parser.add_argument("--seed", type=int, default=7000, help="random seed of prompts, scenes and views")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    args = parser.parse_args(argv)
    refuse_existing(args.out, "--out")
    torch.set_num_threads(args.threads)
    config = presets.compose(args.preset, args.config, args.set)
    prompts = args.prompt or draw_prompts(args.prompts, args.seed, split=args.split)
    found = calibrate(config, prompts, args.renders, args.seed)
    write_text(args.out, found.to_json() + "\n")
    for label, curve in zip(config.referee_labels, found.curves, strict=True):
        print(f"{label}: median {curve.of(0.5):.4f}, 10 % {curve.of(0.1):.4f}, 90 % {curve.of(0.9):.4f}")


if __name__ == "__main__":
    main()
