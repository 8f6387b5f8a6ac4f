"""refcore makes images by inverting referees: frozen models that judge whether an image matches a prompt.

Names are imported on first use, so that `import refcore` loads neither torch nor a plugin.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from refcore.config.run import RunConfig
    from refcore.config.schedule import Schedule, WholeSchedule
    from refcore.contracts.augmentation import Augmentation
    from refcore.contracts.canvas import Canvas, LatentSpace, PromptedCanvas
    from refcore.contracts.conditioning import Conditioning
    from refcore.contracts.judge import Fact, Judge, Verdict
    from refcore.contracts.metric import BenchmarkPrompt, Measurement, Metric
    from refcore.contracts.parser import ParsedPrompt, Parser, Phrase, Relation
    from refcore.contracts.prior import Prior
    from refcore.contracts.referee import Referee
    from refcore.contracts.tracker import TrackedRun, Tracker
    from refcore.contracts.transform import Transform
    from refcore.decorators import prior, referee
    from refcore.engine.build import resolve
    from refcore.engine.inversion import Inversion, StepResult
    from refcore.engine.models import Models
    from refcore.engine.step import Engine
    from refcore.errors import (
        AlreadyFinished,
        CheckpointError,
        ConfigError,
        ContractError,
        NonFiniteError,
        RefcoreError,
        Terminated,
    )
    from refcore.hooks import hookimpl
    from refcore.moment import Moment
    from refcore.objective import Objective
    from refcore.plugin import Plugin, PluginConfig
    from refcore.rng import Rng
    from refcore.runs.live import Live, live
    from refcore.runs.observers import Observer
    from refcore.runs.result import Result, Sample
    from refcore.runs.resume import resume
    from refcore.runs.run import Run, invert

_MODULES = {
    "config.run": ["RunConfig"],
    "config.schedule": ["Schedule", "WholeSchedule"],
    "contracts.augmentation": ["Augmentation"],
    "contracts.canvas": ["Canvas", "LatentSpace", "PromptedCanvas"],
    "contracts.conditioning": ["Conditioning"],
    "contracts.judge": ["Fact", "Judge", "Verdict"],
    "contracts.metric": ["BenchmarkPrompt", "Measurement", "Metric"],
    "contracts.parser": ["Parser", "Phrase", "ParsedPrompt", "Relation"],
    "contracts.prior": ["Prior"],
    "contracts.referee": ["Referee"],
    "contracts.tracker": ["Tracker", "TrackedRun"],
    "contracts.transform": ["Transform"],
    "decorators": ["prior", "referee"],
    "engine.build": ["resolve"],
    "engine.inversion": ["Inversion", "StepResult"],
    "engine.models": ["Models"],
    "engine.step": ["Engine"],
    "errors": [
        "AlreadyFinished",
        "CheckpointError",
        "ConfigError",
        "ContractError",
        "NonFiniteError",
        "RefcoreError",
        "Terminated",
    ],
    "hooks": ["hookimpl"],
    "moment": ["Moment"],
    "objective": ["Objective"],
    "plugin": ["Plugin", "PluginConfig"],
    "rng": ["Rng"],
    "runs.live": ["Live", "live"],
    "runs.observers": ["Observer"],
    "runs.result": ["Result", "Sample"],
    "runs.resume": ["resume"],
    "runs.run": ["Run", "invert"],
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}
"""Public name -> the module that defines it."""

__all__ = [
    "AlreadyFinished",
    "Augmentation",
    "BenchmarkPrompt",
    "Canvas",
    "CheckpointError",
    "Conditioning",
    "ConfigError",
    "ContractError",
    "Engine",
    "Fact",
    "Inversion",
    "Judge",
    "LatentSpace",
    "Live",
    "Measurement",
    "Metric",
    "Models",
    "Moment",
    "NonFiniteError",
    "Objective",
    "Observer",
    "ParsedPrompt",
    "Parser",
    "Phrase",
    "Plugin",
    "PluginConfig",
    "Prior",
    "PromptedCanvas",
    "RefcoreError",
    "Referee",
    "Relation",
    "Result",
    "Rng",
    "Run",
    "RunConfig",
    "Sample",
    "Schedule",
    "StepResult",
    "Terminated",
    "TrackedRun",
    "Tracker",
    "Transform",
    "Verdict",
    "WholeSchedule",
    "hookimpl",
    "invert",
    "live",
    "prior",
    "referee",
    "resolve",
    "resume",
]


if not TYPE_CHECKING:  # a type checker that sees it lets every misspelt name pass

    def __getattr__(name: str) -> Any:
        if name not in _HOME:
            raise AttributeError(f"module 'refcore' has no attribute {name!r}")
        value = getattr(import_module(f"refcore.{_HOME[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
