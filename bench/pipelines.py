"""Samples of any text-to-image pipeline of diffusers, each image from a generator of its own."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from refcore import registry
from refcore.config.section import Section
from refcore.config.terms import PROMPT
from refcore.engine.loading import pick_device
from refcore.errors import RefcoreError, unknown
from refcore.rng import candidate_key, keyed_generator
from refcore_bench.choice import Choice
from refcore_bench.subjects import Subjects, token_indices

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
        if _attends(cls) and TOKENS not in settings.arguments and not subjects.words:
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
            raise unknown("argument", name, set(taken) - TAKEN - set(own), f"arguments: {cls.__name__} takes it not")
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


class Drawn:
    """A loaded pipeline.

    Raises:
        RefcoreError: its components cannot be loaded, or it takes other arguments.
    """

    def __init__(self, settings: Pipeline) -> None:
        from refcore_plugins.models.diffusers_folder import DiffusersFolder
        from refcore_plugins.models.diffusers_pipeline import class_in, load_pipeline, pipeline_class

        folder = DiffusersFolder(settings.model)
        cls = pipeline_class(settings.pipeline or class_in(folder))
        arguments_of(cls, settings)  # before minutes of loading
        self.pipeline = load_pipeline(
            folder,
            cls,
            {name: part.model for name, part in settings.parts.items()},
            pick_device(settings.device),
            getattr(torch, settings.dtype),
            settings.scheduler,
            settings.schedule,
        )

    def steps(self, settings: Pipeline) -> int:
        """Steps of an image."""
        from refcore_plugins.models.diffusers_pipeline import call_parameters

        if settings.timesteps is not None:
            return len(settings.timesteps)
        return settings.steps or int(call_parameters(type(self.pipeline))["num_inference_steps"].default)

    def draw(self, samples: Sequence[tuple[str, int]], seed: int, settings: Pipeline, chunk: int) -> Tensor:
        """Images [N, 3, H, W] in [0, 1] of N samples, on the CPU.

        Args:
            samples: (prompt, number of the sample).
            seed: Random seed of every image.
            settings: Of the call.
            chunk: Number of images drawn side by side.

        Raises:
            RefcoreError: the pipeline refuses the arguments, or gives NaN.
        """
        parts = [self._draw(samples[i : i + chunk], seed, settings) for i in range(0, len(samples), chunk)]
        return torch.cat(parts)

    def _draw(self, samples: Sequence[tuple[str, int]], seed: int, settings: Pipeline) -> Tensor:
        cls = type(self.pipeline)
        texts = [settings.prompt.replace(PROMPT, prompt) for prompt, _ in samples]
        arguments = arguments_of(cls, settings)
        if "negative_prompt" in arguments:
            arguments["negative_prompt"] = [settings.negative] * len(texts)
        if _attends(cls) and TOKENS not in arguments:
            subjects = settings.subjects or Subjects()
            arguments[TOKENS] = [
                token_indices(self.pipeline.tokenizer, text, prompt, subjects)
                for text, (prompt, _) in zip(texts, samples, strict=True)
            ]
        elif _attends(cls):
            arguments[TOKENS] = [arguments[TOKENS]] * len(texts)
        try:
            output = self.pipeline(
                prompt=texts,
                generator=[generator(seed, number) for _, number in samples],
                output_type="pt",
                **arguments,
            )
        except RefcoreError:
            raise
        except (ValueError, TypeError, RuntimeError, AttributeError, IndexError) as error:
            from refcore_plugins.models.untrusted_checkpoints import reason_of

            if isinstance(error, torch.OutOfMemoryError):
                raise RefcoreError(
                    f'{cls.__name__} of "{settings.model}" needs more memory to draw {len(texts)} images at once; '
                    "try a smaller --batch, or dtype=bfloat16"
                ) from error
            raise RefcoreError(
                f'{cls.__name__} of "{settings.model}" cannot draw with these settings: {type(error).__name__}: '
                f"{reason_of(error)}"
            ) from error
        images = getattr(output, "images", None)
        if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[:2] != (len(texts), 3):
            raise RefcoreError(f"{cls.__name__} gives no pictures of three channels; expected a text-to-image pipeline")
        images = images.float().cpu()
        if not torch.isfinite(images).all():
            raise RefcoreError(
                f'{cls.__name__} of "{settings.model}" gave NaN in {settings.dtype}; set dtype=bfloat16 or float32'
            )
        return images


def generator(seed: int, number: int = 0) -> torch.Generator:
    """A new CPU generator of sample `number` of a seed; that of sample 0 has the seed itself, as by hand.

    It is the same for every prompt, as in the public code of benchmarks.
    """
    if number == 0:
        return torch.Generator().manual_seed(seed)
    return keyed_generator(candidate_key(seed, number), 0, "pipeline")


class _Warm:
    """The pipeline that this process holds: one, since two may not fit."""

    def __init__(self) -> None:
        self.key, self.drawn = "", None

    key: str
    drawn: Drawn | None

    def get(self, settings: Pipeline, make: Callable[[Pipeline], Drawn]) -> Drawn:
        key = loading_key(settings.model_dump(mode="json"))
        if self.drawn is None or self.key != key:
            self.drop()  # before the next is loaded
            self.drawn, self.key = make(settings), key
        return self.drawn

    def drop(self) -> None:
        if self.drawn is not None:
            self.drawn = None
            gc.collect()  # its parts know each other
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


_WARM = _Warm()
LOADING = ("model", "pipeline", "parts", "scheduler", "schedule", "dtype", "device")
"""Fields that say what is loaded."""


def loading_key(settings: Mapping[str, Any]) -> str:
    """Key of what settings load, and of the bytes of local folders: pipelines with the same key are loaded once."""
    from refcore_bench.checkpoint_hashes import hashes
    from refcore_bench.scorers import digest

    loaded = {name: settings[name] for name in LOADING}
    return digest([loaded, hashes(loaded)])


def loaded(settings: Pipeline) -> Drawn:
    """The pipeline of these settings, loaded unless this process holds it."""
    return _WARM.get(settings, Drawn)


def release() -> None:
    """Drops the pipeline that this process holds, for what needs the memory."""
    _WARM.drop()


def _attends(cls: Any) -> bool:
    from refcore_plugins.models.diffusers_pipeline import call_parameters

    return TOKENS in call_parameters(cls)


def _numbered(value: Any) -> Any:
    """A mapping from numbers, which JSON writes as text: the thresholds of Attend-and-Excite by step."""
    if isinstance(value, Mapping) and value and all(str(key).isdigit() for key in value):
        return {int(key): one for key, one in value.items()}
    return value
