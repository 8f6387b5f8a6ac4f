"""Any text-to-image pipeline of diffusers, made of the components of a folder, each loaded as data."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import import_module
from os.path import expanduser
from pathlib import Path
from typing import Any

import torch
from torch import nn

from refcore.errors import CheckpointError, RefcoreError, article, nearest
from refcore_plugins.models.diffusers_folder import DiffusersFolder, diffusers_options, place, silently
from refcore_plugins.models.quiet_loading import quietly
from refcore_plugins.models.untrusted_checkpoints import LIBRARIES, reason_of

INDEX = "model_index.json"
SKIPPED = frozenset({"safety_checker", "feature_extractor", "image_encoder"})
"""Components that are never loaded: a safety checker blackens pictures, and the others read pictures."""
UNMARKED = {"requires_safety_checker": False, "add_watermarker": False}
"""Options of pipelines -> what they are here: otherwise a picture would depend on which packages are installed."""
OTHERS = frozenset(
    {
        *("image", "mask_image", "control_image", "conditioning_image", "source_prompt", "video", "audio"),
        *("num_frames", "video_length", "audio_length_in_s", "audio_end_in_s", "audio_duration", "frame_size"),
    }
)
"""Arguments of pipelines that change a picture, or make a film, a sound or a solid."""
OPTIONAL_PICTURES = frozenset({"Flux2Pipeline", "Flux2KleinPipeline", "GlmImagePipeline", "QwenImage21Pipeline"})
"""Pipelines that may be given pictures, and need none."""


def pipeline_class(name: str) -> Any:
    """The text-to-image pipeline of diffusers with this name.

    Raises:
        CheckpointError: diffusers has none, or it is for something else.
    """
    import diffusers

    found = getattr(diffusers, name, None) if name.isidentifier() and name in dir(diffusers) else None
    if not (inspect.isclass(found) and issubclass(found, diffusers.DiffusionPipeline)):
        guess = nearest(name, [each for each in dir(diffusers) if each.endswith("Pipeline")])
        hint = f'; did you mean "{guess}"?' if guess else ""
        raise CheckpointError(f'"{name}" is no pipeline of diffusers {diffusers.__version__}{hint}')
    taken = call_parameters(found)
    others = sorted(OTHERS & set(taken)) if name not in OPTIONAL_PICTURES else []
    if others or not {"prompt", "generator", "output_type"} <= set(taken):
        why = f"takes {others[0]}" if others else "makes no pictures of prompts"
        raise CheckpointError(f"{name} {why}; expected a text-to-image pipeline of diffusers")
    return found


def call_parameters(cls: Any) -> dict[str, inspect.Parameter]:
    """Name -> parameter of a pipeline's call."""
    taken = inspect.signature(cls.__call__).parameters
    return {name: one for name, one in taken.items() if name != "self" and one.kind is not one.VAR_KEYWORD}


def deprecated_since(cls: Any) -> str | None:
    """Last version of diffusers in which a pipeline was maintained; None if it still is."""
    version: str | None = getattr(cls, "_last_supported_version", None)
    return version


def class_in(folder: DiffusersFolder) -> str:
    """Name of the pipeline's class in a folder's model_index.json.

    Raises:
        CheckpointError: the folder has no such file.
    """
    if folder.pipeline is None:
        raise CheckpointError(
            f'"{folder.model}" has no {INDEX}; expected the folder or hub id of a whole pipeline of diffusers'
        )
    return folder.pipeline


def load_pipeline(
    folder: DiffusersFolder,
    cls: Any,
    parts: Mapping[str, str],
    device: torch.device,
    dtype: torch.dtype,
    scheduler: str | None = None,
    schedule: Mapping[str, Any] | None = None,
) -> Any:
    """A pipeline in eval mode, without progress bar, safety checker and watermark.

    Args:
        folder: Of the pipeline.
        cls: Its class; see `pipeline_class`.
        parts: Component -> another folder or hub id, of a pipeline or bare, or a safetensors file of its weights.
        device: Of its networks.
        dtype: Of their weights.
        scheduler: Class of diffusers in place of the folder's.
        schedule: Fields of the scheduler's config that differ from the folder's.

    Raises:
        CheckpointError: a component is missing or broken, or its class is neither of diffusers nor of transformers.
    """
    index = folder.json(INDEX) or {}
    expected, options = cls._get_signature_keys(cls)
    components = [name for name in expected if name not in SKIPPED]
    if strangers := sorted(set(parts) - set(components)):
        raise RefcoreError(
            f"parts.{strangers[0]}: {cls.__name__} has no such component; known: {', '.join(components)}"
        )
    loaded: dict[str, Any] = {name: None for name in expected if name in SKIPPED}
    for name in components:
        named = index.get(name)
        if (not isinstance(named, list) or None in named) and name not in parts:
            if name not in cls._optional_components:
                raise CheckpointError(
                    f'{INDEX} of "{folder.model}" names no {name}, which {article(cls.__name__)} has; it is the folder '
                    f"of {article(class_in(folder))}"
                )
            loaded[name] = None
            continue
        loaded[name] = _component(folder, index, name, parts.get(name), device, dtype)
        if "scheduler" in name and (scheduler is not None or schedule):
            loaded[name] = _rescheduled(loaded[name], scheduler, schedule or {})
    chosen = {name: UNMARKED.get(name, index.get(name)) for name in options if name in UNMARKED or name in index}
    with silently():  # that it is deprecated, and that nobody checks for safety
        pipeline = cls(**loaded, **chosen)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _component(
    folder: DiffusersFolder,
    index: Mapping[str, Any],
    name: str,
    part: str | None,
    device: torch.device,
    dtype: torch.dtype,
) -> Any:
    """A component, from the folder or from elsewhere."""
    source, place_ = folder, name
    file = None
    if part is not None and Path(expanduser(part)).is_file():
        file = Path(expanduser(part))
        if file.suffix != ".safetensors":
            raise CheckpointError(
                f'parts.{name} "{part}" is no file in safetensors; pickles can run code when they are read'
            )
    elif part is not None:
        try:
            source = DiffusersFolder(part)
        except CheckpointError as error:
            raise CheckpointError(f"parts.{name}: {error}") from error
        theirs = source.json(INDEX) or {}
        index = {**index, name: theirs[name]} if isinstance(theirs.get(name), list) else index
        if source.json(f"{name}/{_config_of(name)}") is None:
            place_ = ""
    cls = _class(index.get(name), name, source.model)
    if issubclass(cls, nn.Module):
        if file is not None:
            network: Any = folder.load_with(cls, name, file, str(part), dtype)
        else:
            with quietly():
                network = source.load(cls, place_, dtype, **(diffusers_options() if _of_diffusers(cls) else {}))
        return place(network, device, dtype) if _of_diffusers(cls) else network.to(device)
    if "scheduler" in name:
        try:
            return cls.from_config(source.config(place_, _config_of(name)))
        except CheckpointError:
            raise
        except Exception as error:  # whatever a wrong value leads to
            raise CheckpointError(f'{name} of "{source.model}" cannot be made: {reason_of(error, 200)}') from error
    return source.load_tokenizer(cls, place_)


def _config_of(name: str) -> str:
    """The file that a component's folder has."""
    if "scheduler" in name:
        return "scheduler_config.json"
    return "tokenizer_config.json" if "tokenizer" in name else "config.json"


def _class(named: Any, component: str, model: str) -> Any:
    """The class that a model_index.json names for a component, as [library, class].

    Raises:
        CheckpointError: it is neither of diffusers nor of transformers.
    """
    library, name = (*named, None, None)[:2] if isinstance(named, list) else (None, None)
    where = f'{INDEX} of "{model}"'
    if not (isinstance(library, str) and isinstance(name, str) and library.isidentifier() and name.isidentifier()):
        raise CheckpointError(f"{where} names no class of {component}; expected [library, class]")
    try:
        module = import_module(library if library in LIBRARIES else f"diffusers.pipelines.{library}")
        cls = getattr(module, name)
    except (ImportError, AttributeError) as error:
        raise CheckpointError(
            f"{where} has {component}: {library}.{name}, which is not in {' or '.join(LIBRARIES)} as installed; "
            "expected a class of one of them"
        ) from error
    if not inspect.isclass(cls) or cls.__module__.partition(".")[0] not in LIBRARIES:
        raise CheckpointError(
            f"{where} has {component}: {library}.{name}; expected a class of {' or '.join(LIBRARIES)}"
        )
    return cls


def _rescheduled(own: Any, name: str | None, changes: Mapping[str, Any]) -> Any:
    """A scheduler with the config of another, perhaps changed, and perhaps of another class that can sample the same.

    Raises:
        RefcoreError: diffusers has no such class, it cannot sample the same networks, it has no such field, or does not
            take its value.
    """
    classes = {cls.__name__: cls for cls in (*own.compatibles, type(own))}
    if name is not None and name not in classes:
        guess = nearest(name, classes)
        hint = f'; did you mean "{guess}"?' if guess else ""
        raise RefcoreError(
            f"scheduler: {name} cannot take the place of {type(own).__name__}; known: {', '.join(sorted(classes))}"
            f"{hint}"
        )
    cls = classes[name] if name is not None else type(own)
    fields = set(inspect.signature(cls.__init__).parameters) - {"self"}
    if strangers := sorted(set(changes) - fields):
        raise RefcoreError(
            f"schedule.{strangers[0]}: {cls.__name__} has no such field; known: {', '.join(sorted(fields))}"
        )
    try:
        return cls.from_config(own.config, **changes)
    except Exception as error:  # whatever a wrong value leads to
        given = ", ".join(f"schedule.{field}={value}" for field, value in changes.items())
        raise RefcoreError(f"{given}: {cls.__name__} cannot be made with it: {reason_of(error, 200)}") from error


def _of_diffusers(cls: Any) -> bool:
    return bool(cls.__module__.partition(".")[0] == "diffusers")
