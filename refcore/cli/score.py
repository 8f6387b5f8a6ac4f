"""`refcore score`: what referees and witnesses say of an image file."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from refcore import images, registry
from refcore.checkpoints import needed_by
from refcore.cli.output import print_json, print_table, warn
from refcore.config import presets
from refcore.config.run import RunConfig
from refcore.config.terms import PROMPT, RefereeTerm, Witness
from refcore.errors import RefcoreError, unknown

Term = RefereeTerm | Witness


def run(
    image: Path,
    prompt: str,
    wanted: list[str],
    preset_name: str | None,
    config_file: Path | None,
    overrides: list[str],
    as_json: bool,
) -> None:
    if not prompt.strip():
        raise RefcoreError("the prompt is empty; expected some words")
    config = presets.compose(preset_name, config_file, overrides)
    terms = choose(config, wanted)
    pixels = images.read(image)
    with needed_by(preset_name if config_file is not None else preset_name or presets.DEFAULT):
        scores = {label: _score(config, field, term, pixels, prompt) for label, (field, term) in terms.items()}
    if as_json:
        values = {label: score for label, (score, _) in scores.items()}
        units = {label: unit for label, (_, unit) in scores.items()}
        print_json({"image": str(image), "prompt": prompt, "scores": values, "units": units})
    else:
        print_table(["referee", "score", "unit"], [(label, f"{s:.4f}", unit) for label, (s, unit) in scores.items()])


def choose(config: RunConfig, wanted: list[str]) -> dict[str, tuple[str, Term]]:
    """Label -> (dotted field, term): those of the config by label or name; others by name, with their defaults.

    Raises:
        RefcoreError: neither the config nor the registry knows the name.
    """
    listed: list[tuple[str, str, Term]] = [
        (label, f"referees.{i}", term)
        for i, (label, term) in enumerate(zip(config.referee_labels, config.referees, strict=True))
    ]
    listed += [
        (label, f"witnesses.{i}", term)
        for i, (label, term) in enumerate(zip(config.witness_labels, config.witnesses, strict=True))
    ]
    if not wanted:
        return {label: (field, term) for label, field, term in listed}
    chosen: dict[str, tuple[str, Term]] = {}
    for name in wanted:
        own = {label: (field, term) for label, field, term in listed if name in (label, term.name)}
        if not own:
            if name not in registry.names("referees"):
                raise unknown("referee", name, {*registry.names("referees"), *(label for label, _, _ in listed)})
            own = {name: ("--referee", RefereeTerm(name=name))}
        chosen |= own
    return chosen


def _score(config: RunConfig, field: str, term: Term, pixels: Any, prompt: str) -> tuple[float, str]:
    """The score of one image [3, H, W], as a run scores its results, and its unit."""
    import torch

    from refcore.engine.build import pick_device, plugin_config
    from refcore.engine.views import coarsen, resize

    device = pick_device(config.device)
    referee = registry.get("referees", term.name, field)(plugin_config("referees", term, field))
    referee.load(device, getattr(torch, term.dtype or config.dtype))
    conditioning = referee.read([term.prompt.replace(PROMPT, prompt)])
    for cut in filter(None, conditioning.truncated):
        warn(f'"{term.name}" does not read the end of the prompt: "{cut}" is cut')
    seen = pixels[None].to(device)
    if isinstance(term, Witness) and term.coarse is not None:
        seen = coarsen(seen, term.coarse)
    precision = config.autocast if term.autocast is None else term.autocast
    context = nullcontext() if precision in (None, "off") else torch.autocast(device.type, getattr(torch, precision))
    with torch.no_grad(), context:
        score = referee.score(resize(seen, referee.input_size), conditioning.to(device))
    return float(score[0]), referee.score_unit
