"""`refcore score`: what referees and witnesses say of an image file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from refcore import images, registry
from refcore.cli.output import print_json, print_table, warn
from refcore.config import presets
from refcore.config.panel import Labelled
from refcore.config.run import RunConfig
from refcore.config.terms import UNWANTED, RefereeTerm, Witness
from refcore.errors import RefcoreError, unknown
from refcore.prompts import problem_of


def run(
    image: Path,
    prompt: str,
    wanted: list[str],
    preset_name: str | None,
    config_file: Path | None,
    overrides: list[str],
    as_json: bool,
) -> None:
    if problem := problem_of(prompt):
        raise RefcoreError(f"the prompt {problem}")
    config = presets.compose(preset_name, config_file, overrides)
    chosen = choose(config, wanted)
    negated = {own.label for own in config.panel.referees if not own.term.wanted}
    unwanted = [entry.label for entry in chosen if entry.label in negated]
    pixels = images.read(image)

    from refcore.engine.loading import load_panel  # torch, after the mistakes of a command line

    with presets.needed_by(presets.name_of(preset_name, config_file)):
        panel = load_panel(replace(config.panel, samples=[(prompt, 0)], referees=(), witnesses=chosen, chunk=None))
    for warning in panel.warnings:
        warn(warning)
    scores = {label: float(values[0]) for label, values in panel.scores(pixels[None].to(panel.device)).items()}
    if as_json:
        about = {"image": str(image), "prompt": prompt}
        print_json({**about, "scores": scores, "units": panel.units, "unwanted": unwanted})
    else:
        rows = [
            (label, f"{score:.4f}", panel.units[label] + (f" ({UNWANTED})" if label in unwanted else ""))
            for label, score in scores.items()
        ]
        print_table(["referee", "score", "unit"], rows)


def choose(config: RunConfig, wanted: list[str]) -> list[Labelled[Witness]]:
    """Who scores: referees and witnesses of the config by label or name, others by name with their defaults.

    Args:
        config: whose terms are chosen from.
        wanted: names and labels; empty for all of the config's.

    Raises:
        RefcoreError: neither the config nor the registry knows the name.
    """
    panel = config.panel
    listed = [Labelled(own.label, own.term.scoring(), own.field) for own in panel.referees] + [*panel.witnesses]
    if not wanted:
        return listed
    chosen: dict[str, Labelled[Witness]] = {}
    for name in wanted:
        own = [entry for entry in listed if name in (entry.label, entry.term.name)]
        if not own:
            if name not in registry.names("referees"):
                raise unknown("referee", name, {*registry.names("referees"), *(entry.label for entry in listed)})
            own = [Labelled(name, RefereeTerm(name=name).scoring(), "--referee")]
        chosen |= {entry.label: entry for entry in own}
    return list(chosen.values())
