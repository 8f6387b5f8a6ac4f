"""Conversion of published checkpoints: tensors read from a pickle, safetensors and JSON written."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from refcore.errors import CheckpointError, RefcoreError
from refcore.runs.rundir import partial, refuse_existing
from refcore_plugins.models.untrusted_checkpoints import reason_of


def read_pickled(source: Path, expected: str) -> dict[str, Tensor]:
    """The tensors of a torch checkpoint by name, from the top or from under "model" or "state_dict".

    Only tensors are unpickled (`weights_only`). The file is memory-mapped, so that its gigabytes are not read at once.
    The prefix "module.", left by training on several devices, is removed.

    Args:
        source: The file.
        expected: Description of the right file, for errors: "the first-stage file of LAVIS (blip2_pretrained.pth)".

    Raises:
        CheckpointError: the file is missing, corrupt, or holds more than plain tensors.
    """
    if not source.is_file():
        raise CheckpointError(f"there is no file {source}; expected {expected}")
    if tarfile.is_tarfile(source):
        raise CheckpointError(
            f"{source} is an archive of pickles, as torch wrote them before version 0.4; expected {expected}"
        )
    try:
        try:
            content = torch.load(source, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            content = torch.load(source, map_location="cpu", weights_only=True)  # written by torch before 1.6
    except Exception as error:  # a damaged pickle raises whatever its opcodes come upon, struct.error for one
        reason = reason_of(error, 200)
        raise CheckpointError(
            f"{source} cannot be read as a torch checkpoint of plain tensors: {reason}; download it again"
        ) from error
    state: Any = content
    for key in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    tensors = state.items() if isinstance(state, dict) else ()
    return {str(name).removeprefix("module."): value for name, value in tensors if isinstance(value, Tensor)}


def refuse_written(*files: Path) -> None:
    """Refuses to write over files, before a large one is read.

    Raises:
        CheckpointError: one of them exists, or could not be written.
    """
    for file in files:
        try:
            refuse_existing(file)
        except RefcoreError as error:
            raise CheckpointError(str(error)) from error


def write_safetensors(tensors: Mapping[str, Tensor], out: Path, metadata: Mapping[str, str] | None = None) -> Path:
    """Writes a new safetensors file, which gets its name when it is complete.

    Raises:
        CheckpointError: the file exists, or cannot be written.
    """
    refuse_written(out)
    unfinished = partial(out)
    try:
        plain = {name: value.contiguous().clone() for name, value in tensors.items()}
        save_file(plain, unfinished, metadata=dict(metadata or {}) or None)
        os.replace(unfinished, out)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{out} cannot be written: {error}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return out


def write_json(content: Mapping[str, Any], out: Path) -> Path:
    """Writes an indented JSON object to a new file.

    Raises:
        CheckpointError: the file exists, or cannot be written.
    """
    refuse_written(out)
    try:
        out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise CheckpointError(f"{out} cannot be written: {error}") from error
    return out


def convert_weights(source: str | Path, out: str | Path) -> Path:
    """Writes the tensors of a torch checkpoint, under their own names, as safetensors.

    Args:
        source: A file written by `torch.save` that holds only tensors.
        out: The safetensors file.

    Raises:
        CheckpointError: `source` is missing, corrupt, or holds anything but tensors, or `out` cannot be written.
    """
    source, out = Path(source), Path(out)
    refuse_written(out)
    tensors = read_pickled(source, "a torch checkpoint, such as pytorch_model.bin")
    if not tensors:
        raise CheckpointError(f"{source} holds no tensors by name; expected the weights of a model")
    if out.suffix != ".safetensors":
        raise CheckpointError(f"{out} is to hold safetensors; expected a name that ends in .safetensors")
    return write_safetensors(tensors, out, {"format": "pt"})


def matched(
    tensors: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], source: Path, expected: str
) -> dict[str, Tensor]:
    """The `tensors` named in `shapes`, checked against the shapes there.

    Raises:
        CheckpointError: a tensor is missing or has another shape; the message names the first.
    """
    for name, shape in shapes.items():
        if name not in tensors:
            held = ", ".join(sorted({key.split(".")[0] for key in tensors})[:6]) or "no tensors"
            raise CheckpointError(f"{source} lacks {name}; it holds {held}; expected {expected}")
        if tensors[name].shape != shape:
            raise CheckpointError(
                f"{source}: {name} is {list(tensors[name].shape)}, not {list(shape)}; expected {expected}"
            )
    return {name: tensors[name] for name in shapes}


def make_folder(out: Path) -> Path:
    """Creates the folder of a converted checkpoint, with its parents.

    Raises:
        CheckpointError: it cannot be created.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{out} cannot be written: {error}") from error
    return out
