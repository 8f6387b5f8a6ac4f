"""The config of a run as its folder records it, and what tells two configs apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from refcore.config.run import RunConfig
from refcore.engine.build import resolve
from refcore.engine.step import Engine
from refcore.errors import RefcoreError


def recorded(config: RunConfig, engine: Engine) -> RunConfig:
    """A config with the chunk sizes that were found for it: it repeats the run bit for bit on this CPU."""
    panel = engine.panel
    if not panel.chunks:
        return config
    rest = config.chunk if isinstance(config.chunk, int) else None
    chunks = {judge.label: panel.chunks.get(judge.label, rest) for judge in panel.referees}
    return config.model_copy(update={"chunk": {label: n for label, n in chunks.items() if n is not None}})


def differing(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """The fields in which two configs differ, chunks and offload aside; "" where they agree."""
    return ", ".join(name for name in ours if name not in ("chunk", "offload") and theirs.get(name) != ours[name])


def refuse_foreign(config: RunConfig, engine: Engine) -> None:
    """Raises RefcoreError for the engine of another config: its prompts, weights and schedules would be used."""
    if config is engine.config or not differing(engine.config.settings(), config.settings()):
        return
    if differs := differing(resolve(engine.config).settings(), resolve(config).settings()):
        raise RefcoreError(
            f"the engine is of another config (it differs in {differs}); build one for this config, and give both "
            "runs the same models=refcore.Models() to load nothing twice"
        )
