"""From a config to the loaded engine of a run: plugins' own fields validated, models loaded, misfits refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from refcore import checkpoints, registry
from refcore.config.combine import ConflictAware, NormBalance
from refcore.config.run import RunConfig
from refcore.config.terms import PluginUse
from refcore.engine import checks
from refcore.engine.combine import Combiner, EqualVotes, NormBalanceGradients, SumGradients
from refcore.engine.fitting import named, refuse_too_large
from refcore.engine.loading import Loader
from refcore.engine.models import Models
from refcore.engine.step import Engine
from refcore.engine.transforms import transforms
from refcore.errors import RefcoreError
from refcore.explain import validated
from refcore.rng import Rng


def resolve(config: RunConfig) -> RunConfig:
    """The config with every plugin's own fields validated and filled in. Imports the plugins, loads no model.

    Raises:
        RefcoreError: an unknown or broken plugin, or a field that it does not have, dotted.
    """
    settings = config.settings()
    for field, kind, use in uses(config):
        own = plugin_config(kind, use, field, config.steps)
        place: Any = settings
        for part in field.split("."):
            place = place[int(part) if part.isdecimal() and isinstance(place, list) else part]
        place["config"] = own.model_dump(mode="json")
    return RunConfig.from_settings(settings)


def plugin_config(kind: registry.Kind, use: PluginUse, field: str, steps: int) -> Any:
    """The plugin's own config, validated by its class, its schedules over a run of `steps`.

    Raises:
        RefcoreError: naming `field`, the dotted place of `use`.
    """
    return validated(registry.get(kind, use.name, field).Config, use.config, f"{field}.config", steps)


def uses(config: RunConfig) -> list[tuple[str, registry.Kind, PluginUse]]:
    """(dotted field, kind, use) of every plugin that a config names."""
    found: list[tuple[str, registry.Kind, PluginUse]] = [("canvas", "canvases", config.canvas)]
    terms: Sequence[tuple[str, registry.Kind, Sequence[PluginUse]]] = [
        ("referees", "referees", config.referees),
        ("priors", "priors", config.priors),
        ("witnesses", "referees", config.witnesses),
        ("transforms", "transforms", config.transforms),
        *((f"views.{name}.augment", "augmentations", group.augment) for name, group in config.views.items()),
    ]
    for field, kind, several in terms:
        found += [(f"{field}.{i}", kind, use) for i, use in enumerate(several)]
    return found + [
        (f"referees.{i}.phrases.parser", "parsers", term.phrases.parser)
        for i, term in enumerate(config.referees)
        if term.phrases is not None
    ]


def local_checkpoints(config: RunConfig) -> dict[str, str]:
    """Name -> digest of every embedded or local checkpoint that the plugins of a config name.

    Raises:
        RefcoreError: as `resolve`.
    """
    named = (plugin_config(kind, use, field, config.steps).checkpoints().values() for field, kind, use in uses(config))
    return checkpoints.digests(model for several in named for model in several)


def build(config: RunConfig, models: Models | None = None) -> Engine:
    """Loads everything that a run needs; models that several terms share are loaded once.

    Args:
        config: of the run.
        models: where loaded models are looked for first, and kept for later runs.

    Raises:
        RefcoreError: no prompt, an unknown plugin or field, a missing checkpoint, a size or a prior that the canvas
            refuses, a learning rate of a tensor that it does not have, a negative weight on a loss without upper bound,
            with `strict` a prompt too long for a model.
    """
    if not config.prompts:
        raise RefcoreError("prompts is empty; expected at least one prompt")
    loader = Loader(config.panel, models)
    refuse_too_large(config, loader.device)
    resolve(config)  # every mistake in a plugin's fields comes before the first model is loaded
    changes = transforms(config)
    tracks = len(config.samples) * config.candidates.most
    with named(config, loader.device):
        canvas = loader.canvas(config.canvas, config.image_size)
        if isinstance(config.optimizer.lr, dict):  # which tensors there are only the loaded canvas knows
            one = checks.init(canvas, Rng(config.seeds[:1], 0, "init", device=loader.device))
            config.optimizer.tensors_of(list(one))
        prompts = loader.canvas_prompts(canvas, config.canvas.prompt)
        panel = loader.panel()
        priors = [
            loader.prior(term, label, f"priors.{i}", canvas, tracks)
            for i, (label, term) in enumerate(zip(config.prior_labels, config.priors, strict=True))
        ]
    return Engine(config, canvas, combiner(config), panel, priors, loader.warnings, loader.notes, changes, prompts)


def combiner(config: RunConfig) -> Combiner:
    """The combiner that a config asks for.

    Raises:
        RefcoreError: what it needs is not installed.
    """
    if isinstance(config.combine, ConflictAware):
        from refcore.engine.jacobian import JacobianCombiner  # torchjd is an extra

        return JacobianCombiner(config.combine, config.steps, config.prior_labels)
    inner = (
        NormBalanceGradients(config.combine, config.steps)
        if isinstance(config.combine, NormBalance)
        else SumGradients()
    )
    if config.combine.votes == "weighted":
        return inner
    votes = {label: term.weight_at for label, term in zip(config.referee_labels, config.referees, strict=True)}
    return EqualVotes(inner, config.steps, votes)
