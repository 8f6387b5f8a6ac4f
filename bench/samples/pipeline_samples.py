"""Samples of a pipeline of diffusers: loaded once in a process, each image from a generator of its own."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from refcore.config.terms import PROMPT
from refcore.engine import memory
from refcore.engine.loading import pick_device
from refcore.errors import OutOfMemory, RefcoreError
from refcore.rng import candidate_key, keyed_generator
from refcore_bench.checkpoint_hashes import hashes
from refcore_bench.samples.pipelines import TOKENS, Pipeline, arguments_of, attends
from refcore_bench.samples.subjects import Subjects, token_indices
from refcore_bench.scorers import digest


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
        try:
            self.pipeline = load_pipeline(
                folder,
                cls,
                {name: part.model for name, part in settings.parts.items()},
                pick_device(settings.device),
                getattr(torch, settings.dtype),
                settings.scheduler,
                settings.schedule,
            )
        except Exception as error:
            if not memory.is_out_of_memory(error):
                raise
            raise OutOfMemory(
                f'{cls.__name__} of "{settings.model}" in {settings.dtype} does not fit into the memory of the device '
                f'"{settings.device}"; try dtype=bfloat16, or another device'
            ) from error

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
        if attends(cls) and TOKENS not in arguments:
            subjects = settings.subjects or Subjects()
            arguments[TOKENS] = [
                token_indices(self.pipeline.tokenizer, text, prompt, subjects)
                for text, (prompt, _) in zip(texts, samples, strict=True)
            ]
        elif attends(cls):
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
        except Exception as error:  # pipelines raise many kinds on settings that they do not take
            from refcore_plugins.models.untrusted_checkpoints import reason_of

            if memory.is_out_of_memory(error):
                raise OutOfMemory(
                    f'{cls.__name__} of "{settings.model}" needs more memory to draw {len(texts)} images at once; '
                    "try a smaller --batch, a smaller height and width, or dtype=bfloat16"
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


@dataclass
class _Warm:
    """The pipeline that this process holds: one, since two may not fit."""

    key: str = ""
    drawn: Drawn | None = None

    def get(self, settings: Pipeline) -> Drawn:
        key = loading_key(settings.model_dump(mode="json"))
        if self.drawn is None or self.key != key:
            self.drop()  # before the next is loaded
            self.drawn, self.key = Drawn(settings), key
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
    loaded = {name: settings[name] for name in LOADING}
    return digest([loaded, hashes(loaded)])


def loaded(settings: Pipeline) -> Drawn:
    """The pipeline of these settings, loaded unless this process holds it."""
    return _WARM.get(settings)


def release() -> None:
    """Drops the pipeline that this process holds, for what needs the memory."""
    _WARM.drop()
