"""The panel that a command line names: witnesses by name, of a preset, of a YAML file, or written out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from refcore import registry
from refcore.config import presets
from refcore.config.labels import labels
from refcore.config.run import RunConfig
from refcore.config.terms import PROMPT, Witness
from refcore.config.yaml_text import read_yaml
from refcore.engine.build import plugin_config, resolve
from refcore.engine.loading import create
from refcore.errors import RefcoreError, unknown
from refcore.explain import validated
from refcore_bench.option_text import split
from refcore_bench.scorers import identity, judged, witnesses

Entry = dict[str, Any]
"""A resolved `witnesses` entry with its label."""
OPTION = "--panel"


def read_panel(texts: Sequence[str], prompts: Sequence[str] = (), preset: str = presets.DEFAULT) -> list[Entry]:
    """The witnesses that `--panel` names, each once, checked as far as that takes no model.

    Args:
        texts: values of the option; each names witnesses with commas between them: NAME (of the preset, by label or
            name, or any referee with its defaults), PRESET:NAME, FILE.yaml with a list `witnesses`, or a term in
            braces, `{name: clip, config: {...}}`.
        prompts: that the witnesses will read.
        preset: whose terms a NAME means.

    Raises:
        RefcoreError: nothing is named, an unknown name, a wrong term, a missing checkpoint or package, a prompt that a
            witness cannot read.
    """
    found: dict[str, Entry] = {}
    for text in texts:
        for part in filter(None, (part.strip() for part in split(text))):
            for entry in _entries(part, preset):
                found.setdefault(identity(entry), entry)
    if not found:
        raise RefcoreError(f"{OPTION} names nobody; expected referees, such as {OPTION} clip,blip2")
    entries = list(found.values())
    for entry, label in zip(entries, labels((entry["label"], None) for entry in entries), strict=True):
        entry["label"] = label
        term = Witness.model_validate(entry)
        try:
            create("referees", term, OPTION).check([term.prompt.replace(PROMPT, prompt) for prompt in prompts])
        except RefcoreError as error:
            raise RefcoreError(f'{OPTION}: "{label}" cannot score these prompts: {error}') from error
    return entries


def _entries(part: str, preset: str) -> list[Entry]:
    """The witnesses of one name, file or term."""
    if part.startswith("{"):
        try:
            return [_alone(read_yaml(part))]
        except yaml.YAMLError as error:
            raise RefcoreError(f"{OPTION} {part}: the term is not valid YAML; expected {{name: clip}}") from error
    if Path(part).suffix in (".yaml", ".yml"):
        listed = presets.load(part).get("witnesses")
        if not isinstance(listed, list) or not listed:
            raise RefcoreError(f'{OPTION} "{part}" holds no witnesses; expected a list `witnesses`, as in a config')
        return [_alone(term) for term in listed]
    source, colon, name = part.partition(":") if ":" in part else (preset, "", part)
    if named := _of_preset(source, name):
        return named
    if not colon and name in registry.names("referees"):
        return [_alone({"name": name})]
    config = RunConfig.from_settings(presets.get(source).settings)
    known = {*config.referee_labels, *config.witness_labels, *([] if colon else registry.names("referees"))}
    raise unknown("witness", name, known, f"{OPTION} {part}" if colon else OPTION)


def _of_preset(preset: str, name: str) -> list[Entry]:
    """A preset's referees and witnesses with this label or name."""
    config = resolve(RunConfig.from_settings(presets.get(preset).settings))
    return [entry for entry in (*judged(config), *witnesses(config)) if name in (entry["label"], entry["name"])]


def _alone(term: Any) -> Entry:
    """A term that no config surrounds, with its plugin's defaults."""
    witness = validated(Witness, term, OPTION)
    own = plugin_config("referees", witness, OPTION, steps=1)  # a witness sees finished pictures
    filled = {"config": own.model_dump(mode="json"), "label": witness.label or witness.name}
    numeric = {
        "dtype": witness.dtype or "float32",
        "autocast": witness.autocast or "off",
        "weights": witness.weights or "off",
    }
    return {**witness.model_dump(mode="json"), **filled, **numeric}
