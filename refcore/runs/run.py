"""`refcore.invert`: prompts in, images and scores out, in one call."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from refcore import registry
from refcore.config import presets
from refcore.config.run import RunConfig
from refcore.config.settings import dump_yaml, override
from refcore.contracts.judge import Judge
from refcore.engine.build import plugin_config, resolve, uses
from refcore.engine.inversion import Inversion, StepResult
from refcore.errors import RefcoreError
from refcore.objective import Objective, as_objective
from refcore.plugin import Plugin
from refcore.runs.rundir import RunDir, refuse_taken


@dataclass(frozen=True)
class Sample:
    """One image of a result: what was asked, and what each referee and witness says of it."""

    prompt: str
    seed: int
    scores: dict[str, float]
    candidate: int = 0
    """Which of the sample's candidates it is; 0 where there is one."""


@dataclass(frozen=True)
class Result:
    """What a run made. `images[i]` belongs to `samples[i]`; the order is prompts x seeds, prompts outermost."""

    images: Tensor
    """[B, 3, H, W] float32 in [0, 1], on the CPU."""
    samples: tuple[Sample, ...]
    config: RunConfig
    """All that the run depended on, the plugins' defaults included."""
    history: list[dict[str, Any]] = field(repr=False)
    """One record a step: losses and gradient norms by term, one number a sample."""
    warnings: tuple[str, ...] = ()
    """What of the prompts was not read."""
    notes: tuple[str, ...] = ()
    """How referees understood the prompts, where that is not plain."""


def invert(
    prompts: str | Iterable[str],
    *,
    preset: str | None = None,
    config: RunConfig | Mapping[str, Any] | str | Path | None = None,
    overrides: Iterable[str] = (),
    objective: Objective | Plugin | type[Plugin] | None = None,
    seeds: Sequence[int] | int | None = None,
    out: str | Path | None = None,
    on_step: Callable[[StepResult], None] | None = None,
) -> Result:
    """Optimises an image for every prompt and seed until the referees agree that it matches.

    Args:
        prompts: one, or several.
        preset: its name; the embedded playground if neither it nor `config` is given.
        config: instead of a preset: a RunConfig, its settings as a mapping, or the path of a YAML file.
        overrides: such as "referees.0.weight=0.5", as `--set` of the command line.
        objective: replaces the referees (and the priors, where it has any): `2 * Clip() + MyReferee()`, or one plugin.
        seeds: one, or several for each prompt; by default those of the config.
        out: a folder for images, config, history and scores; by default nothing is written.
        on_step: called after every step.

    Raises:
        RefcoreError: anything wrong with the arguments, a missing checkpoint, NaN from a referee, a folder that holds
            another run.

    Example:
        >>> import refcore
        >>> result = refcore.invert("a red circle", seeds=[0, 1])       # doctest: +SKIP
        >>> result.images.shape, result.samples[0].scores              # doctest: +SKIP
    """
    fields: dict[str, Any] = {"prompts": [prompts] if isinstance(prompts, str) else list(prompts)}
    if seeds is not None:
        fields["seeds"] = [seeds] if isinstance(seeds, int) else list(seeds)
    composed = _compose(preset, config, overrides, fields)
    if objective is not None:
        composed = as_objective(objective).into(composed)
    composed = resolve(composed)
    if out is not None:
        refuse_taken(out)
    began = time.perf_counter()
    inversion = Inversion(composed)
    loaded = time.perf_counter()
    folder = None if out is None else RunDir.claim(out)
    if folder is not None:
        folder.write_config(dump_yaml(inversion.recorded.settings()))

    def finish(stopped: str | None = None) -> None:
        if folder is not None:
            folder.finish(inversion, {"load": loaded - began, "steps": time.perf_counter() - loaded}, stopped)

    history = []
    try:
        for step in inversion:
            history.append(step.record())
            if folder is not None:
                folder.append_history(history[-1])
            if on_step is not None:
                on_step(step)
    except BaseException as error:  # whatever ends the run, Ctrl-C included: what it has made is kept
        finish(stopped=str(error) or type(error).__name__)
        raise
    finish()
    images = inversion.images()
    scores = {label: values.tolist() for label, values in inversion.scores(images).items()}
    samples = tuple(
        Sample(prompt, seed, {label: values[b] for label, values in scores.items()}, candidate)
        for b, ((prompt, seed), candidate) in enumerate(zip(inversion.samples, inversion.leaders(), strict=True))
    )
    return Result(images.float().cpu(), samples, inversion.recorded, history, inversion.warnings, inversion.notes)


def _compose(
    preset: str | None,
    config: RunConfig | Mapping[str, Any] | str | Path | None,
    overrides: Iterable[str],
    fields: dict[str, Any],
) -> RunConfig:
    if config is None or isinstance(config, (str, Path)):
        return presets.compose(preset, config, overrides, **fields)
    if preset is not None:
        raise RefcoreError(f'both the preset "{preset}" and a config were given; expected one of them')
    settings = config.settings() if isinstance(config, RunConfig) else dict(config)
    return RunConfig.from_settings({**override(settings, overrides), **fields})


def judge_of(config: RunConfig) -> Judge | None:
    """The judge of the world that a run's checkpoints come from; None where they come from none, or from several."""
    named = {
        model for field, kind, use in uses(config) for model in plugin_config(kind, use, field).checkpoints().values()
    }
    worlds = {model.partition(":")[0] for model in named if ":" in model} & set(registry.names("judges"))
    return registry.create("judges", worlds.pop()) if len(worlds) == 1 else None
