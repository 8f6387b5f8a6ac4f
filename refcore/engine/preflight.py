"""What can be told of a run before any model is loaded: missing files, packages, calibrations and devices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from refcore import registry
from refcore.config.run import RunConfig
from refcore.config.start import ImageStart
from refcore.config.terms import PROMPT, BaseTerm, PluginUse
from refcore.engine.build import combiner, plugin_config, uses
from refcore.engine.checks import Call
from refcore.engine.loading import create, pick_device, prompts_of, thresholds
from refcore.errors import RefcoreError
from refcore.plugin import Plugin


def check(config: RunConfig) -> None:
    """Raises the first of `problems`."""
    for problem in problems(config):
        raise problem


def problems(config: RunConfig) -> Iterator[RefcoreError]:
    """What would keep a run from starting, as far as it can be told at once; plugins are imported, no model is loaded.

    In this order: the device, images to start from, each plugin's own fields and `Plugin.check`, calibrations, and what
    the combiner needs.
    """
    for attempt in _attempts(config):
        try:
            attempt()
        except RefcoreError as problem:
            yield problem


def _attempts(config: RunConfig) -> Iterator[Callable[[], object]]:
    yield partial(pick_device, config.device)
    if isinstance(config.init, ImageStart) and config.prompts:
        yield partial(config.init.check, config.samples, registry.get("canvases", config.canvas.name).opens)
    prompts = list(dict.fromkeys(config.prompts))
    for field, kind, use in uses(config):
        yield partial(_check, kind, use, field, prompts)
    samples = prompts_of(config.panel)
    for own in config.panel.referees:
        yield partial(
            thresholds, own.term, plugin_config("referees", own.term, own.field, config.steps), samples, own.field
        )
    yield partial(combiner, config)


def _check(kind: registry.Kind, use: PluginUse, field: str, prompts: Sequence[str]) -> None:
    """`Plugin.check` with the prompts as the plugin is to read them."""
    texts = [use.prompt.replace(PROMPT, prompt) for prompt in prompts] if isinstance(use, BaseTerm) else prompts
    plugin: Plugin = create(kind, use, field)
    with Call(plugin, "check", field):
        plugin.check(texts)
