"""Where checkpoints are: `playground:NAME` for the embedded ones, and the error for what cannot be downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from refcore.errors import CheckpointError, unknown

EMBEDDED = "playground:"
"""Prefix of a checkpoint that comes with refcore: `playground:clip`, `playground:blip2`, `playground:diffusion`."""
PLAYGROUND = "refcore_playground"


def resolve(model: str) -> str:
    """The folder of an embedded checkpoint (`playground:NAME`); any other model (hub id, path) is returned as it is.

    The package that carries it is located, not imported: what a run optimises never loads the playground's code.

    Raises:
        CheckpointError: there is no such embedded checkpoint, or its files are missing.
    """
    if not model.startswith(EMBEDDED):
        return model
    name = model.removeprefix(EMBEDDED)
    folder = zoo() / name
    if name not in embedded():
        raise CheckpointError(str(unknown("embedded checkpoint", model, [EMBEDDED + known for known in embedded()])))
    if not any(path.is_file() and path.stat().st_size for path in folder.rglob("*.safetensors")):
        raise CheckpointError(
            f'embedded checkpoint "{model}" has no weights in {folder}; '
            f"reinstall refcore, or train it: python -m refcore_playground.train {name} --out {folder}"
        )
    return str(folder)


def embedded() -> list[str]:
    """Names of the embedded checkpoints, sorted."""
    return sorted(path.name for path in zoo().iterdir() if path.is_dir()) if zoo().is_dir() else []


def zoo() -> Path:
    """The folder of the embedded checkpoints, whether or not it exists.

    Raises:
        CheckpointError: the package that carries them is not installed.
    """
    spec = find_spec(PLAYGROUND)
    if spec is None or not spec.submodule_search_locations:
        raise CheckpointError(f"{PLAYGROUND}, which carries the embedded checkpoints, is missing: reinstall refcore")
    return Path(spec.submodule_search_locations[0]) / "zoo"


def offline_error(model: str, cause: BaseException | None = None, remedy: str = "") -> CheckpointError:
    """The error for a model that is neither on disk nor downloadable, ready to be raised.

    Args:
        model: as the config has it, a hub id for example.
        cause: what the library said; its type alone is told, since such messages run over many lines.
        remedy: instead of the usual one.
    """
    why = f" ({type(cause).__name__})" if cause is not None else ""
    remedy = remedy or (
        f"connect to the network, or run `hf download {model}` where there is one "
        "and copy the folder here, then set `model` to that folder"
    )
    return CheckpointError(f'model "{model}" is not on this machine and cannot be downloaded{why}; {remedy}')


@contextmanager
def needed_by(preset: str | None) -> Iterator[None]:
    """Checkpoint errors raised inside name the preset that asks for the checkpoint; with None they pass as they are."""
    try:
        yield
    except CheckpointError as error:
        if not preset or f'preset "{preset}"' in str(error):
            raise
        raise CheckpointError(f'preset "{preset}" cannot run: {error}') from error
