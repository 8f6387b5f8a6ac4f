"""Settings of a variant that is a text-to-image pipeline of diffusers, checked against what the pipeline takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator

from refcore import registry
from refcore.config.section import Section
from refcore.config.terms import PROMPT
from refcore.errors import RefcoreError, unknown
from refcore_bench.samples.choice import Choice
from refcore_bench.samples.subjects import Subjects

TOKENS = "token_indices"
"""Argument of pipelines that attend to the tokens of things."""
GUIDANCE = {"QwenImagePipeline": "true_cfg_scale"}
"""Pipeline -> its argument for classifier-free guidance, where it is not `guidance_scale`."""
OWN_FIELDS: dict[str, str] = {
    "prompt": "prompt",
    "num_inference_steps": "steps",
    "timesteps": "timesteps",
    "height": "height",
    "width": "width",
    "negative_prompt": "negative",
}
"""Argument of pipelines -> the field that sets it."""
TAKEN = frozenset(
    {
        *("generator", "latents", "output_type", "return_dict", "num_images_per_prompt"),
        *("callback", "callback_steps", "callback_on_step_end", "callback_on_step_end_tensor_inputs"),
    }
)
"""Arguments that the benchmark itself sets, or leaves."""


class Part(Section):
    """A component from elsewhere."""

    model: str = Field(
        description="Folder or hub id, of a whole pipeline or of the component alone, or a safetensors file of weights."
    )


class Pipeline(Choice):
    """Settings of a variant that is a pipeline of diffusers. What is null is left to the pipeline's own default."""

    model: str = Field(description="Folder or hub id of a whole pipeline, with a model_index.json.")
    pipeline: str | None = Field(
        None, description="Text-to-image pipeline of diffusers, by class; null: the one that model_index.json names."
    )
    parts: dict[str, Part] = Field(
        default_factory=dict, description="Component, such as transformer -> where it is from instead."
    )
    scheduler: str | None = Field(None, description="Scheduler of diffusers, by class, in place of the folder's.")
    schedule: dict[str, Any] = Field(
        default_factory=dict, description="Fields of the scheduler's config that differ from the folder's."
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="Dtype of the networks.")
    device: str = Field(
        "auto", description="auto (CUDA if available, then MPS, then the CPU), or a torch device such as cuda:1."
    )
    prompt: str = Field(PROMPT, description="What the pipeline is told; {prompt} stands for the prompt.")
    negative: str | None = Field(None, description="Negative prompt.")
    steps: int | None = Field(None, ge=1, description="Steps of the scheduler.")
    timesteps: list[int | float] | None = Field(None, min_length=1, description="Timesteps, in place of `steps`.")
    guidance: float | None = Field(None, ge=0, description="Guidance scale.")
    height: int | None = Field(None, ge=8, description="Height of an image in pixels.")
    width: int | None = Field(None, ge=8, description="Width of an image in pixels.")
    subjects: Subjects | None = Field(
        None, description="Of pipelines that attend to tokens, such as Attend-and-Excite: how those are found."
    )
    arguments: dict[str, Any] = Field(
        default_factory=dict, description="Further arguments of the pipeline's call; null is a value."
    )

    @field_validator("parts", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        """A name stands for a part of that model."""
        if not isinstance(value, Mapping):
            return value
        return {name: {"model": part} if isinstance(part, str) else part for name, part in value.items()}


def checked(settings: Pipeline) -> Pipeline:
    """The settings with the pipeline's class, where it is known without the hub.

    Raises:
        RefcoreError: there is no such folder, its class is unknown or makes no pictures of prompts, or takes no such
            argument; or the parser of its subjects is not installed.
    """
    from refcore_plugins.models.diffusers_folder import DiffusersFolder
    from refcore_plugins.models.diffusers_pipeline import class_in, pipeline_class

    name, folder = settings.pipeline, DiffusersFolder(settings.model)
    if name is None and folder.is_local:
        name = class_in(folder)
    if name is not None:
        cls = pipeline_class(name)
        arguments_of(cls, settings)
        subjects = settings.subjects or Subjects()
        if attends(cls) and TOKENS not in settings.arguments and not subjects.words:
            registry.create("parsers", subjects.parser.name, subjects.parser.config, "subjects.parser").check()
    return settings.model_copy(update={"pipeline": name})


def remark(settings: Mapping[str, Any]) -> str | None:
    """What whoever runs a pipeline should know of it, by its settings: that diffusers no longer maintains it."""
    if settings.get("pipeline") is None:
        return None
    from refcore_plugins.models.diffusers_pipeline import deprecated_since, pipeline_class

    version = deprecated_since(pipeline_class(settings["pipeline"]))
    if version is None:
        return None
    return f"{settings['pipeline']} is deprecated in diffusers, which has not maintained it since {version}"


def arguments_of(cls: Any, settings: Pipeline) -> dict[str, Any]:
    """The arguments of a pipeline's call that are the same for all images.

    Raises:
        RefcoreError: the pipeline takes no such argument, or it is for a field of the settings.
    """
    from refcore_plugins.models.diffusers_pipeline import call_parameters

    taken = call_parameters(cls)
    guidance = GUIDANCE.get(cls.__name__, "guidance_scale")
    own = {**OWN_FIELDS, guidance: "guidance"}
    for name in settings.arguments:
        if name in own or name in TAKEN:
            instead = f"set `{own[name]}` instead" if name in own else "the benchmark sets it; remove it"
            raise RefcoreError(f"arguments.{name}: {instead}")
        if name not in taken:
            raise unknown("argument", name, set(taken) - TAKEN - set(own), f"arguments of {cls.__name__}")
    given: dict[str, Any] = {
        "num_inference_steps": settings.steps,
        "timesteps": settings.timesteps,
        guidance: settings.guidance,
        "height": settings.height,
        "width": settings.width,
        "negative_prompt": settings.negative,
    }
    given = {name: value for name, value in given.items() if value is not None}
    for name in given:
        if name not in taken:
            raise RefcoreError(f"{own[name]}: {cls.__name__} takes no {name}; remove it")
    if settings.subjects is not None and TOKENS not in taken:
        raise RefcoreError(f"subjects: {cls.__name__} takes no {TOKENS}; remove it")
    missing = [
        name for name, one in taken.items() if one.default is one.empty and name not in {"prompt", TOKENS, *given}
    ]
    if strangers := [name for name in missing if name not in settings.arguments]:
        raise RefcoreError(f"arguments.{strangers[0]}: {cls.__name__} needs it; expected a value")
    return {**given, **{name: _numbered(value) for name, value in settings.arguments.items()}}


def attends(cls: Any) -> bool:
    """Whether a pipeline attends to the tokens of things."""
    from refcore_plugins.models.diffusers_pipeline import call_parameters

    return TOKENS in call_parameters(cls)


def _numbered(value: Any) -> Any:
    """A mapping from numbers, which JSON writes as text: the thresholds of Attend-and-Excite by step."""
    if isinstance(value, Mapping) and value and all(str(key).isdigit() for key in value):
        return {int(key): one for key, one in value.items()}
    return value
